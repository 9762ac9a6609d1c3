"""The final norm: the module whose output feeds the output embedding."""

from typing import Any

import torch
from torch import Tensor, nn

from mi_crow.errors import UserError
from mi_crow.hooks.tensors import first_tensor, input_tensor
from mi_crow.language_model.context import HookedModel
from mi_crow.language_model.hook_points.measure import equal
from mi_crow.language_model.hook_points.probe import StopPass, probe_ids, run_probe
from mi_crow.language_model.hook_points.record import holds_matrices


def output_embedding(lm: HookedModel) -> nn.Module:
    """The module whose output is the logits. Raises UserError for a model without one."""
    head = lm.model.get_output_embeddings()
    if head is None:
        raise UserError(f"model {lm.model_id!r} has no output embedding")
    return head


def final_norm(lm: HookedModel, head: nn.Module) -> nn.Module | None:
    """The norm between the last block and `head`, found by a probe; None if there is none.

    It has no matrix, changes its input, and its output is the head's input up to a factor.
    """
    blocks = tuple(f"{name}." for name in lm.layers.blocks())
    seen: list[tuple[nn.Module, Tensor, Tensor]] = []
    read: list[Tensor] = []

    def after(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        try:
            x, y = input_tensor(args, kwargs), first_tensor(output)
        except UserError:
            return
        if x.shape == y.shape and x.is_floating_point():
            seen.append((module, _host(x), _host(y)))

    def at_head(_: Any, args: Any, kwargs: Any) -> None:
        read.append(_host(input_tensor(args, kwargs)))
        raise StopPass

    handles = [head.register_forward_pre_hook(at_head, with_kwargs=True)]
    for name, module in lm.model.named_modules():
        inside = name.startswith(blocks) or f"{name}." in blocks
        if module is head or not name or inside or not _is_small(module):
            continue
        handles.append(module.register_forward_hook(after, with_kwargs=True))
    try:
        run_probe(lm, probe_ids(lm))
    finally:
        for handle in handles:
            handle.remove()
    for module, x, y in reversed(seen):
        if read and not equal(x, y) and _in_proportion(y, read[0]):
            return module
    return None


def _is_small(module: nn.Module) -> bool:
    """Whether it may be a norm: no matrices, no lists of blocks."""
    return not isinstance(module, nn.ModuleList) and not holds_matrices(module)


def _in_proportion(y: Tensor, x: Tensor) -> bool:
    """Whether x is y times a number."""
    if y.shape != x.shape:
        return False
    factor = float((x * y).sum() / y.square().sum().clamp_min(1e-12))
    return bool(torch.allclose(x, factor * y, rtol=1e-2, atol=4e-3 * float(x.abs().max())))


def _host(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.float32, copy=True)
