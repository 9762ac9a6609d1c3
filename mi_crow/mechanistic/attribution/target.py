"""What an attribution explains: one number of a forward pass. Torch-free until it is measured.

A constant that is added to all logits changes nothing that the model says, but a feature that adds
one has an effect on every logit. The centred logit is free of it, and does not vanish where the
model is sure, as the log probability does; Ameisen et al. 2025, "Circuit Tracing", explain it too.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from mi_crow.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from mi_crow.language_model import LanguageModel

Kind = Literal["centred_logit", "logit", "difference", "log_probability", "feature"]

_WORDS = {"centred_logit": "centred logit", "log_probability": "log probability"}


@dataclass(frozen=True)
class Target:
    """One number: a logit of the token after `position` minus the mean of all logits, that logit
    itself, its difference to the logit of another token, its log probability, or the activation of
    a feature at `position`."""

    kind: Kind
    position: int  # the token whose prediction, or whose feature, is explained
    token: int | None = None  # the id of the next token; None: the likeliest
    against: int | None = None
    sae_id: str | None = None
    feature: int | None = None

    def of_logits(self, logits: "Tensor") -> "Tensor":
        """The number for logits [..., vocabulary] at its position: [...], fp32."""
        if self.kind == "log_probability":
            return logits.float().log_softmax(-1)[..., self.token]
        value = logits[..., self.token].float()
        if self.kind == "centred_logit":
            return value - logits.float().mean(-1)
        return value - logits[..., self.against].float() if self.kind == "difference" else value

    def describe(self, lm: "LanguageModel") -> str:
        """One phrase: `logit of ' Paris' minus ' Rome'`."""
        if self.kind == "feature":
            return f"feature {self.feature} of {self.sae_id}"
        text = f"{_WORDS.get(self.kind, 'logit')} of {token_text(lm, self.token)!r}"
        return text + (
            f" minus {token_text(lm, self.against)!r}" if self.against is not None else ""
        )

    def as_json(self, lm: "LanguageModel") -> dict[str, Any]:
        """The same as plain values, tokens as text."""
        return {
            "kind": self.kind,
            "position": self.position,
            "token": None if self.token is None else token_text(lm, self.token),
            "token_id": self.token,
            "against": None if self.against is None else token_text(lm, self.against),
            "against_id": self.against,
            "sae_id": self.sae_id,
            "feature": self.feature,
            "words": self.describe(lm),
        }


def token_text(lm: "LanguageModel", token: int | None) -> str:
    """The text of one token, with its space."""
    from mi_crow.language_model.detokenize import shown_tokens

    return shown_tokens(lm.tokenizer, [int(token or 0)])[0]


def token_id(lm: "LanguageModel", text: str) -> int:
    """The id of the token that is exactly `text`, or `text` after a space where only that is one.
    Raises UserError for a text that is not one token."""
    ids = lm.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"] if text else []
    if len(ids) == 1:
        lm.check_ids(ids)
        return int(ids[0])
    if not ids:
        raise UserError("the target is empty", hint='give one token, e.g. " Paris"')
    spaced = lm.tokenizer(f" {text}", add_special_tokens=False, verbose=False)["input_ids"]
    if len(spaced) == 1:
        lm.check_ids(spaced)
        return int(spaced[0])
    raise UserError(
        f"{text!r} is {len(ids)} tokens for {lm.model_id!r}",
        hint=f"give one token, e.g. {_token_like(lm, text, ids)!r}",
    )


def _token_like(lm: "LanguageModel", text: str, ids: Sequence[int]) -> str:
    """One of the tokens of a text, with the space that the text starts with where there is such
    a token."""
    pieces = sorted((token_text(lm, one) for one in ids), key=lambda one: -len(one.strip()))
    if text.startswith(" "):
        for piece in pieces:
            spaced = f" {piece.strip()}"
            own = lm.tokenizer(spaced, add_special_tokens=False, verbose=False)["input_ids"]
            if piece.strip() and len(own) == 1:
                return spaced
    return pieces[0]


def notes_on(lm: "LanguageModel", given: Iterable[tuple[str | None, int | None]]) -> list[str]:
    """A sentence for each text (with the id that `token_id` gave) that was tried after a space."""
    found = []
    for text, token in given:
        if text is not None and (taken := token_text(lm, token)) == f" {text}":
            found.append(f"{text!r} is not one token, {taken!r} is: taken with the space")
    return found


def itself(lm: "LanguageModel", token: int) -> UserError:
    """The error for a difference of a token from itself."""
    return UserError(
        f"{token_text(lm, token)!r} minus itself is 0", hint="give two different tokens"
    )


def position_of(tokens: int, position: int | None) -> int:
    """A position among `tokens`, counted from the end where it is negative; None is the last.
    Raises UserError."""
    asked = -1 if position is None else position
    found = asked + tokens if asked < 0 else asked
    if not 0 <= found < tokens:
        raise UserError(f"the text has no token {asked}", hint=f"its tokens are 0 to {tokens - 1}")
    return found
