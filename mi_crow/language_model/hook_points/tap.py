"""Reading and changing the value at a hook point: the only place that registers hooks for it."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from mi_crow.errors import UserError
from mi_crow.hooks.tensors import first_tensor, input_tensor, replace_input, replace_tensor
from mi_crow.language_model.context import HookedModel
from mi_crow.language_model.hook_points.point import HookPoint, check_gain
from mi_crow.language_model.hook_points.rows import Layout, from_rows, to_rows

Visit = Callable[[Tensor], Tensor | None]
Remove = Callable[[], None]


def tap(lm: HookedModel, point: HookPoint, visit: Visit) -> Remove:
    """In every pass `visit` gets the value at `point` [batch, length, d] and returns None, or the
    value that the model continues with. Call the returned function to remove the tap.

    Values that `visit` does not change stay the same bit for bit, whatever the point's units.
    Raises UserError for a point that cannot be read back.
    """
    return _Tap(lm, point, visit).remove


class _Tap:
    def __init__(self, lm: HookedModel, point: HookPoint, visit: Visit) -> None:
        self._point, self._visit, self._home = point, visit, lm.device
        self._module = lm.model.get_submodule(point.name)
        check_gain(self._module, point.gain, point.name)
        self._layout: Layout = lm.layers.known_layout(point) or "rows"
        self._shape: tuple[int, int] | None = None
        self._before: list[Tensor] = []
        self._taps: list[Remove] = []
        if self._layout != "rows" or point.plus:
            root = lm.model.register_forward_pre_hook(self._begin, with_kwargs=True)
            self._taps.append(root.remove)
        self._taps += [tap(lm, term, self._keep) for term in point.plus]
        if point.kind == "input":
            handle = self._module.register_forward_pre_hook(self._on_input, with_kwargs=True)
        else:
            handle = self._module.register_forward_hook(self._on_output)
        self._taps.append(handle.remove)

    def remove(self) -> None:
        for one in self._taps:
            one()

    def _begin(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._before.clear()
        self._shape = _tokens(args, kwargs)

    def _keep(self, value: Tensor) -> None:
        # A copy, since some blocks add to a sub-layer's output in place.
        self._before.append(value.clone())

    def _on_output(self, _: nn.Module, __: Any, output: Any) -> Any:
        changed = self._changed(first_tensor(output))
        return None if changed is None else replace_tensor(output, changed)

    def _on_input(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        changed = self._changed(input_tensor(args, kwargs))
        return None if changed is None else replace_input(args, kwargs, changed)

    def _changed(self, tensor: Tensor) -> Tensor | None:
        """The module's tensor for the value that `visit` returned; None if nothing changes."""
        point, rows = self._point, tensor
        if self._layout != "rows":
            rows = to_rows(tensor, self._layout, *self._tokens())
        value = own = point.value(rows, self._module)
        before, self._before = self._before, []
        for other in before:
            value = value + other.to(value.device).view(value.shape)
        seen = value.to(self._home)  # only of a model over several devices is that another tensor
        after = self._visit(seen)
        if after is None or after is seen:
            return None
        after = after.to(value.device)
        if not point.plain:
            # As a difference if something is added, and only where a value changed.
            asked = own + (after - value) if point.plus else after
            changed = point.own(asked, self._module)
            same = rows
            if changed.requires_grad:  # the same bits, and the gradient of what was asked for
                same = rows.detach() + (changed - changed.detach())
            after = torch.where(after == value, same, changed)
        return after if self._layout == "rows" else from_rows(after, self._layout, tensor)

    def _tokens(self) -> tuple[int, int]:
        if self._shape is None:
            raise UserError(f"{self._point.point!r} was reached outside a pass over token ids")
        return self._shape


def _tokens(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[int, int] | None:
    """Batch and length of a pass of the whole model."""
    for value in (kwargs.get("input_ids"), kwargs.get("inputs_embeds"), *args):
        if isinstance(value, Tensor) and value.ndim >= 2:
            return int(value.shape[0]), int(value.shape[1])
    return None
