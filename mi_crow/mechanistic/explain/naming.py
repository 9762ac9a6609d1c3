"""A feature's rule and its evidence in words: a short name and what kind of feature it is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mi_crow.mechanistic.explain.evidence import SCOPES
from mi_crow.mechanistic.explain.rules import PHRASE
from mi_crow.mechanistic.explain.words import KINDS_OF_WORDS, LINE_BREAK, SPACE, Corpus
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
_READ = ("on", "before", "after", "next", "around", "label", "start")  # parts in this order


@dataclass(frozen=True)
class Facts:
    """What is known of one feature."""

    parts: Sequence[tuple[int, Sequence[int]]]  # of its rule, kind and ids; the best first
    around: Sequence[int]  # words that stand out around its firings, the most telling first
    label: str | None  # that it predicts best, where that stands out in the naming documents too
    label_auroc: float  # held-out; NaN where not measured
    fires: int
    density: float


def kind_of(facts: Facts, corpus: Corpus) -> str:
    """token, phrase, context, topic, prediction, position, punctuation, dense, dead or unclear."""
    if not facts.fires:
        return "dead"
    if facts.density > DENSE:
        return "dense"
    if not facts.parts:
        return UNCLEAR
    kind, ids = facts.parts[0]
    if kind == PHRASE:
        return "phrase"
    if SCOPES[kind] == "on" and all(_is_mark(one, corpus) for one in ids):
        return "punctuation"
    return _KINDS[SCOPES[kind]]


def name_of(facts: Facts, corpus: Corpus, token_text: Sequence[str]) -> str:
    """A short name; empty where nothing stands out. The more of its parts hold, the likelier the
    feature fires."""
    if not facts.parts or not facts.fires:
        return ""
    topic = facts.label if facts.label_auroc >= LEAST_LABEL else None
    of_scope = {"on" if kind == PHRASE else SCOPES[kind]: (kind, ids) for kind, ids in facts.parts}
    if topic in _said(of_scope, corpus) or "start" in of_scope:
        topic = None
    named = []
    for scope in sorted(of_scope, key=_READ.index):
        kind, ids = of_scope[scope]
        if kind == PHRASE:
            named.append(_phrase(ids[0], ids[1], corpus))
        elif scope == "around" and topic:
            named.append(f"{topic}: {_list(ids, corpus)}")
            topic = None
        elif scope == "label" and len(of_scope) == 1:
            words = _list(facts.around[:3], corpus)
            named.append(": ".join(filter(None, (_part(scope, ids, corpus, token_text), words))))
        else:
            named.append(_part(scope, ids, corpus, token_text))
    return _cut(" · ".join(named) + (f" ({topic})" if topic else ""))


def _said(of_scope: Mapping[str, tuple[int, Sequence[int]]], corpus: Corpus) -> list[str]:
    """The labels that a rule names."""
    return [corpus.label_names[one] for one in of_scope["label"][1]] if "label" in of_scope else []


def _part(scope: str, ids: Sequence[int], corpus: Corpus, token_text: Sequence[str]) -> str:
    """What one part of a rule says."""
    if scope == "start":
        return "the first token" if ids[0] == 1 else f"the first {ids[0]} tokens"
    if scope == "label":
        return ", ".join(corpus.label_names[one] for one in ids)
    if scope == "next":
        texts = (visible(token_text[one].strip() or token_text[one]) for one in ids)
        return "then " + ", ".join(f"“{text}”" for text in dict.fromkeys(texts))
    if scope == "around":
        return f"about {_list(ids, corpus)}"
    start = {"on": "", "before": "after ", "after": "before "}[scope]
    return start + ", ".join(_quoted(one, corpus) for one in ids)


def _phrase(before: int, word: int, corpus: Corpus) -> str:
    if {before, word} & set(KINDS_OF_WORDS):
        return f"{_quoted(word, corpus)} after {_quoted(before, corpus)}"
    return f"“{_word(before, corpus)} {_word(word, corpus)}”"


def _list(ids: Sequence[int], corpus: Corpus) -> str:
    return ", ".join(_word(one, corpus) for one in ids)


def _quoted(one: int, corpus: Corpus) -> str:
    return KINDS_OF_WORDS.get(one) or f"“{_word(one, corpus)}”"


def _word(one: int, corpus: Corpus) -> str:
    return visible(corpus.texts[one])


def _is_mark(one: int, corpus: Corpus) -> bool:
    return one in (LINE_BREAK, SPACE) or not any(char.isalnum() for char in corpus.texts[one])


def _cut(name: str) -> str:
    return name if len(name) <= _MOST_NAME else f"{name[: _MOST_NAME - 1]}…"
