"""The strength of an intervention from token to token of a running generation."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mi_crow.errors import UserError
from mi_crow.mechanistic.steering.schedules import Schedule

if TYPE_CHECKING:
    from mi_crow.language_model import LanguageModel


def text_strengths(lm: "LanguageModel", like: Tensor) -> Tensor | None:
    """What the amounts on each token of `like` [..., d] are multiplied by in the running pass:
    [..., 1]; None: 1. Raises UserError where it is not known which token is of which text."""
    context = lm.forward_context
    if context is None or context.strengths is None:
        return None
    texts, tokens = context.input_ids.shape
    if like.shape[:-1].numel() != texts * tokens:
        raise UserError(
            "texts of several strengths cannot be written together at this layer",
            hint="write them one by one",
        )
    each = context.strengths.to(like.device)[:, None].expand(texts, tokens)
    return each.reshape(*like.shape[:-1], 1)


class Pace:
    """The factor of a schedule on each token of a pass (see `Schedule`).

    With a cache a pass brings one token, without one the whole text again, and both give the same:
    what feedback remembers starts anew with each pass that begins at the first token.
    """

    def __init__(self, lm: "LanguageModel", schedule: Schedule) -> None:
        self._lm, self._schedule = lm, schedule
        self._memory: Tensor | None = None  # [texts, 1]: m after the last token that was seen
        self._nothing = torch.zeros(1)

    @property
    def not_captured(self) -> str:
        """As of a hook: the factor is another one at each token."""
        kind = self._schedule.kind
        return "" if kind == "constant" else f"{kind} changes from token to token"

    def __call__(self, share: Tensor) -> Tensor:
        """The factors [...] for tokens whose feature has `share` [...] of its maximum."""
        context = self._lm.forward_context
        if self._schedule.kind == "constant" or context is None or context.prompt_length is None:
            return torch.ones_like(share)
        if context.input_ids.numel() != share.numel():
            return torch.ones_like(
                share
            )  # not one row a token: the scope has been refused if it matters
        rows = share.reshape(context.input_ids.shape)  # [texts, tokens]
        if self._schedule.kind == "decay":
            positions = context.position + torch.arange(rows.shape[1], device=rows.device)
            generated = positions - context.prompt_length + 1  # the first generated token is 1
            factor = torch.exp(-generated.clamp_min(0) / self._schedule.tokens)
            return factor.expand(rows.shape).reshape(share.shape).to(share.dtype)
        return self._feedback(rows, context.position, context.prompt_length).reshape(share.shape)

    def _feedback(self, rows: Tensor, position: int, prompt_length: int) -> Tensor:
        memory = self._memory  # [texts, 1], so that a token needs no other shape
        if position == 0 or memory is None:
            memory, self._nothing = rows.new_zeros(len(rows), 1), rows.new_zeros(1)
        elif len(memory) != len(rows):  # one prompt that was read is continued many times
            memory = memory[:1].expand(len(rows), 1)
        keep = self._schedule.keep
        if rows.shape[1] == 1 and position >= prompt_length:  # as at every token of a generation
            self._memory = torch.maximum(keep * memory, rows)
            return self._left_of(self._memory)
        factors = torch.ones_like(rows)
        for column in range(max(prompt_length - position, 0), rows.shape[1]):
            memory = torch.maximum(keep * memory, rows[:, column : column + 1])
            factors[:, column : column + 1] = self._left_of(memory)
        self._memory = memory
        return factors

    def _left_of(self, memory: Tensor) -> Tensor:
        """1 - m / target, at least 0; m is never below 0."""
        # By operations that the pass needs anyway: another's code has to be fetched first.
        return torch.maximum(memory * (-1 / self._schedule.target) + 1.0, self._nothing)
