"""Replacing a layer's activations during a forward pass, chosen positions only."""

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
    """Inside the block, `change` gets the activations of `layer` [batch, length, d] and gives
    those that the model goes on with."""
    remove = tap(lm, lm.layers.resolve(layer), change)
    try:
        yield
    finally:
        remove()


def changeable(x: Tensor, kept: Tensor, outlier_norm: float | None) -> Tensor:
    """Positions whose activations x [batch, length, d] may be replaced: bool [batch, length].

    `kept` marks the positions that are neither padding nor special; massive tokens are left out.
    """
    if outlier_norm is None:
        return kept
    return kept & (torch.linalg.vector_norm(x.float(), dim=-1) <= outlier_norm)


Value = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Site:
    """Where an SAE reads the model and where what it gives belongs: one layer, or a transcoder's
    two."""

    lm: "LanguageModel"
    sae: SparseAutoencoder
    read: "str | int | HookPoint"
    write: "str | int | HookPoint"

    @contextmanager
    def replaced(self, kept: Tensor, value: Value) -> Iterator[None]:
        """Inside the block, the changeable positions among `kept` [batch, length] of the layer
        written to become value(x, y): [batch, length, n_outputs] from the activations x read and
        those y that stood there. What is an outlier is told by x.

        Raises UserError in a pass that reaches the layer written to first.
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
        where = changeable(x, kept, self.sae.metadata.outlier_norm)
        return torch.where(where[..., None], value(x, y).to(y.dtype), y)

    def reconstruction(self, x: Tensor, y: Tensor) -> Tensor:
        """The value of an SAE's reconstruction, or of a transcoder's prediction."""
        return self.sae(x.float()).reconstruction


def zeros(x: Tensor, y: Tensor) -> Tensor:
    """The value zero: what the layer is worth to the model."""
    return torch.zeros_like(y)
