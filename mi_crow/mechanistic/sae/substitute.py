"""Replacing a layer's activations during a forward pass, chosen positions only."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mi_crow.hooks import first_tensor, replace_tensor
from mi_crow.mechanistic.sae.base import SparseAutoencoder

if TYPE_CHECKING:
    from mi_crow.language_model.language_model import LanguageModel

Change = Callable[[Tensor], Tensor]


@contextmanager
def substitute(lm: "LanguageModel", layer: str | int, change: Change) -> Iterator[None]:
    """Inside the block, `change` gets the activations of `layer` [batch, length, d] and gives
    those that the model goes on with."""
    point = lm.layers.resolve(layer)
    module = lm.model.get_submodule(point.name)

    def on_output(_module: Any, _args: Any, output: Any) -> Any:
        return replace_tensor(output, change(first_tensor(output)))

    def on_input(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args:
            return (change(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": change(kwargs["hidden_states"])}

    if point.kind == "input":
        handle = module.register_forward_pre_hook(on_input, with_kwargs=True)
    else:
        handle = module.register_forward_hook(on_output)
    try:
        yield
    finally:
        handle.remove()


def changeable(x: Tensor, kept: Tensor, outlier_norm: float | None) -> Tensor:
    """Positions whose activations x [batch, length, d] may be replaced: bool [batch, length].

    `kept` marks the positions that are neither padding nor special; massive tokens are left out.
    """
    if outlier_norm is None:
        return kept
    return kept & (torch.linalg.vector_norm(x.float(), dim=-1) <= outlier_norm)


def reconstruction(sae: SparseAutoencoder, kept: Tensor) -> Change:
    """Replaces the changeable positions among `kept` by their reconstruction."""

    def change(x: Tensor) -> Tensor:
        where = changeable(x, kept, sae.metadata.outlier_norm)
        return torch.where(where[..., None], sae(x.float()).reconstruction.to(x.dtype), x)

    return change


def zeros(sae: SparseAutoencoder, kept: Tensor) -> Change:
    """Replaces the same positions by zero: what the layer is worth to the model."""

    def change(x: Tensor) -> Tensor:
        where = changeable(x, kept, sae.metadata.outlier_norm)
        return torch.where(where[..., None], torch.zeros_like(x), x)

    return change
