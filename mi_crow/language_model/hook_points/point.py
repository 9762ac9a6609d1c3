"""A hook point: which tensor of the model, and in which units."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from mi_crow.errors import UserError
from mi_crow.language_model.placement.devices import weight_of

Gain = Literal["", "w", "1+w"]


@dataclass(frozen=True)
class HookPoint:
    """Where activations are read and changed: `scale` times a module's output or input, plus the
    values at the points `plus`, which the model computes before it.

    A sub-layer's contribution is its output times the model's residual multiplier; two modules that
    are added to the stream together are one contribution. With `gain` the value is a norm's output
    without its gain and bias: (output - bias) / w, or / (1 + w) as Gemma's norms have it.
    """

    name: str  # module name
    point: str  # short name; equals `name` if there is none
    kind: Literal["output", "input"]
    scale: float = 1.0
    gain: Gain = ""
    plus: "tuple[HookPoint, ...]" = ()

    @property
    def plain(self) -> bool:
        """Whether the value is simply the module's own tensor."""
        return self.scale == 1.0 and not self.gain and not self.plus

    @property
    def stored(self) -> str:
        """The name that runs and SAEs record: it means this tensor and no other in every version.

        A block's input is the exception: only its point (resid_pre.N) says that it is an input.
        """
        if not self.plain:
            return self.point
        if self.kind == "output" or self.point.startswith("resid_pre."):
            return self.name
        return f"{self.name}.input"

    def same_tensor(self, other: "HookPoint") -> bool:
        """Whether both mean the same values, whatever their names."""
        return _meaning(self) == _meaning(other)

    def value(self, tensor: Tensor, module: nn.Module) -> Tensor:
        """The value, without `plus`, of the module's own tensor [..., d]."""
        if self.gain:
            gain, bias = _affine(module, self.gain)
            return ((tensor.float() - bias) / gain).to(tensor.dtype)
        return tensor if self.scale == 1.0 else tensor * self.scale

    def own(self, value: Tensor, module: nn.Module) -> Tensor:
        """The module's tensor [..., d] that gives this value: the inverse of `value`."""
        if self.gain:
            gain, bias = _affine(module, self.gain)
            return (value.float() * gain + bias).to(value.dtype)
        return value if self.scale == 1.0 else value / self.scale


def _meaning(point: HookPoint) -> tuple[object, ...]:
    plus = tuple(sorted(map(_meaning, point.plus), key=repr))
    return point.name, point.kind, point.scale, point.gain, plus


def _affine(module: nn.Module, gain: Gain) -> tuple[Tensor, Tensor]:
    """A norm's gain and bias [d] in fp32; gains of zero are for `check_gain`."""
    weight = weight_of(module, "weight")
    assert weight is not None
    weight = weight.detach().float() + (1.0 if gain == "1+w" else 0.0)
    bias = weight_of(module, "bias")
    if bias is None:
        bias = torch.zeros((), device=weight.device)
    return weight, bias.detach().float()


def check_gain(module: nn.Module, gain: Gain, name: str) -> None:
    """Raises UserError if a norm has a gain of zero: what it multiplies cannot be recovered."""
    if gain and bool((_affine(module, gain)[0] == 0).any()):
        raise UserError(
            f"the norm {name!r} has a gain of zero: the value before its gain is lost",
            hint=f"{name} is its output, {name}.input its input",
        )
