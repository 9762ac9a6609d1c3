"""One forward pass that reads some hook points and stops after the last of them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mi_crow.errors import MiCrowError
from mi_crow.hooks import first_tensor

if TYPE_CHECKING:
    from mi_crow.language_model.language_model import LanguageModel
    from mi_crow.language_model.layers import HookPoint


class _StopPass(BaseException):
    """Ends a forward pass from inside; a BaseException, so that no model swallows it."""


@torch.inference_mode()
def run_to(
    lm: "LanguageModel",
    points: Sequence["HookPoint"],
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
) -> "dict[HookPoint, Tensor]":
    """Activations [batch, length, d] at `points` for token ids [batch, length].

    Rows padded on the right need no mask where only real tokens are read: in a causal model
    nothing attends to what stands to its right, and attention without a mask is the faster one.

    The pass stops as soon as every point was seen, so its cost is that of the deepest point in
    execution order, whatever order they are listed in. Raises MiCrowError for a point that the
    pass never reaches.
    """
    found: dict[HookPoint, Tensor] = {}
    handles = []

    def keep(point: "HookPoint", tensor: Tensor) -> None:
        found[point] = tensor
        if len(found) == len(set(points)):
            raise _StopPass

    for point in dict.fromkeys(points):
        module = lm.model.get_submodule(point.name)
        if point.kind == "input":

            def before(_: Any, args: Any, kwargs: Any, point: "HookPoint" = point) -> None:
                keep(point, first_tensor(args or tuple(kwargs.values())))

            handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
        else:

            def after(_: Any, __: Any, output: Any, point: "HookPoint" = point) -> None:
                keep(point, first_tensor(output))

            handles.append(module.register_forward_hook(after))
    try:
        with lm.plain():
            lm.model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
    except _StopPass:
        pass
    finally:
        for handle in handles:
            handle.remove()
    missing = [point.name for point in points if point not in found]
    if missing:
        raise MiCrowError(
            f"layer {missing[0]!r} does not run in a forward pass", hint="choose another layer"
        )
    return found
