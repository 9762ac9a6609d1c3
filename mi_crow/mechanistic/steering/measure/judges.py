"""Judges: whether a text is about something, decided by its words alone, never by the SAE."""

import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mi_crow.errors import UserError
from mi_crow.mechanistic.steering.measure.aims.described import texts_described
from mi_crow.mechanistic.steering.measure.config import Judging
from mi_crow.mechanistic.steering.measure.results import PATTERN
from mi_crow.mechanistic.steering.measure.texts import Document, IndexedTexts

FALSE_ALARMS = 0.05  # of texts on other topics that a topic's judge lets pass
_WORDS = re.compile(r"\w+")
_LEAST_WORDS = 12


class WordProbe:
    """Multinomial naive Bayes over words, with one smoothing count for all (Manning, Raghavan and
    Schütze 2008, "Introduction to Information Retrieval", section 13.2)."""

    def __init__(self, texts: Sequence[str], labels: Sequence[str], smoothing: float = 0.5) -> None:
        """One label a text."""
        bags = [bag(text) for text in texts]
        self.labels: list[str] = sorted(set(labels))
        self._columns = {word: at for at, word in enumerate(sorted(set().union(*bags)))}
        row = {label: at for at, label in enumerate(self.labels)}
        counts = np.full((len(self.labels), len(self._columns) + 1), smoothing)
        for words, label in zip(bags, labels, strict=True):
            for word, count in words.items():
                counts[row[label], self._columns[word]] += count
        self._log_word = np.log(counts / counts.sum(axis=1, keepdims=True))
        shares = Counter(labels)
        self._log_prior = np.log([shares[label] / len(labels) for label in self.labels])

    def scores(self, texts: Sequence[str]) -> np.ndarray:
        """The log posterior of each label, up to a constant of each text: [texts, labels]."""
        found = np.tile(self._log_prior, (len(texts), 1))
        for row, text in enumerate(texts):
            known = [(self._columns[w], n) for w, n in bag(text).items() if w in self._columns]
            if known:
                columns, times = np.array(known).T
                found[row] += self._log_word[:, columns] @ times
        return found

    def predict(self, texts: Sequence[str]) -> list[str]:
        """The likeliest label of each text."""
        return [self.labels[at] for at in self.scores(texts).argmax(axis=1)]


def bag(text: str) -> Counter[str]:
    """How often each word is in the text."""
    return Counter(_WORDS.findall(text.lower()))


@dataclass(frozen=True)
class Judge:
    """Says of each text whether it is a hit. `hits_heldout` and `false_alarms` are its shares on
    held-out texts of the corpus, cut to the length of a continuation."""

    what: str
    hits: Callable[[Sequence[str]], list[bool]]
    hits_heldout: float | None = None
    false_alarms: float | None = None
    margins: Callable[[Sequence[str]], np.ndarray] | None = None  # above 0: a hit
    typical: float | None = None  # the median margin of the corpus's own texts on the topic
    own_effect: float | None = None  # the effect of these

    def share(self, texts: Sequence[str]) -> float:
        """The share of hits."""
        found = self.hits(texts)
        return sum(found) / max(len(found), 1)

    def effect(self, texts: Sequence[str]) -> float:
        """The mean of `effects`."""
        return float(self.effects(texts).mean()) if len(texts) else 0.0

    def effects(self, texts: Sequence[str]) -> np.ndarray:
        """How far each text is on the topic, from 0 to 1: half for a hit, half for its margin's
        share of `typical`. Where margins are not known a hit is all."""
        hits = np.array(self.hits(texts), dtype=np.float64)
        if self.margins is None or not self.typical or not len(texts):
            return hits
        return (hits + np.clip(self.margins(texts) / self.typical, 0.0, 1.0)) / 2

    def as_json(self) -> dict[str, Any]:
        return {
            "judge": self.what,
            "hits_heldout": self.hits_heldout,
            "false_alarms": self.false_alarms,
        }


def judge_of(
    judging: Judging, feature: int | None, texts: IndexedTexts, words: int, seed: int = 0
) -> Judge:
    """The judge that is asked for, `feature` being the one that is steered; texts of `words` words
    are what it will read.

    Raises UserError for a pattern that is not valid, and for a feature or a description in too few
    texts; NotFoundError for an unknown label.
    """
    words = max(words, _LEAST_WORDS)
    if judging.pattern is not None:
        return _by_pattern(judging.pattern, texts, words, seed)
    if judging.label is not None:
        return _by_label(judging.label, texts, words, seed)
    if judging.description is not None:
        about, others = texts_described(texts, judging.description)
        what = f"what {judging.description!r} is about"
        return _by_words(what, about, others, words, seed)
    chosen = judging.feature if judging.feature is not None else feature
    if chosen is None:
        raise UserError("nothing to judge by", hint="give --label or --regex")
    about, others = texts.about(chosen, seed)
    return _by_words(f"the topic of feature {chosen}", about, others, words, seed)


def _by_pattern(pattern: str, texts: IndexedTexts, words: int, seed: int) -> Judge:
    compiled = compiled_pattern(pattern)

    def hits(found: Sequence[str]) -> list[bool]:
        return [compiled.search(text) is not None for text in found]

    heldout = [one for one in texts.documents if one.heldout]
    cut = cut_texts(heldout, words, seed)
    alarms = sum(hits(cut)) / len(cut) if cut else None
    return Judge(f"{PATTERN}{pattern!r}", hits, None, alarms)


def compiled_pattern(pattern: str) -> re.Pattern[str]:
    """A regular expression that ignores case. Raises UserError for one that is not valid."""
    try:
        return re.compile(pattern, re.IGNORECASE)
    except re.error as error:
        raise UserError(f"{pattern!r} is not a valid regular expression ({error})") from error


def _by_label(label: str, texts: IndexedTexts, words: int, seed: int) -> Judge:
    texts.check_label(label)
    labelled = [one for one in texts.documents if one.label is not None]
    train = [one for one in labelled if not one.heldout]
    if len({one.label for one in train}) < 2 or label not in {one.label for one in train}:
        raise UserError(
            f"the indexed texts cannot teach what tells {label!r} from others",
            hint="index texts of several labels, or judge by --regex",
        )
    probe = WordProbe([one.text for one in train], [str(one.label) for one in train])

    place = probe.labels.index(label)

    def margins(found: Sequence[str]) -> np.ndarray:
        scores = probe.scores(found)
        return scores[:, place] - np.delete(scores, place, axis=1).max(axis=1)

    heldout = [one for one in labelled if one.heldout]
    return tested_judge(
        f"label {label!r}", margins, (train, heldout), lambda one: one.label == label, words, seed
    )


def _by_words(
    what: str, about: Sequence[Document], others: Sequence[Document], words: int, seed: int
) -> Judge:
    """Which words are in the texts of a topic, and not in others."""
    inside = {one.number for one in about}
    train = [one for one in (*about, *others) if not one.heldout]
    names = ["topic" if one.number in inside else "other" for one in train]
    probe = WordProbe([one.text for one in train], names)
    place = probe.labels.index("topic")

    def log_odds(found: Sequence[str]) -> np.ndarray:
        scores = probe.scores(found)
        return scores[:, place] - scores[:, 1 - place]

    # The limit is found on texts as long as those that will be judged.
    seen = cut_texts([one for one in train if one.number not in inside], words, seed + 1)
    limit = float(np.quantile(log_odds(seen), 1 - FALSE_ALARMS)) if seen else 0.0
    heldout = [one for one in (*about, *others) if one.heldout]
    return tested_judge(
        what,
        lambda found: log_odds(found) - limit,
        (train, heldout),
        lambda one: one.number in inside,
        words,
        seed,
    )


def tested_judge(
    what: str,
    margins: Callable[[Sequence[str]], np.ndarray],
    sides: tuple[Sequence[Document], Sequence[Document]],
    inside: Callable[[Document], bool],
    words: int,
    seed: int,
) -> Judge:
    """The judge by margins, measured on held-out texts; `sides` are the training texts and these.
    Its typical margin is that of training texts, of which there are more."""

    def hits(found: Sequence[str]) -> list[bool]:
        return (margins(found) > 0).tolist() if len(found) else []

    train, heldout = sides
    right = cut_texts([one for one in heldout if inside(one)], words, seed)
    wrong = cut_texts([one for one in heldout if not inside(one)], words, seed)
    own = cut_texts([one for one in train if inside(one)], words, seed)
    shares = [sum(hits(some)) / len(some) if some else None for some in (right, wrong)]
    typical = float(np.median(margins(own))) if own else 0.0
    if typical <= 0:
        return Judge(what, hits, shares[0], shares[1], margins)
    judge = Judge(what, hits, shares[0], shares[1], margins, typical)
    return replace(judge, own_effect=judge.effect(own))


def cut_texts(documents: Sequence[Document], words: int, seed: int) -> list[str]:
    """A passage of this many words of each document."""
    generator = random.Random(seed)
    found = []
    for one in documents:
        own = one.text.split()
        start = generator.randrange(max(len(own) - words, 0) + 1)
        found.append(" ".join(own[start : start + words]))
    return found
