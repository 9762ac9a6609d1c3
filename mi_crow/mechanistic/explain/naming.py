"""A feature's rule and its evidence in words: a short name and what kind of feature it is."""

from collections.abc import Sequence
from dataclasses import dataclass

from mi_crow.mechanistic.explain.evidence import SCOPES
from mi_crow.mechanistic.explain.rules import NONE, PHRASE
from mi_crow.mechanistic.explain.words import NUMBER, Corpus
from mi_crow.mechanistic.features.catalogue import DENSE, UNCLEAR
from mi_crow.visible import visible

LEAST_LABEL = 0.9  # held-out AUROC at which a label is part of the name
_MOST_NAME = 80  # characters
_KINDS = {
    "on": "token",
    "before": "context",
    "after": "context",
    "around": "topic",
    "next": "prediction",
    "label": "topic",
    "start": "position",
}


@dataclass(frozen=True)
class Facts:
    """What is known of one feature."""

    rule: int  # of Rules.kind
    ids: Sequence[int]  # without the missing ones
    around: Sequence[int]  # words that stand out around its firings, the most telling first
    label: str | None  # that it predicts best
    label_auroc: float  # held-out; NaN where not measured
    fires: int
    density: float


def kind_of(facts: Facts, corpus: Corpus) -> str:
    """token, phrase, context, topic, prediction, position, punctuation, dense, dead or unclear."""
    if not facts.fires:
        return "dead"
    if facts.density > DENSE:
        return "dense"
    if facts.rule == NONE:
        return UNCLEAR
    if facts.rule == PHRASE:
        return "phrase"
    scope = SCOPES[facts.rule]
    if scope == "on" and all(_is_mark(corpus.texts[one]) for one in facts.ids):
        return "punctuation"
    return _KINDS[scope]


def name_of(facts: Facts, corpus: Corpus, token_text: Sequence[str]) -> str:
    """A short name; empty where nothing stands out."""
    if facts.rule == NONE or not facts.fires:
        return ""
    topic = facts.label if facts.label_auroc >= LEAST_LABEL else None
    if facts.rule == PHRASE:
        return _cut(f"“{_word(facts.ids[0], corpus)} {_word(facts.ids[1], corpus)}”{_of(topic)}")
    scope = SCOPES[facts.rule]
    if scope == "start":
        n = facts.ids[0]
        return "the first token" if n == 1 else f"the first {n} tokens"
    if scope == "label":
        label = corpus.label_names[facts.ids[0]]
        return _cut(": ".join(filter(None, (label, _list(facts.around[:3], corpus)))))
    if scope == "next":
        texts = (visible(token_text[one].strip() or token_text[one]) for one in facts.ids)
        return _cut(f"then {_quoted(list(dict.fromkeys(texts)))}")
    if scope == "around":
        words = _list(facts.ids, corpus)
        return _cut(f"{topic}: {words}" if topic else f"about {words}")
    words = _quoted([_word(one, corpus) for one in facts.ids])
    start = {"on": "", "before": "after ", "after": "before "}[scope]
    return _cut(f"{start}{words}{_of(topic)}")


def _of(topic: str | None) -> str:
    return f" ({topic})" if topic else ""


def _list(ids: Sequence[int], corpus: Corpus) -> str:
    return ", ".join(_word(one, corpus) for one in ids)


def _quoted(words: Sequence[str]) -> str:
    return ", ".join(word if word == "a number" else f"“{word}”" for word in words)


def _word(one: int, corpus: Corpus) -> str:
    return "a number" if one == NUMBER else visible(corpus.texts[one])


def _is_mark(text: str) -> bool:
    return not any(char.isalnum() for char in text)


def _cut(name: str) -> str:
    return name if len(name) <= _MOST_NAME else f"{name[: _MOST_NAME - 1]}…"
