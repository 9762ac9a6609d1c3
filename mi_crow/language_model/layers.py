"""A model's layers: names, hook points, widths, and hooks on them.

Works on any causal LM by structure, not by a list of architectures: the residual blocks are the
module list with as many entries as the configuration has layers, and what a block adds to the
stream is measured (`hook_points.measure`).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mi_crow.errors import MiCrowError, UserError
from mi_crow.hooks import Controller, Detector, Hook, HookType
from mi_crow.hooks.tensors import (
    first_tensor,
    input_tensor,
    replace_input,
    replace_tensor,
)
from mi_crow.language_model.context import HookedModel
from mi_crow.language_model.hook_points.catalogue import HookPoints
from mi_crow.language_model.hook_points.head import final_norm, output_embedding
from mi_crow.language_model.hook_points.point import HookPoint
from mi_crow.language_model.hook_points.tap import tap
from mi_crow.language_model.placement.devices import at_home, is_spread

if TYPE_CHECKING:
    from mi_crow.hooks.hook import HookWhen

__all__ = ["HookPoint", "Layers", "RegisteredHook"]


@dataclass(frozen=True)
class RegisteredHook:
    """One hook on a model."""

    id: str
    layer: str
    hook: Hook
    hook_type: HookType
    remove: Callable[[], None]

    def __eq__(self, other: object) -> bool:
        """Equal to itself, to its hook and to the SAE its hook belongs to, so that
        `sae in lm.layers.get_hooks()` works as it reads."""
        if isinstance(other, RegisteredHook):
            return self.id == other.id
        return other is not None and (
            other is self.hook or other is getattr(self.hook, "sae", None)
        )

    def __hash__(self) -> int:
        return hash(self.id)


class HookRegistry:
    """The registered hooks under the names of the published guides, read-only."""

    def __init__(self, hooks: Iterable[RegisteredHook]) -> None:
        self._hook_id_map = {one.id: (one.layer, one.hook_type, one.hook) for one in hooks}

    @property
    def _hook_registry(self) -> dict[str, dict[HookType, list[Hook]]]:
        found: dict[str, dict[HookType, list[Hook]]] = {}
        for layer, hook_type, hook in self._hook_id_map.values():
            found.setdefault(layer, {}).setdefault(hook_type, []).append(hook)
        return found


class Layers(HookPoints):
    """The layers of one model."""

    def __init__(self, lm: HookedModel) -> None:
        super().__init__(lm)
        self._hooks: dict[str, RegisteredHook] = {}
        self._count = 0
        self._final_norm: list[nn.Module | None] = []  # one entry once it has been searched for

    def tree(self) -> list[dict[str, Any]]:
        """Every module in definition order: name, kind, shape of its weight, parameters, point."""
        points = self._points_of_outputs()
        rows = []
        for name, module in self._lm.model.named_modules():
            weight = getattr(module, "weight", None)
            shape = list(weight.shape) if isinstance(weight, Tensor) else None
            parameters = sum(p.numel() for p in module.parameters())
            rows.append(
                {
                    "name": name,
                    "kind": type(module).__name__,
                    "shape": shape,
                    "params": parameters,
                    "point": points.get(name),
                }
            )
        return rows

    def register_hook(
        self,
        layer_signature: "str | int | HookPoint",
        hook: Hook,
        hook_type: "HookWhen | None" = None,
    ) -> str:
        """Registers `hook` on a layer; returns its id.

        At a point that is not a module's own tensor the hook gets the value there (a contribution
        with its multiplier) instead of the module's output, and what it returns is converted to the
        module's units. Raises NotFoundError for an unknown layer.
        """
        if not isinstance(hook, Hook):
            raise UserError(
                f"{type(hook).__name__} is not a hook", hint="derive from Detector or Controller"
            )
        point = self.resolve(self._layer_of(layer_signature, hook))
        kind = hook_type or ("pre_forward" if point.kind == "input" else hook.hook_type)
        self._count += 1
        hook_id = hook.id or f"hook-{self._count}"
        if hook_id in self._hooks:
            raise UserError(f"hook id {hook_id!r} is already in use", hint="give another hook_id")
        module = self._lm.model.get_submodule(point.name)
        if (kind == "pre_forward") == (point.kind == "input") and self._is_tapped(point):
            remove = tap(self._lm, point, self._at_point(module, hook, point))
        elif kind == "pre_forward":
            handle = module.register_forward_pre_hook(self._before(hook), with_kwargs=True)
            remove = handle.remove
        else:
            remove = module.register_forward_hook(self._after(hook)).remove
        self._hooks[hook_id] = RegisteredHook(hook_id, point.name, hook, HookType(kind), remove)
        return hook_id

    def unregister_hook(self, hook_or_id: Hook | str) -> bool:
        """Removes a hook, given by its id or itself; False if it is not registered."""
        if isinstance(hook_or_id, Hook):
            ids = [found.id for found in self._hooks.values() if found.hook is hook_or_id]
        else:
            ids = [hook_or_id] if hook_or_id in self._hooks else []
        for hook_id in ids:
            self._hooks.pop(hook_id).remove()
        return bool(ids)

    def get_hooks(
        self,
        layer_signature: "str | int | HookPoint | None" = None,
        hook_type: "HookWhen | None" = None,
    ) -> list[RegisteredHook]:
        """The registered hooks, oldest first; only those of a layer or type when given.

        Raises NotFoundError for an unknown layer.
        """
        layer = None if layer_signature is None else self.resolve(layer_signature).name
        return [
            one
            for one in self._hooks.values()
            if layer in (None, one.layer) and hook_type in (None, one.hook_type)
        ]

    def get_detectors(self) -> list[Detector]:
        return [one.hook for one in self._hooks.values() if isinstance(one.hook, Detector)]

    def get_controllers(self) -> list[Controller]:
        return [one.hook for one in self._hooks.values() if isinstance(one.hook, Controller)]

    def enable_hook(self, hook_id: str) -> bool:
        """False if no hook has this id, as in `disable_hook`."""
        return self._switch(hook_id, enabled=True)

    def disable_hook(self, hook_id: str) -> bool:
        return self._switch(hook_id, enabled=False)

    @property
    def context(self) -> HookRegistry:
        """The hooks registered right now, by id and by layer."""
        return HookRegistry(self._hooks.values())

    def unembedding(self) -> tuple[nn.Module | None, nn.Module]:
        """The final norm (None where the model has none) and the output embedding.

        Raises UserError for a model without an output embedding.
        """
        head = output_embedding(self._lm)
        if not self._final_norm:
            self._final_norm.append(final_norm(self._lm, head))
        norm = self._final_norm[0]
        if not is_spread(self._lm.model):
            return norm, head
        here = self._lm.device
        return None if norm is None else at_home(norm, here), at_home(head, here)

    def _switch(self, hook_id: str, *, enabled: bool) -> bool:
        if hook_id not in self._hooks:
            return False
        self._hooks[hook_id].hook.enabled = enabled
        return True

    def _layer_of(self, layer: "str | int | HookPoint", hook: Hook) -> "str | int | HookPoint":
        """The guides register hooks of the whole model on "input" and "output"."""
        whole = hook.layer_signature == "" and layer in ("input", "output")
        return "" if whole and layer not in self.list_layers() else layer

    def _is_tapped(self, point: HookPoint) -> bool:
        """Whether the value is not just the module's own tensor with one row per token. Probes a
        sub-layer's layout if needed: its short name promises [batch, length, d]."""
        end = point.plain and point.name in self._blocks
        if not end and point.point != point.name and point not in self._widths:
            try:
                self.width(point)
            except MiCrowError:
                return False
        return not point.plain or (self.known_layout(point) or "rows") != "rows"

    def _at_point(
        self, module: nn.Module, hook: Hook, point: HookPoint
    ) -> Callable[[Tensor], Tensor | None]:
        def visit(value: Tensor) -> Tensor | None:
            if not self._runs(hook):
                return None
            if point.kind == "input":
                changed = hook.pre_forward(module, (value,), {})
                after = None if changed is None else changed[0][0]
            else:
                after = hook.forward(module, (), value)
            return after if after is None else self._in_controlled_texts(value, after)

        return visit

    def _before(self, hook: Hook) -> Callable[..., Any]:
        def call(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if not self._runs(hook):
                return None
            given = input_tensor(args, kwargs)
            seen = given.to(self._lm.device)
            if seen is not given:  # of a model over several devices
                args, kwargs = replace_input(args, kwargs, seen)
            changed = hook.pre_forward(module, args, kwargs)
            if changed is None:
                return None
            after = input_tensor(*changed)
            kept = self._in_controlled_texts(seen, after).to(given.device)
            return changed if kept is after else replace_input(*changed, kept)

        return call

    def _after(self, hook: Hook) -> Callable[..., Any]:
        def call(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
            if not self._runs(hook):
                return None
            given = first_tensor(output)
            seen = given.to(self._lm.device)
            changed = hook.forward(
                module, args, output if seen is given else replace_tensor(output, seen)
            )
            if changed is None:
                return None
            after = first_tensor(changed)
            kept = self._in_controlled_texts(seen, after).to(given.device)
            return changed if kept is after else replace_tensor(changed, kept)

        return call

    def _in_controlled_texts(self, before: Tensor, after: Tensor) -> Tensor:
        """`after` in the texts of the batch that controllers change, `before` in the others.

        Raises UserError where the layer's rows are neither texts nor their tokens.
        """
        context = self._lm.forward_context
        if context is None or context.controlled is None:
            return after
        texts, rows = context.controlled.to(before.device), before.shape[0]
        if rows == context.input_ids.numel() != len(texts):  # a row for each token of each text
            texts = texts.repeat_interleave(context.input_ids.shape[1])
        elif rows != len(texts):
            raise UserError(
                f"the layer gives {list(before.shape)}, not one row per text or token",
                hint="choose a residual block, or what attention or the MLP adds",
            )
        return torch.where(texts.view(-1, *[1] * (before.dim() - 1)), after, before)

    def _runs(self, hook: Hook) -> bool:
        if self.resting:
            return False
        return hook.enabled and (self._lm.controllers_enabled or not hook.is_controller)
