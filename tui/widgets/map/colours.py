"""What the colours of the map say: the kind of each feature, and the legend of the kinds; pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tui.text import printable

if TYPE_CHECKING:
    from mi_crow.mechanistic.features.feature_map import FeatureMap

COLOURS = ("label", "name", "density", "crowd", "marks")
_HUES = ("$primary", "$accent", "$success", "$error", "$secondary", "$foreground")
_STEPS = ("$faint", "$muted", "$secondary", "$primary", "$accent")
_STEP_MARKS = ".:+*#"
_DENSITIES = (1e-4, 1e-3, 1e-2, 1e-1)


@dataclass(frozen=True)
class Kind:
    """One kind of features: its colour, its sign where there are no colours, its words."""

    colour: str
    mark: str
    words: str
    count: int | None = None


@dataclass(frozen=True)
class Colouring:
    """`of` is the kind of each feature, the last one saying nothing; None where cells are coloured
    by how many features they have."""

    title: str
    kinds: tuple[Kind, ...]
    of: np.ndarray | None


def colouring(by: str, found: "FeatureMap", marks: Iterable[int]) -> Colouring:
    """The colours of one of COLOURS."""
    if by == "label":
        return _labels(found)
    if by == "density":
        return _densities(found)
    if by == "crowd":
        words = ("one feature", "", "", "", "most")
        kinds = zip(_STEPS, _STEP_MARKS, words, strict=True)
        return Colouring("features in one place", tuple(Kind(*one) for one in kinds), None)
    chosen = found.named
    if by == "marks":
        chosen = np.zeros(len(found), dtype=bool)
        chosen[np.fromiter(marks, dtype=np.int64)] = True
    yes, no = ("marked", "not marked") if by == "marks" else ("named", "without a name")
    return _counted(by, found, np.where(chosen, 0, 1), [Kind("$accent", "#", yes), _rest(no)])


def _rest(words: str) -> Kind:
    return Kind("$faint", "·", words)


def _labels(found: "FeatureMap") -> Colouring:
    """The labels that most features predict, a colour each; all others share one."""
    known = found.label[found.placed]
    counts = np.bincount(known[known >= 0], minlength=len(found.labels))
    order = [int(n) for n in np.argsort(-counts, kind="stable") if counts[n]]
    top = order[: len(_HUES)]
    kind_of = np.full(len(found.labels) + 1, len(top) + 1)  # the last, for -1: no label
    kind_of[order] = len(top)
    kind_of[top] = np.arange(len(top))
    hues = zip(_HUES, "abcdef", top, strict=False)
    kinds = [Kind(hue, mark, printable(found.labels[n])) for hue, mark, n in hues]
    kinds += [Kind("$muted", "o", "other labels"), _rest("no label")]
    return _counted("best label", found, kind_of[found.label], kinds)


def _densities(found: "FeatureMap") -> Colouring:
    steps = np.digitize(found.density, _DENSITIES)
    words = ("< 0.01%", "< 0.1%", "< 1%", "< 10%", "10% and more")
    kinds = [Kind(*one) for one in zip(_STEPS, _STEP_MARKS, words, strict=True)]
    steps = np.where(found.density > 0, steps, len(kinds))
    kinds.append(Kind("$rule", "·", "never fires"))
    return _counted("share of tokens on which it fires", found, steps, kinds)


def _counted(title: str, found: "FeatureMap", of: np.ndarray, kinds: list[Kind]) -> Colouring:
    counts = np.bincount(of[found.placed], minlength=len(kinds)).tolist()
    with_counts = (
        Kind(kind.colour, kind.mark, kind.words, n) for kind, n in zip(kinds, counts, strict=True)
    )
    return Colouring(title, tuple(with_counts), of)
