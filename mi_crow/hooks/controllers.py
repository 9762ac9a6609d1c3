"""Ready-made controllers: functions of a tensor, scaling, single units, conditions, pipelines."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from mi_crow.bounds import REAL
from mi_crow.errors import UserError
from mi_crow.hooks.hook import Controller, HookType, HookWhen


class FunctionController(Controller):
    """Replaces a layer's activations [batch, length, d] by `function` of them.

    Raises UserError when the function does not return a tensor of the same shape.
    """

    def __init__(
        self,
        layer_signature: str | int,
        function: Callable[[Tensor], Tensor],
        hook_type: HookWhen = HookType.FORWARD,
        hook_id: str | None = None,
    ) -> None:
        if not callable(function):
            raise UserError(f"{function!r} is not a function", hint="give one of a single tensor")
        super().__init__(layer_signature, hook_type, hook_id)
        self.function = function

    def modify_activations(self, module: Any, inputs: Tensor | None, output: Tensor | None) -> Any:
        before = output if output is not None else inputs
        if before is None:
            return None
        after = self.function(before)
        if not isinstance(after, Tensor) or after.shape != before.shape:
            returned = list(after.shape) if isinstance(after, Tensor) else type(after).__name__
            raise UserError(
                f"the function on layer {self.layer_signature!r} returned {returned}",
                hint=f"it must return a tensor of shape {list(before.shape)}",
            )
        return after.to(before.dtype)


class ScaleController(FunctionController):
    """Multiplies a layer's activations by `factor`; 0 ablates them."""

    def __init__(
        self,
        layer_signature: str | int,
        factor: float,
        hook_type: HookWhen = HookType.FORWARD,
        hook_id: str | None = None,
    ) -> None:
        """Raises UserError for a factor that is not a number."""
        REAL.check(factor, "the factor")
        super().__init__(layer_signature, lambda x: x * factor, hook_type, hook_id)


class NeuronsController(FunctionController):
    """Sets single units of a layer's activations to `value`.

    The function raises UserError for a unit that the layer does not have.
    """

    def __init__(
        self,
        layer_signature: str | int,
        neurons: Sequence[int],
        value: float = 0.0,
        hook_type: HookWhen = HookType.FORWARD,
        hook_id: str | None = None,
    ) -> None:
        """Raises UserError without units, or for a value that is not a number."""
        REAL.check(value, "the value of a neuron")
        if not neurons or min(neurons) < 0:
            raise UserError("no neurons given", hint="give their numbers, e.g. 3, 17")

        def change(x: Tensor) -> Tensor:
            if max(neurons) >= x.shape[-1]:
                raise UserError(
                    f"layer {layer_signature!r} has no neuron {max(neurons)}",
                    hint=f"it has 0 to {x.shape[-1] - 1}",
                )
            after = x.clone()
            after[..., [*neurons]] = value
            return after

        super().__init__(layer_signature, change, hook_type, hook_id)


class ConditionalController(FunctionController):
    """Lets a function change only the tokens where `condition` holds: [..., d] -> bool [...]."""

    def __init__(
        self,
        layer_signature: str | int,
        function: Callable[[Tensor], Tensor],
        condition: Callable[[Tensor], Tensor],
        hook_type: HookWhen = HookType.FORWARD,
        hook_id: str | None = None,
    ) -> None:
        def change(x: Tensor) -> Tensor:
            return torch.where(condition(x)[..., None], function(x), x)

        super().__init__(layer_signature, change, hook_type, hook_id)


class PipelineController(FunctionController):
    """Several functions on one layer, each on what the one before it gave."""

    def __init__(
        self,
        layer_signature: str | int,
        functions: Sequence[Callable[[Tensor], Tensor]],
        hook_type: HookWhen = HookType.FORWARD,
        hook_id: str | None = None,
    ) -> None:
        """Raises UserError without a function."""
        if not functions:
            raise UserError("a pipeline needs a function", hint="give at least one")

        def change(x: Tensor) -> Tensor:
            for function in functions:
                x = function(x)
            return x

        super().__init__(layer_signature, change, hook_type, hook_id)
