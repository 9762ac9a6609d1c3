"""How well an explanation predicts where a feature fires: detection and fuzzing; and without one,
how much its texts have in common: intruder.

Detection asks which of some unseen texts an explanation fits; half of them hold a firing. Fuzzing
asks in which of some texts with a firing the right words are marked; in half of them others are
(Paulo, Mallen, Juang and Belrose 2024, 2410.13928, sections 3.2 and 3.3). Both are balanced
accuracies, .5 by chance, with a normal interval of 95 percent. Intruder asks which one of five
marked texts has no firing: an accuracy, .2 by chance (Paulo and Belrose 2025, 2507.08473).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mi_crow.mechanistic.explain.explanations.questions import (
    chosen_in,
    detection_question,
    fuzzing_question,
    intruder_question,
)
from mi_crow.mechanistic.explain.explanations.texts import Passage

LEAST = 4  # texts of each kind below which nothing is scored
_AT_ONCE = 10  # texts of one question
_BESIDE = 4  # texts with a firing beside an intruder
TRIALS = 5  # intruders

Ask = Callable[[str], str]


@dataclass(frozen=True)
class Score:
    """A balanced accuracy or another share, and half of its interval."""

    accuracy: float
    interval: float


def detection(
    ask: Ask, explanation: str, firing: Sequence[Passage], silent: Sequence[Passage], seed: int
) -> Score | None:
    """Whether `explanation` tells texts with a firing from others; None with too few texts."""
    texts = [one.text for one in (*firing, *silent)]
    truth = [True] * len(firing) + [False] * len(silent)
    return _scored(ask, detection_question, explanation, texts, truth, seed)


def fuzzing(ask: Ask, explanation: str, firing: Sequence[Passage], seed: int) -> Score | None:
    """Whether `explanation` tells the words on which a feature fires from others of their text."""
    rng = np.random.default_rng([seed, 1])
    texts: list[str] = []
    truth: list[bool] = []
    for number, one in enumerate(firing):
        right = number % 2 == 0
        marks = one.firing if right else _elsewhere(one, rng)
        if marks is not None:
            texts.append(one.marked(marks))
            truth.append(right)
    return _scored(ask, fuzzing_question, explanation, texts, truth, seed)


def intruder(
    ask: Ask, firing: Sequence[Passage], silent: Sequence[Passage], seed: int
) -> Score | None:
    """How often the text without a firing is found among five; None with too few texts. As many
    words as elsewhere are marked in it, any of them."""
    rng = np.random.default_rng([seed, 3])
    right: list[bool] = []
    if len(firing) < _BESIDE:
        return None
    for stranger in silent[:TRIALS]:
        places = rng.choice(len(firing), _BESIDE, replace=False).tolist()
        texts = [firing[place].marked(firing[place].firing) for place in places]
        marks = _elsewhere(stranger, rng, sum(firing[places[0]].firing))
        if marks is None:
            continue
        at = int(rng.integers(len(texts) + 1))
        texts.insert(at, stranger.marked(marks))
        right.append(chosen_in(ask(intruder_question(texts)), len(texts)) == {at})
    if len(right) < LEAST:
        return None
    smooth = (sum(right) + 1) / (len(right) + 2)
    interval = 1.96 * math.sqrt(smooth * (1 - smooth) / len(right))
    return Score(sum(right) / len(right), interval)


def _elsewhere(
    one: Passage, rng: np.random.Generator, wanted: int | None = None
) -> tuple[bool, ...] | None:
    """`wanted` words marked, by default as many as fire, all of them silent; None where there are
    too few."""
    silent = [at for at, act in enumerate(one.acts) if act == 0 and one.tokens[at].strip()]
    wanted = sum(one.firing) if wanted is None else wanted
    if len(silent) < wanted:
        return None
    chosen = set(rng.choice(silent, wanted, replace=False).tolist())
    return tuple(at in chosen for at in range(len(one.tokens)))


def _scored(
    ask: Ask,
    question: Callable[[str, Sequence[str]], str],
    explanation: str,
    texts: Sequence[str],
    truth: Sequence[bool],
    seed: int,
) -> Score | None:
    if min(sum(truth), len(truth) - sum(truth)) < LEAST:
        return None
    order: list[int] = np.random.default_rng([seed, 2]).permutation(len(texts)).tolist()
    chosen: set[int] = set()
    for first in range(0, len(order), _AT_ONCE):
        some = order[first : first + _AT_ONCE]
        answer = ask(question(explanation, [texts[one] for one in some]))
        chosen |= {some[one] for one in chosen_in(answer, len(some))}
    return balanced(chosen, truth)


def balanced(chosen: set[int], truth: Sequence[bool]) -> Score:
    """The mean of the shares of both kinds that were told right."""
    shares, variance = [], 0.0
    for kind in (True, False):
        right = [(at in chosen) == kind for at, one in enumerate(truth) if one == kind]
        # One text more of each outcome keeps the interval of a perfect score from being zero.
        share, smooth = sum(right) / len(right), (sum(right) + 1) / (len(right) + 2)
        shares.append(share)
        variance += smooth * (1 - smooth) / len(right) / 4
    return Score(sum(shares) / 2, 1.96 * math.sqrt(variance))
