"""The form of an attribution: what is explained, by which SAEs, and how; pure."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mi_crow.bounds import COUNT, FEATURE, SEED, SHARE, SIZE, Bounds
from mi_crow.errors import UserError
from mi_crow.mechanistic.attribution.question import Question
from tui.widgets.forms.fields import Default, FormField, Values, WrongValueError

CENTRED, DIFFERENCE, FEATURE_OF = "centred logit", "difference", "feature"
LOG_PROBABILITY, RAW = "log probability", "logit"
KINDS = (CENTRED, DIFFERENCE, LOG_PROBABILITY, RAW, FEATURE_OF)
_POSITION = Bounds(-(10**9), 10**9, whole=True)
_USUAL = Question()
_HOW = ("steps", "top", "prune", "seed")


@dataclass(frozen=True)
class Asked:
    """A question, and the SAEs whose features may be the causes."""

    question: Question
    saes: tuple[str, ...]

    def request(self) -> dict[str, Any]:
        """What the session is asked."""
        return {**vars(self.question), "saes": list(self.saes)}

    def settings(self) -> dict[str, Any]:
        """What is saved with the answer: what is not as usual."""
        asked, usual = vars(self.question), vars(_USUAL)
        return {name: value for name, value in asked.items() if value != usual[name]}


@dataclass(frozen=True)
class Before:
    """What is in the form at first."""

    saes: tuple[str, ...]
    kind: str = CENTRED
    token: int | None = None  # after which token of the text
    target: str = ""
    against: str = ""
    feature: str = ""
    more: Mapping[str, Any] = field(default_factory=dict)  # steps, top, prune, seed

    @classmethod
    def of_answer(
        cls, found: Mapping[str, Any], saes: Sequence[str], settings: Mapping[str, Any]
    ) -> "Before":
        """The question that was answered so."""
        target = found["target"]
        is_feature = target["kind"] == "feature"
        return cls(
            tuple(saes),
            str(target["kind"]).replace("_", " "),
            int(found.get("start") or 0) + target["position"],
            shown_token(target["token"] or ""),
            shown_token(target.get("against") or ""),
            f"{target['sae_id']}/{target['feature']}" if is_feature else "",
            {name: settings[name] for name in _HOW if name in settings},
        )


def fields(before: Before, known: Sequence[str]) -> tuple[FormField, ...]:
    """The fields; `known` are the SAEs of the model."""

    def more(name: str, label: str, hint: str, bounds: Bounds) -> FormField:
        text = "" if before.more.get(name) is None else str(before.more[name])
        usual = getattr(_USUAL, name)
        default = Default("" if usual is None else str(usual), "" if usual is not None else "none")
        return FormField(
            name, label, text, hint, bounds=bounds, empty=usual, default=default, section="How"
        )

    none = Default("", "none")
    return (
        FormField(
            "kind",
            "explain",
            before.kind,
            "a centred logit is what the token's is above the mean of all",
            KINDS,
            closed=True,
        ),
        FormField(
            "token",
            "after token",
            "" if before.token is None else str(before.token),
            "counted from 0, from the end with -1",
            bounds=_POSITION,
            empty=None,
            default=Default("", "the last, or where the feature is strongest"),
        ),
        FormField(
            "target",
            "next token",
            before.target,
            "of a logit; quotes keep its spaces",
            default=Default("", "the likeliest"),
        ),
        FormField(
            "against",
            "minus",
            before.against,
            "the other next token of a difference",
            default=none,
        ),
        FormField(
            "feature",
            "feature",
            before.feature,
            "SAE/NUMBER of a later SAE, to be explained",
            default=none,
        ),
        FormField(
            "saes",
            "causes in",
            ", ".join(before.saes),
            "SAEs with commas between them, one a layer",
            tuple(known),
            several=True,
            required=True,
            missing="no SAEs given in which causes are looked for",
        ),
        more("steps", "steps", "of integrated gradients; none: one gradient", SIZE),
        more("top", "causes", "that are listed and really ablated", COUNT),
        more("prune", "least share", "of all effects that a node of the tree needs", SHARE),
        more("seed", "seed", "of the random features beside them", SEED),
    )


def asked_for(
    values: Values, known: Sequence[str], own: str, tokens: int, several: Sequence[str] = ()
) -> Asked:
    """The question that the form asks about a text of `tokens`; `own` is the open SAE, `several`
    are those over several layers, whose earlier features can be causes of later ones.

    Raises WrongValueError, which names the field.
    """
    kind, position = str(values["kind"]), values["token"]
    if position is not None and not -tokens <= position < tokens:
        raise WrongValueError("token", f"the text has no token {position}, only 0 to {tokens - 1}")
    saes = tuple(dict.fromkeys(str(one) for one in values["saes"]))
    for one in saes:
        if one not in known:
            raise WrongValueError("saes", f"{one!r} is not an SAE of this model")
    how = {name: values[name] for name in _HOW}
    if kind == FEATURE_OF:
        sae_id, number = _feature(str(values["feature"]), own, known)
        if set(saes) <= {sae_id} and sae_id not in several:
            raise WrongValueError(
                "saes", f"a feature of {sae_id!r} needs an SAE of an earlier layer as its cause"
            )
        together = tuple(dict.fromkeys((*saes, sae_id)))
        question = Question(feature=f"{sae_id}/{number}", position=position, **how)
        return Asked(question, together)
    target, against = (typed_answer(str(values[name]), name) for name in ("target", "against"))
    if kind == DIFFERENCE:
        for name, text in (("target", target), ("against", against)):
            if text is None:
                raise WrongValueError(name, "a difference needs two next tokens")
        if target == against:
            raise WrongValueError("against", "both next tokens are the same")
    question = Question(
        target,
        against if kind == DIFFERENCE else None,
        log_probability=kind == LOG_PROBABILITY,
        raw_logit=kind == RAW,
        position=position,
        **how,
    )
    return Asked(question, saes)


def _feature(text: str, own: str, known: Sequence[str]) -> tuple[str, int]:
    """The SAE and the number in `SAE/NUMBER`, or in the number of the open SAE's feature."""
    name, _, number = text.strip().rpartition("/")
    sae_id = name or own
    if sae_id not in known:
        raise WrongValueError("feature", f"{sae_id!r} is not an SAE of this model")
    try:
        return sae_id, int(FEATURE.read(number.removeprefix("#"), "feature"))
    except UserError as error:
        raise WrongValueError("feature", str(error) if number else "no feature given") from error


def typed_answer(text: str, name: str) -> str | None:
    """The next token in the field `name`; None for an empty one. Raises WrongValueError."""
    try:
        return typed_token(text) or None
    except ValueError as error:
        raise WrongValueError(name, f"{text} is not closed by a quote") from error


def typed_token(text: str) -> str:
    """A next token as a person writes it: a word comes after a space, quotes keep what they hold.
    Raises ValueError for quotes that are not closed."""
    plain = text.strip()
    if plain.startswith('"') and len(plain) > 1:
        return str(json.loads(plain))
    return f" {plain}" if plain and plain[0].isalnum() else plain


def shown_token(text: str) -> str:
    """The same the other way round."""
    bare = text.removeprefix(" ")
    plain = bool(bare) and bare == bare.strip() and bare.isprintable() and bare[0] != '"'
    if not text or (plain and typed_token(bare) == text):
        return bare
    return json.dumps(text, ensure_ascii=False)
