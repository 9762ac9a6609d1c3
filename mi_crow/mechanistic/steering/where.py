"""Which tokens of a running pass an intervention reaches."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mi_crow.errors import UserError
from mi_crow.mechanistic.steering.positions import GENERATED_ROLE, Positions, read_positions

if TYPE_CHECKING:
    from mi_crow.language_model import LanguageModel
    from mi_crow.language_model.context import ForwardContext


def ordinary_tokens(lm: "LanguageModel", x: Tensor) -> Tensor:
    """Which rows of x [..., d] belong to ordinary tokens: bool [...].

    Outside inference and generation, where the tokens are not known, that is all of them.
    """
    context = lm.forward_context
    if context is not None and context.special.numel() == x.shape[:-1].numel():
        return ~context.special.to(x.device).view(x.shape[:-1])
    return torch.ones(x.shape[:-1], dtype=torch.bool, device=x.device)


def scope_tokens(lm: "LanguageModel", x: Tensor, scope: str) -> Tensor:
    """Which rows of x [..., d] positions (see `positions`) cover: bool [...]. Outside generation
    every token belongs to the prompt.

    Raises UserError where the layer does not have one row per token and the scope is not `all`, and
    for roles where the prompt is not a chat.
    """
    rows = x.shape[:-1]
    wanted = read_positions(scope)
    if wanted.kind == "all":
        return torch.ones(rows, dtype=torch.bool, device=x.device)
    context = lm.forward_context
    if context is None:
        return torch.full(rows, wanted.kind == "prompt", dtype=torch.bool, device=x.device)
    if wanted.kind in ("prompt", "generated") and context.prompt_length is None:
        return torch.full(rows, wanted.kind == "prompt", dtype=torch.bool, device=x.device)
    if context.input_ids.numel() != rows.numel():
        raise UserError(
            f"the layer gives {list(x.shape)}, not one row per token",
            hint="steer all tokens there, or choose a residual block",
        )
    return _covered(lm, context, wanted).to(x.device).expand(context.input_ids.shape).reshape(rows)


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
