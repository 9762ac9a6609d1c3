"""The charts of the Runs screen: a job's readings over its steps, SAEs against each other; pure."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from textual.content import Content

from mi_crow.mechanistic.sae.evaluation.standing import Standing
from tui.screens.runs.figures.grid import Draw, chart_grid
from tui.text import count, number, printable, size
from tui.widgets.facts import Fact
from tui.widgets.plot import Axis, Curve, Mark, Point, chart, side_by_side

if TYPE_CHECKING:
    from mi_crow.jobs.events import Attempt
    from mi_crow.jobs.gauges import Gauges
    from mi_crow.mechanistic.features.records import FeatureRow
    from mi_crow.store.runs.glance import Glance
    from tui.screens.runs.figures.spread import Spread

Series = Mapping[str, tuple[Point, ...]]

_WIDE = 76  # from this width on charts are next to each other
_FEW = 2
_MOST_WIDTH = 100


@dataclass(frozen=True)
class Indexed:
    """What the open index says of the features of an SAE."""

    rows: "tuple[FeatureRow, ...]"  # those that have a name, then those that tell a label best
    named: int
    silent: int  # features that never fired
    tokens: int
    spreads: "tuple[Spread, ...]" = ()


@dataclass(frozen=True)
class SaeReading:
    """What an SAE's files hold beyond its summary."""

    sae_id: str
    note: str = ""
    training: Mapping[str, Any] = field(default_factory=dict)  # `config` and `result`
    said: Mapping[str, Any] = field(default_factory=dict)  # what its file says of where it belongs
    standings: tuple[Standing, ...] = ()  # of all SAEs on its layer, its own included
    curves: Series = field(default_factory=dict)
    indexed: Indexed | None = None  # of the SAE that is open
    config: Mapping[str, Any] = field(default_factory=dict)  # what else its file says of itself
    files: Mapping[str, int] = field(default_factory=dict)  # bytes by name


@dataclass(frozen=True)
class RunReading:
    """What a run's files hold beyond its manifest; `trouble`: why they cannot be read."""

    run_id: str
    note: str = ""
    glance: "Glance | None" = None
    standings: tuple[Standing, ...] = ()  # of the SAEs trained on it
    trouble: Exception | None = None


@dataclass(frozen=True)
class JobHistory:
    """What the events and the log of one job hold beyond its state."""

    job_id: str
    series: Series = field(default_factory=dict)  # value over units done, by metric
    over: tuple[str, float] = ("", 0.0)  # those units, and how many there are
    log: tuple[str, ...] = ()
    attempts: "tuple[Attempt, ...]" = ()
    gauges: "Gauges | None" = None  # of this machine, while the job runs on it
    about: SaeReading | RunReading | None = None  # what it made or works on
    earlier: frozenset[str] = frozenset()  # metrics that only earlier attempts have told
    goes_on: bool = True  # what a resume goes on from is on the disk


@dataclass(frozen=True)
class Reading:
    """A metric that has a chart: its name, and how a value is written."""

    name: str
    text: "partial[str]"
    low: float | None = 0.0  # where its axis begins


def _percent(value: float) -> str:
    return f"{100 * value:.3g}%"


_READINGS: dict[str, Reading] = {
    "fvu": Reading("FVU", partial(lambda value: f"{value:.3g}")),
    "heldout_fvu": Reading("held-out FVU", partial(lambda value: f"{value:.3g}")),
    "loss": Reading("loss", partial(lambda value: f"{value:.3g}"), None),
    "l0": Reading("L0", partial(lambda value: f"{value:.4g}")),
    "dead_share": Reading("dead latents", partial(_percent)),
    "tokens_s": Reading("tokens/s", partial(count)),
    "documents_s": Reading("documents/s", partial(count)),
    "gpu_memory": Reading("GPU memory", partial(size)),
    "memory": Reading("process memory", partial(size)),
}


def series_charts(
    series: Series,
    unit: str,
    total: float,
    width: int,
    height: int,
    *,
    ended: bool = False,
    room: int = 0,
    first: Sequence[Draw] = (),
    earlier: Container[str] = (),
) -> Content:
    """The charts over `unit`s, after those to be drawn `first`: all of them where two fit beside
    each other, in `room` lines where those are enough; else the first two, so that what follows
    stays on the screen. `height`: lines of a plot, at least. `ended`: no more points will come.
    Of a metric that only `earlier` attempts have told, there is no reading now.

    The x axis ends at `total`, so that a new point moves none of the others.
    """
    names = [name for name in _READINGS if len(series.get(name, ())) > 1]
    if series.get("loss") == series.get("fvu"):  # of a rule that has no other loss
        names = [name for name in names if name != "loss"]
    last, earlier = ("last", ()) if ended else ("now", earlier)

    def drawn(name: str) -> Draw:
        return lambda cells, lines: _series_chart(
            name, series[name], unit, total, cells, lines, "" if name in earlier else last
        )

    if width >= _WIDE:
        return chart_grid([*first, *map(drawn, names)], width, room, height)
    each = min(width, _MOST_WIDTH)
    draws = [*first, *map(drawn, names[:_FEW])]
    return side_by_side([draw(each, height) for draw in draws], 1, each)


def _series_chart(
    name: str,
    points: tuple[Point, ...],
    unit: str,
    total: float,
    width: int,
    height: int,
    last: str,
) -> list[Content]:
    reading = _READINGS[name]
    x = Axis(unit, count, 0.0, total)
    said = f"  {last} {reading.text(points[-1][1])}" if last else ""
    title = Content.assemble((reading.name, "bold $primary"), (said, "$muted"))
    y = Axis(reading.name, reading.text, reading.low)
    return [title, *chart(x, y, width, height, [Curve(points)])]


@dataclass(frozen=True)
class Sign:
    """How an SAE is shown in a chart of points."""

    text: str
    style: str = "bold $accent"


def place_name(model_id: str, layer: str) -> str:
    """A layer of a model in a title."""
    model = model_id.rstrip("/").rsplit("/", 1)[-1]
    return f"{layer or 'an unknown layer'} of {model or 'an unknown model'}"


def pareto(standings: Sequence[Standing], sae_id: str) -> Draw | None:
    """FVU against L0 of the SAEs of one layer; None with fewer than two that were measured."""
    if sum(one.fvu is not None and one.l0 is not None for one in standings) < 2:
        return None
    title, signs = "FVU against L0 on this layer", {sae_id: Sign("◆")}
    return lambda width, height: pareto_chart(
        standings, signs, title, min(width, _MOST_WIDTH), height, "◆ this one  "
    )


def pareto_chart(
    standings: Sequence[Standing],
    signs: Mapping[str, Sign],
    title: str,
    width: int,
    height: int,
    legend: str = "",
) -> list[Content]:
    """FVU against L0; the SAEs in `signs` have a sign of their own, drawn over the others. No lines
    where nothing was measured."""
    known = [one for one in standings if one.fvu is not None and one.l0 is not None]
    y = Axis("FVU", partial(number, digits=2), 0.0)
    lines = _against_l0(known, "fvu", y, signs, width, height)
    about = f"  ({_saes(known)})  {legend}● evaluated  ○ as trained"
    head = Content.assemble((title, "bold $primary"), (about, "$muted"))
    return [head, *lines] if lines else []


# What else a sweep chooses its L0 by: the name of a reading, and where its axis begins.
WHICH_K = {
    "ce_added": ("CE added", 0.0),
    "c_dec": ("decoder correlation c_dec", None),
    "probe_accuracy": ("accuracy of probes", None),
}


def which_k_chart(
    standings: Sequence[Standing],
    reading: str,
    signs: Mapping[str, Sign],
    width: int,
    height: int,
) -> list[Content]:
    """One of `WHICH_K` against L0, of SAEs of one layer. No lines with fewer than two of them."""
    known = [one for one in standings if None not in (getattr(one, reading), one.l0)]
    if len(known) < 2:
        return []
    name, low = WHICH_K[reading]
    y = Axis(name, partial(number, digits=3), low)
    lines = _against_l0(known, reading, y, signs, width, height)
    about = f"  ({_saes(known)})"
    head = Content.assemble((f"{name} against L0", "bold $primary"), (about, "$muted"))
    return [head, *lines] if lines else []


def _saes(known: Sequence[Standing]) -> str:
    return f"{len(known)} SAE{'' if len(known) == 1 else 's'}"


def _against_l0(
    known: Sequence[Standing],
    reading: str,
    y: Axis,
    signs: Mapping[str, Sign],
    width: int,
    height: int,
) -> list[Content]:
    marks = []
    for one in sorted(known, key=lambda one: one.sae_id in signs):
        sign = signs.get(one.sae_id, Sign("●" if one.source == "evaluation" else "○", "$chart"))
        at = one.l0 or 0.0, getattr(one, reading)
        marks.append(Mark(at, sign.text, sign.style, named=one.sae_id in signs))
    return chart(Axis("L0", partial(number, digits=0), 0.0), y, width, height, [], marks)


def training_charts(
    curves: Series, width: int, height: int, room: int = 0, first: Sequence[Draw] = ()
) -> Content:
    """How a training went; held-out FVU where it was measured, else that of the batches."""
    if len(curves.get("heldout_fvu", ())) > 1:
        curves = {name: points for name, points in curves.items() if name != "fvu"}
    total = max((points[-1][0] for points in curves.values() if points), default=0.0)
    return series_charts(curves, "step", total, width, height, ended=True, room=room, first=first)


def gauge_facts(gauges: "Gauges | None") -> list[Fact]:
    """What the machine does, a line each; nothing that it does not tell."""
    if gauges is None:
        return []
    facts = []
    if gauges.load is not None:
        facts.append(Fact("CPU load", f"{gauges.load:.1f} on {gauges.cores} cores"))
    if gauges.memory_used is not None and gauges.memory_total:
        facts.append(
            Fact("RAM", f"{size(gauges.memory_used)} of {size(gauges.memory_total)} in use")
        )
    for gpu in gauges.gpus:
        busy = f", {100 * gpu.busy:.0f}% busy" if gpu.busy is not None else ""
        facts.append(
            Fact("GPU", f"{printable(gpu.name)}: {size(gpu.used)} of {size(gpu.total)}{busy}")
        )
    return facts
