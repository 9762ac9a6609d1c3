"""Figures of texts from their tokens alone: length, repetition, variety."""

from collections.abc import Sequence

_REPEATED = 4  # tokens that make a phrase


def repetition(rows: Sequence[Sequence[int]]) -> float:
    """The mean share of a text's phrases of four tokens that it has said before."""
    shares = []
    for ids in rows:
        phrases = list(_phrases(ids, _REPEATED))
        if phrases:
            shares.append(1 - len(set(phrases)) / len(phrases))
    return sum(shares) / len(shares) if shares else 0.0


def distinct(rows: Sequence[Sequence[int]], n: int = 2) -> float:
    """The mean share of distinct n-grams in a text (Li et al. 2016, "A Diversity-Promoting
    Objective Function", section 5.2, a text at a time)."""
    shares = []
    for ids in rows:
        phrases = list(_phrases(ids, n))
        if phrases:
            shares.append(len(set(phrases)) / len(phrases))
    return sum(shares) / len(shares) if shares else 0.0


def _phrases(ids: Sequence[int], n: int) -> Sequence[tuple[int, ...]]:
    return [tuple(ids[at : at + n]) for at in range(len(ids) - n + 1)]
