"""Replacing a layer's activations at chosen positions during a forward pass."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mi_crow.errors import UserError
from mi_crow.language_model.hook_points.tap import tap
from mi_crow.mechanistic.sae.base import SparseAutoencoder

if TYPE_CHECKING:
    from mi_crow.language_model.hook_points.point import HookPoint
    from mi_crow.language_model.language_model import LanguageModel

Change = Callable[[Tensor], Tensor]


@contextmanager
def substitute(
    lm: "LanguageModel", layer: "str | int | HookPoint", change: Change
) -> Iterator[None]:
    """Inside the block, `change` gets the activations of `layer` [batch, length, d] and returns
    those that the model continues with."""
    remove = tap(lm, lm.layers.resolve(layer), change)
    try:
        yield
    finally:
        remove()


def replaceable(x: Tensor, kept: Tensor, outlier_norm: float | None) -> Tensor:
    """Positions whose activations x [batch, length, d] may be replaced: bool [batch, length].

    `kept` marks the positions that are neither padding nor special; massive tokens are left out.
    """
    if outlier_norm is None:
        return kept
    return kept & (torch.linalg.vector_norm(x.float(), dim=-1) <= outlier_norm)


Value = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Substitution:
    """An SAE in its model: the layer that it reads and the one that its output replaces, which
    differ for a transcoder."""

    lm: "LanguageModel"
    sae: SparseAutoencoder
    read: "str | int | HookPoint"
    write: "str | int | HookPoint"

    @contextmanager
    def replaced(self, kept: Tensor, value: Value) -> Iterator[None]:
        """Inside the block, the layer `write` becomes value(x, y) [batch, length, n_outputs] at the
        replaceable positions among `kept` [batch, length]; x are the activations of `read`, y those
        that are replaced. Whether a token is an outlier is decided by x.

        Raises UserError in a pass that reaches `write` first.
        """
        if self.read == self.write:
            with substitute(self.lm, self.write, lambda y: self._changed(y, y, kept, value)):
                yield
            return
        seen: list[Tensor] = []

        def keep(x: Tensor) -> Tensor:
            seen.append(x)
            return x

        def change(y: Tensor) -> Tensor:
            if not seen:
                raise UserError(
                    f"the model reaches layer {self.write!r} before layer {self.read!r}",
                    hint="a transcoder predicts a layer that comes after the one it reads",
                )
            return self._changed(seen.pop(), y, kept, value)

        with substitute(self.lm, self.read, keep), substitute(self.lm, self.write, change):
            yield

    def _changed(self, x: Tensor, y: Tensor, kept: Tensor, value: Value) -> Tensor:
        where = replaceable(x, kept, self.sae.metadata.outlier_norm)
        return torch.where(where[..., None], value(x, y).to(y.dtype), y)

    def reconstruction(self, x: Tensor, y: Tensor) -> Tensor:
        """A value: the reconstruction of an SAE, or the prediction of a transcoder."""
        return self.sae(x.float()).reconstruction


def zeros(x: Tensor, y: Tensor) -> Tensor:
    """A value: zero, which shows what the layer is worth to the model."""
    return torch.zeros_like(y)
