"""Several SAEs side by side: the rows of the table, overlaid curves, FVU against L0; pure.

Each SAE has a letter, which is in its row, on its curve and at its point: colour only helps.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from textual.content import Content

from mi_crow.mechanistic.sae.evaluation.figures import Curves, SaeFigures
from mi_crow.mechanistic.sae.evaluation.standing import Standing
from tui.preferences.key_words import key
from tui.screens.runs.charts import WHICH_K, Sign, pareto_chart, place_name, which_k_chart
from tui.screens.runs.figures.covered import covered
from tui.screens.runs.rows import short_model
from tui.text import count, duration, number, printable
from tui.widgets.lists.row_list import Cell, Column, Row
from tui.widgets.plot import Axis, Curve, Mark, Point, chart, room_of_each, side_by_side

_STYLES = ("$accent", "$success", "$secondary", "$error", "$primary", "$warning")
_LETTERS_ON_A_CURVE = 3
_BESIDE = 110  # cells from which two charts are next to each other
_LOWEST, _HIGHEST = 6, 24  # lines of a plot

_COLUMNS = (
    Column("SAE"),
    Column("architecture", 12, from_width=84),
    Column("latents", 7, "right"),
    Column("k", 5, "right", from_width=50),
    Column("L0", 5, "right"),
    Column("FVU", 6, "right"),
    Column("recov.", 6, "right"),
    Column("dead", 6, "right", from_width=50),
    Column("measured", 11, from_width=84),
    Column("tokens", 6, "right", from_width=104),
    Column("time", 7, "right", from_width=104),
    Column("layer", from_width=120),
)

# What else a sweep chooses its k by, in columns where one of the SAEs has it: before _MEASURED_AT.
_MEASURED_AT = 8
_WHICH_K = {
    "ce_added": Column("CE add.", 7, "right", from_width=70),
    "c_dec": Column("c_dec", 6, "right", from_width=56),
    "probe_accuracy": Column("probes", 6, "right", from_width=56),
}

# The overlaid curves, in the order of interest.
_CURVES = {
    "heldout_fvu": "held-out FVU",
    "fvu": "FVU of batches",
    "l0": "L0",
    "dead_share": "share of dead latents",
}


@dataclass(frozen=True)
class SaeComparison:
    """What the table and the charts show."""

    figures: tuple[SaeFigures, ...]
    curves: Mapping[str, Curves] = field(default_factory=dict)  # by SAE
    standings: tuple[tuple[str, Standing], ...] = ()  # name of the place, every SAE on it
    without: Mapping[str, str] = field(default_factory=dict)  # why an SAE has no curves, by SAE

    @property
    def by_k(self) -> tuple[str, ...]:
        """Of the readings that a sweep chooses its k by, those that are known of one of them."""
        return tuple(
            name
            for name in _WHICH_K
            if any(getattr(one.measured, name) is not None for one in self.figures)
        )

    @property
    def columns(self) -> tuple[Column, ...]:
        """Those of the table."""
        more = (_WHICH_K[name] for name in self.by_k)
        return (*_COLUMNS[:_MEASURED_AT], *more, *_COLUMNS[_MEASURED_AT:])

    @property
    def places(self) -> tuple[str, ...]:
        """The layers that the SAEs are on."""
        return tuple(dict.fromkeys(place_name(*one.place) for one in self.figures))


def letter(place: int) -> str:
    return chr(ord("A") + place)


def _style(place: int) -> str:
    return _STYLES[place % len(_STYLES)]


def title_text(found: SaeComparison) -> str:
    """What is compared, and what of it cannot be."""
    places = found.places
    on = f"on {places[0]}" if len(places) == 1 else f"on {len(places)} layers"
    rest = "" if len(places) == 1 else ": L0 and FVU compare on one layer only"
    saes = "1 SAE" if len(found.figures) == 1 else f"{len(found.figures)} SAEs"
    return printable(f"{saes} {on}{rest}")


def table_rows(found: SaeComparison) -> list[Row]:
    """A row an SAE; `k` is what its file declares (or its training aimed for), the rest was
    measured."""
    return [_row(place, one, found.by_k) for place, one in enumerate(found.figures)]


_MEASURED = {"evaluation": "evaluated", "training": "in training", "check": "as checked"}


def _row(place: int, one: SaeFigures, by_k: Sequence[str]) -> Row:
    measured = one.measured
    best = "" if measured.source == "evaluation" else "$muted"
    declared = one.k if one.k is not None else one.target_l0
    source = _MEASURED.get(measured.source, "no")
    dead = "–" if measured.dead_share is None else f"{100 * measured.dead_share:.1f}%"
    return Row(
        one.sae_id,
        (
            Cell(
                f"{letter(place)} ",
                f"bold {_style(place)}",
                ((printable(one.sae_id), "$foreground"),),
                one.sae_id.casefold(),
            ),
            Cell(printable(one.architecture), "$muted"),
            Cell(count(one.n_latents), value=one.n_latents),
            Cell("–" if declared is None else f"{declared:g}", "$muted", value=declared),
            Cell(number(measured.l0, 1), best, value=measured.l0),
            Cell(number(measured.fvu), best, value=measured.fvu),
            Cell(number(measured.loss_recovered), best, value=measured.loss_recovered),
            Cell(dead, best, value=measured.dead_share),
            *(
                Cell(number(value := getattr(measured, name), 3), best, value=value)
                for name in by_k
            ),
            Cell(source, "$muted"),
            Cell("–" if one.tokens is None else count(one.tokens), "$muted", value=one.tokens),
            Cell(
                "–" if one.seconds is None else duration(one.seconds), "$muted", value=one.seconds
            ),
            Cell(f"{short_model(one.model_id)} {printable(one.layer)}".strip(), "$muted"),
        ),
    )


def comparison_charts(found: SaeComparison, width: int, lines: int) -> Content:
    """The curves and the points, two beside each other where there is room; `lines` high where all
    fit, else they scroll."""
    columns = 2 if width >= _BESIDE else 1
    room = room_of_each(columns, width)
    n_charts = (
        max(len(_curves_of(found)), bool(found.without)) + len(found.places) + _which_k_count(found)
    )
    n_rows = -(-n_charts // columns)
    height = max(_LOWEST, min(_HIGHEST, (lines + 1) // n_rows - 3))  # title, axis, a line between
    overlays, fronts = _overlays(found, room, height), _fronts(found, room, height)
    drawn = [*overlays[:1], *fronts, *overlays[1:]]
    if not fronts and not _curves_of(found):
        evaluate = key("runs.new", "new.evaluate")
        return Content.styled(f"nothing was measured yet: {evaluate} evaluates an SAE", "$muted")
    return side_by_side(drawn, columns, room)


def _curves_of(found: SaeComparison) -> list[str]:
    """The metrics that at least one of the SAEs has a curve of."""
    known = [
        metric
        for metric in _CURVES
        if any(len(one.get(metric, ())) > 1 for one in found.curves.values())
    ]
    return [metric for metric in known if metric != "fvu" or "heldout_fvu" not in known]


def _overlays(found: SaeComparison, width: int, height: int) -> list[list[Content]]:
    charts = []
    for metric in _curves_of(found):
        series = {
            place: found.curves[one.sae_id][metric]
            for place, one in enumerate(found.figures)
            if len(found.curves.get(one.sae_id, {}).get(metric, ())) > 1
        }
        missing = _missing(
            found, [place for place in range(len(found.figures)) if place not in series]
        )
        charts.append(
            _overlay(
                _CURVES[metric], "fvu" in metric, series, width, height - bool(missing), missing
            )
        )
    if not charts and (missing := _missing(found, range(len(found.figures)))):
        charts.append([Content.styled("curves of the training", "bold $primary"), missing])
    return charts


def _missing(found: SaeComparison, places: Sequence[int]) -> Content:
    """Which SAEs have no curve, by their letters, and why."""
    whose: dict[str, list[str]] = {}
    for place in places:
        why = found.without.get(found.figures[place].sae_id, "not logged")
        whose.setdefault(why, []).append(letter(place))
    said = "; ".join(f"{' '.join(letters)} {why}" for why, letters in whose.items())
    return Content.styled(f"no curve: {said}" if said else "", "$muted")


def _overlay(
    name: str,
    logarithmic: bool,
    series: Mapping[int, Sequence[Point]],
    width: int,
    height: int,
    missing: Content,
) -> list[Content]:
    """One curve an SAE over the tokens it was trained on. On a logarithmic axis the differences at
    the end stay visible beside the fall at the beginning."""
    if logarithmic:
        series = {place: _logarithms(points) for place, points in series.items()}
    end = max((points[-1][0] for points in series.values() if points), default=0.0)
    curves = [Curve(tuple(points), _style(place)) for place, points in series.items()]
    marks = [mark for order, place in enumerate(series) for mark in _letters(place, order, series)]
    x = Axis("tokens", count, 0.0, end)
    y = Axis(name, _power) if logarithmic else Axis(name, _short, 0.0)
    about = ["  logarithmic"] if logarithmic else []
    for place, others in covered(series, height, y.low).items():
        lie = "lies" if len(others) == 1 else "lie"
        about.append(f"  {' '.join(map(letter, others))} {lie} on {letter(place)}")
    title = Content.assemble((name, "bold $primary"), ("".join(about), "$muted"))
    said = [missing] if missing else []
    return [title, *said, *chart(x, y, width, height, curves, marks)]


def _logarithms(points: Sequence[Point]) -> list[Point]:
    return [(x, math.log10(y)) for x, y in points if math.isfinite(y) and y > 0]


def _power(value: float) -> str:
    return f"{10**value:.2g}"


def _short(value: float) -> str:
    return f"{value:.3g}"


def _letters(place: int, order: int, series: Mapping[int, Sequence[Point]]) -> list[Mark]:
    """The letter of one curve at its end and on its way, each curve's at another place."""
    points = series[place]
    if not points:
        return []
    sign, style = letter(place), f"bold {_style(place)}"
    steps = [(at + (order + 0.5) / len(series)) for at in range(_LETTERS_ON_A_CURVE)]
    wanted = [points[-1][0] * step / _LETTERS_ON_A_CURVE for step in steps]
    near = [min(points, key=lambda point: abs(point[0] - x)) for x in wanted]
    return [Mark(point, sign, style) for point in dict.fromkeys([*near, points[-1]])]


def _fronts(found: SaeComparison, width: int, height: int) -> list[list[Content]]:
    """FVU against L0 of every SAE on each of the layers; those compared are letters."""
    signs = {
        one.sae_id: Sign(letter(place), f"bold {_style(place)}")
        for place, one in enumerate(found.figures)
    }
    charts = []
    for name in found.places:
        here = [one for place, one in found.standings if place == name]
        where = printable(name) if len(found.places) > 1 else "this layer"
        lines = pareto_chart(here, signs, f"FVU against L0 on {where}", width, height)
        if lines:
            charts.append(lines)
        for reading in WHICH_K:
            more = which_k_chart(here, reading, signs, width, height)
            charts += [more] if more else []
    return charts


def _which_k_count(found: SaeComparison) -> int:
    """How many charts of what else is measured against L0 there are."""
    return sum(
        sum(getattr(one, reading) is not None for place, one in found.standings if place == name)
        > 1
        for name in found.places
        for reading in WHICH_K
    )
