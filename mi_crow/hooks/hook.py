"""The two kinds of hooks: detectors read activations, controllers change them.

A hook is registered on a language model's layer (`lm.layers.register_hook(layer, hook)` or
`with hook.on(lm): ...`) and is called for every forward pass while it is enabled.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from typing import Any, Literal, Protocol, Self

import torch
from torch import Tensor

from mi_crow.errors import UserError
from mi_crow.hooks.tensors import (
    first_tensor,
    input_key,
    input_tensor,
    replace_input,
    replace_tensor,
)


class HookType(StrEnum):
    """When a hook is called: with a module's output, or before it with its inputs."""

    FORWARD = "forward"
    PRE_FORWARD = "pre_forward"


HookWhen = HookType | Literal["forward", "pre_forward"]


class _Layers(Protocol):
    def register_hook(
        self, layer_signature: str | int, hook: "Hook", hook_type: HookWhen | None = None
    ) -> str: ...

    def unregister_hook(self, hook_id: str, /) -> bool: ...


class _Model(Protocol):
    @property
    def layers(self) -> _Layers: ...


class Hook:
    """What both kinds share: their layer, whether they are enabled, and unregistering."""

    is_controller = False

    def __init__(
        self,
        layer_signature: str | int | None = None,
        hook_type: HookWhen = HookType.FORWARD,
        hook_id: str | None = None,
    ) -> None:
        if hook_type not in ("forward", "pre_forward"):
            raise UserError(f"hook type {hook_type!r} is not known", hint="forward or pre_forward")
        self.layer_signature = layer_signature
        self.hook_type: HookType = HookType(hook_type)
        self.id = hook_id
        self.enabled: bool = True
        self._entered: list[tuple[_Layers, str]] = []
        self._model: _Model | None = None

    def enable(self) -> None:
        self.enabled = True

    def disable(self) -> None:
        self.enabled = False

    def is_enabled(self) -> bool:
        return self.enabled

    def not_captured(self, rows: int) -> str:
        """Why a pass over one new token of each of `rows` continuations cannot be captured with
        this hook and run again without Python, as on CUDA; empty where it can. Such a hook does the
        same with tensors at every token, whatever their values, and remembers nothing."""
        return "what it does is not known"

    def forward(self, module: Any, args: tuple[Any, ...], output: Any) -> Any:
        """Called with a module's output; returns None or what replaces it."""
        return None

    def pre_forward(
        self, module: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Called with a module's inputs; returns None or the inputs that replace them."""
        return None

    @contextmanager
    def on(self, lm: _Model) -> Iterator[Self]:
        """Registers on `lm` for the block and always unregisters."""
        self._model = lm
        with self:
            yield self

    def bind(self, lm: _Model) -> Self:
        """Sets the model that `with hook:` registers on."""
        self._model = lm
        return self

    def __enter__(self) -> Self:
        if self._model is None or self.layer_signature is None:
            raise UserError(
                "this hook has no model or layer to register on",
                hint="give it a layer_signature and use `with hook.on(lm):`",
            )
        layers = self._model.layers
        self._entered.append((layers, layers.register_hook(self.layer_signature, self)))
        return self

    def __exit__(self, *_: object) -> None:
        layers, hook_id = self._entered.pop()
        layers.unregister_hook(hook_id)


class Detector(Hook):
    """Reads activations without changing them. Override `process_activations`."""

    def __init__(
        self,
        layer_signature: str | int | None = None,
        hook_type: HookWhen = HookType.FORWARD,
        hook_id: str | None = None,
    ) -> None:
        super().__init__(layer_signature, hook_type, hook_id)
        self.tensor_metadata: dict[str, Tensor] = {}
        self.metadata: dict[str, Any] = {}

    def process_activations(self, module: Any, inputs: Any, output: Any) -> None:
        """Called for every pass with the module's inputs and (for forward hooks) its output."""

    def get_captured(self) -> Any:
        """The tensors kept so far, by name."""
        return self.tensor_metadata

    def clear_captured(self) -> None:
        self.tensor_metadata.clear()
        self.metadata.clear()

    def forward(self, module: Any, args: tuple[Any, ...], output: Any) -> Any:
        self.process_activations(module, args, output)

    def pre_forward(
        self, module: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        inputs = args
        if kwargs and not any(isinstance(item, Tensor) for item in args):
            values = dict(kwargs)
            if any(isinstance(item, Tensor) for item in values.values()):
                # The hidden states first, whatever the order of the keywords.
                name = str(input_key((), values))
                values = {name: values[name], **values}
            inputs = (*args, *values.values())
        self.process_activations(module, inputs, None)
        return None


class Controller(Hook):
    """Changes activations. Override `modify_activations`."""

    is_controller = True

    def modify_activations(self, module: Any, inputs: Tensor | None, output: Tensor | None) -> Any:
        """The tensor that replaces `output` (forward) or `inputs` (pre_forward).

        The other one is None; returning None, or the same tensor, changes nothing. A tuple of the
        batch's rows, as from `tuple(f(x) for x in inputs)`, is stacked again.
        """
        return output if output is not None else inputs

    def forward(self, module: Any, args: tuple[Any, ...], output: Any) -> Any:
        before = first_tensor(output)
        after = self._replacement(self.modify_activations(module, None, before), before)
        return None if after is None or after is before else replace_tensor(output, after)

    def pre_forward(
        self, module: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        before = input_tensor(args, kwargs)
        after = self._replacement(self.modify_activations(module, before, None), before)
        return None if after is None or after is before else replace_input(args, kwargs, after)

    def _replacement(self, after: Any, before: Tensor) -> Tensor | None:
        """`after` as a tensor or None. Raises UserError for what cannot replace `before`."""
        if isinstance(after, (tuple, list)) and after and isinstance(after[0], Tensor):
            shapes = {item.shape for item in after if isinstance(item, Tensor)}
            if shapes == {before.shape[1:]} and len(after) == len(before):
                return torch.stack(list(after))
            if after[0].shape == before.shape:
                return after[0]
        if after is None or isinstance(after, Tensor):
            return after
        raise UserError(
            f"the controller on layer {self.layer_signature!r} returned {type(after).__name__}",
            hint=f"it must return a tensor of shape {list(before.shape)}",
        )
