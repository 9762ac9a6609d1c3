"""One forward pass that reads some hook points and stops after the last of them."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mi_crow.errors import MiCrowError, UserError
from mi_crow.hooks.tensors import first_tensor, input_tensor
from mi_crow.language_model.context import HookedModel
from mi_crow.language_model.hook_points.point import HookPoint
from mi_crow.language_model.hook_points.probe import StopPass
from mi_crow.language_model.hook_points.tap import tap


@torch.inference_mode()
def run_to(
    lm: HookedModel,
    points: Sequence[HookPoint],
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
) -> dict[HookPoint, Tensor]:
    """Activations [batch, length, d] at `points` for token ids [batch, length].

    Rows padded on the right need no mask where only real tokens are read: in a causal model
    nothing attends to its right, and attention without a mask is faster.

    The pass stops once every point was seen, so it costs as much as the deepest point in execution
    order, whatever order they are listed in. Raises MiCrowError for a point that the pass never
    reaches, UserError for one that does not give one row per token.
    """
    found: dict[HookPoint, Tensor] = {}
    wanted = dict.fromkeys(points)
    misshaped: list[HookPoint] = []
    removes = []

    def keep(point: HookPoint, value: Tensor) -> None:
        if value.shape[:-1] != input_ids.shape:
            misshaped.append(point)
            raise StopPass
        last = len(found) + (point not in found) == len(wanted)
        # A copy unless the pass ends here: some blocks add to a sub-layer's output in place.
        found[point] = value if last else value.clone()
        if last:
            raise StopPass

    try:
        for point in wanted:
            removes.append(tap(lm, point, lambda value, point=point: keep(point, value)))
        with lm.plain():
            lm.model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
    except StopPass:
        pass
    finally:
        for remove in removes:
            remove()
    if misshaped:
        if lm.layers.known_layout(misshaped[0]) is None:
            lm.layers.width(misshaped[0])  # finds its layout, or raises for a point without rows
            return run_to(lm, points, input_ids, attention_mask)
        raise UserError(
            f"{misshaped[0].point!r} does not give one row per token",
            hint="choose a residual block or one of its sub-modules",
        )
    missing = [point for point in points if point not in found]
    if missing:
        raise _never_reached(missing[0])
    return found


@torch.inference_mode()
def run_raw(
    lm: HookedModel,
    point: HookPoint,
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
) -> Tensor:
    """The module's own tensor at `point`, whatever its shape. Raises MiCrowError for a point that
    the pass never reaches."""
    found: list[Tensor] = []
    module = lm.model.get_submodule(point.name)

    def keep(tensor: Tensor) -> None:
        found.append(tensor)
        raise StopPass

    def before(_: Any, args: Any, kwargs: Any) -> None:
        keep(input_tensor(args, kwargs))

    if point.kind == "input":
        handle = module.register_forward_pre_hook(before, with_kwargs=True)
    else:
        handle = module.register_forward_hook(lambda _, __, output: keep(first_tensor(output)))
    try:
        with lm.plain():
            lm.model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
    except StopPass:
        pass
    finally:
        handle.remove()
    if not found:
        raise _never_reached(point)
    return found[0]


def _never_reached(point: HookPoint) -> MiCrowError:
    return MiCrowError(
        f"layer {point.name!r} does not run in a forward pass", hint="choose another layer"
    )
