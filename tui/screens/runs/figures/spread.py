"""How the features of an SAE are spread over their densities and activations; pure."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from textual.content import Content

from tui.text import number
from tui.widgets.histogram import histogram_chart
from tui.widgets.lists.feature_columns import density

_BINS = 48


@dataclass(frozen=True)
class Spread:
    """How many features lie between neighbouring edges."""

    name: str
    counts: tuple[int, ...]
    edges: tuple[float, ...]  # one more than there are counts
    text: Callable[[float], str]  # of an edge
    middle: float  # the median


def density_spread(densities: np.ndarray) -> Spread | None:
    """Over powers of ten; features that never fire have none."""
    fires = densities[densities > 0]
    if not len(fires):
        return None
    powers = np.log10(fires)
    counts, edges = np.histogram(powers, _BINS, (np.floor(powers.min()), np.ceil(powers.max())))
    middle = _median(fires)
    return Spread("density", *_plain(counts, 10.0**edges), density, middle)


def activation_spread(greatest: np.ndarray) -> Spread | None:
    """Of the features that fire, over their greatest activations."""
    fires = greatest[np.isfinite(greatest) & (greatest > 0)]
    if not len(fires):
        return None
    counts, edges = np.histogram(fires, _BINS, (0.0, float(fires.max())))
    text = partial(number, digits=1)
    middle = _median(fires)
    return Spread("greatest activation", *_plain(counts, edges), text, middle)


def _median(values: np.ndarray) -> float:
    # Not np.median: it would import NumPy's masked arrays.
    ascending = np.sort(values)
    return float(ascending[(len(values) - 1) // 2] + ascending[len(values) // 2]) / 2


def spread_chart(spread: Spread, width: int, height: int) -> list[Content]:
    """Features by what they are spread over: a title, bars of logarithmic height, the values."""
    title = Content.assemble(
        (f"Features by {spread.name}", "bold $primary"),
        (f"  median {spread.text(spread.middle)}", "$muted"),
    )
    bars, values = histogram_chart(spread.counts, spread.edges, width, height, spread.text)
    lines = [Content.assemble((f"{side} ", "$muted"), (bar, "$chart")) for side, bar in bars]
    return [title.truncate(width, ellipsis=True), *lines, Content.styled(values, "$muted")]


def _plain(counts: np.ndarray, edges: np.ndarray) -> tuple[tuple[int, ...], tuple[float, ...]]:
    return tuple(int(n) for n in counts), tuple(float(edge) for edge in edges)
