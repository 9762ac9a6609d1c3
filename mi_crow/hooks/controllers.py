"""Ready-made controllers: any function of a tensor."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

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
