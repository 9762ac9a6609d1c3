"""Which tokens of a running pass an intervention reaches."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mi_crow.errors import UserError
from mi_crow.mechanistic.steering.positions import GENERATED_ROLE, Positions, read_positions
from mi_crow.mechanistic.steering.schedules import Condition
from mi_crow.mechanistic.steering.sources import Source, kept

if TYPE_CHECKING:
    from mi_crow.language_model import LanguageModel
    from mi_crow.language_model.context import ForwardContext


class ConditionTest:
    """A condition on a feature or vector, on the activations that its source kept."""

    def __init__(self, source: Source, condition: Condition) -> None:
        """Raises UserError for a feature out of range, or without the maximum that is needed."""
        self.source: Source = source
        self._condition = condition
        self._number = condition.feature or 0
        source.check(self._number, f"feature {self._number}")
        self._activations = source.activations([self._number])
        unit = source.required_maximum(self._number) if condition.unit == "max" else 1.0
        self._limit = condition.value * unit

    def not_captured(self, rows: int) -> str:
        """As of a hook."""
        return self.source.why_varying(self._activations, rows)

    def __call__(self, like: Tensor) -> Tensor:
        """On which tokens of `like` [..., d] it holds: bool [...]. Raises UserError in a pass that
        has not reached its layer."""
        x = kept(self.source, f"condition {self._condition.describe()}", like)
        own = self._activations(x)[..., 0].to(like.device)
        return own > self._limit if self._condition.side == "above" else own < self._limit


def special_tokens(lm: "LanguageModel", x: Tensor) -> Tensor | None:
    """Which rows of x [..., d] belong to special tokens and padding: bool [..., 1]; None where that
    is not known, outside inference and generation."""
    context = lm.forward_context
    if context is None or context.special.numel() * x.shape[-1] != x.numel():
        return None
    return context.special.to(x.device).view(*x.shape[:-1], 1)


def ordinary_tokens(lm: "LanguageModel", x: Tensor) -> Tensor:
    """Which rows of x [..., d] belong to ordinary tokens: bool [...].

    Outside inference and generation, where the tokens are not known, that is all of them.
    """
    special = special_tokens(lm, x)
    if special is not None:
        return ~special[..., 0]
    return torch.ones(x.shape[:-1], dtype=torch.bool, device=x.device)


def scope_tokens(lm: "LanguageModel", x: Tensor, scope: str) -> Tensor | bool:
    """Which rows of x [..., d] positions (see `positions`) cover: bool [...], or one bool where it
    is all or none of them, as for a token that the model has just written. Outside generation every
    token belongs to the prompt.

    Raises UserError where the layer does not have one row per token and the scope is not `all`, and
    for roles where the prompt is not a chat.
    """
    if scope == "all":
        return True
    rows = x.shape[:-1]
    wanted = read_positions(scope)
    if wanted.kind == "all":
        return True
    context = lm.forward_context
    if context is None:
        return wanted.kind == "prompt"
    if wanted.kind in ("prompt", "generated") and context.prompt_length is None:
        return wanted.kind == "prompt"
    if context.input_ids.numel() != rows.numel():
        raise UserError(
            f"the layer gives {list(x.shape)}, not one row per token",
            hint="steer all tokens there, or choose a residual block",
        )
    if context.prompt_length is not None and context.position >= context.prompt_length:
        if wanted.kind in ("prompt", "generated", "last"):
            return wanted.kind == "generated"
        if wanted.kind == "role" and lm.prompt_roles is not None:
            return wanted.role == GENERATED_ROLE
    return _covered(lm, context, wanted).to(x.device).expand(context.input_ids.shape).reshape(rows)


def varying_scope(scope: str) -> str:
    """Why positions reach other tokens from one generated token to the next; empty where all or
    none of the generated tokens are reached."""
    if scope == "all":
        return ""
    wanted = read_positions(scope)
    if wanted.kind in ("window", "tokens"):
        return f"{scope!r} reaches some of the generated tokens"
    return ""


def _covered(lm: "LanguageModel", context: "ForwardContext", wanted: Positions) -> Tensor:
    """The same for the tokens of a pass: [batch, length] or [1, length]."""
    if wanted.kind == "tokens":
        ids = torch.tensor(wanted.ids, device=context.input_ids.device)
        return torch.isin(context.input_ids, ids)
    mask = context.attention_mask
    # Counted without padding, wherever that is: [batch, past + length], 0 for the first token.
    places = (mask.cumsum(dim=1) - 1)[:, context.position :]
    if wanted.kind == "window":
        inside = places >= wanted.start
        return inside if wanted.end is None else inside & (places < wanted.end)
    prompt = mask if context.prompt_length is None else mask[:, : context.prompt_length]
    count = prompt.sum(dim=1, keepdim=True)  # tokens of each prompt
    if wanted.kind == "last":
        return (places >= count - wanted.count) & (places < count)
    if wanted.kind == "role":
        return _spoken(lm, places, wanted.role)
    return (places < count) == (wanted.kind == "prompt")


def _spoken(lm: "LanguageModel", places: Tensor, role: str) -> Tensor:
    """Which tokens are a role's, by their places."""
    roles = lm.prompt_roles
    if roles is None:
        raise UserError(
            f"the prompt is not a chat, so that nothing in it is said by the role {role!r}",
            hint="write a chat, or choose other positions",
        )
    own = torch.tensor([one == role for one in roles], dtype=torch.bool, device=places.device)
    known = places.clamp(0, len(roles) - 1)
    return torch.where(places < len(roles), own[known], role == GENERATED_ROLE)
