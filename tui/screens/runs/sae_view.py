"""What the detail pane says about an SAE: what it is, how good, how it was trained, what it found;
pure."""

from collections.abc import Mapping
from typing import Any

from textual.content import Content

from mi_crow.mechanistic.sae.evaluation.probe_rows import probe_rows
from mi_crow.mechanistic.sae.evaluation.standing import Standing
from mi_crow.store.workspace import SaeSummary
from tui.preferences.key_words import key
from tui.screens.beginnings import feature_cell, in_columns
from tui.screens.runs.charts import SaeReading, pareto, training_charts
from tui.screens.runs.detail import (
    NARROW_COLUMNS,
    TWO_COLUMNS,
    chart_lines,
    facts_in_columns,
    heading,
    metric,
    note_facts,
    settings,
)
from tui.screens.runs.figures.grid import AROUND
from tui.screens.runs.figures.spread import spread_chart
from tui.screens.runs.figures.tables import files_table, layers_table, standings_table
from tui.text import count, number, printable, size
from tui.widgets.facts import Fact, beside, blocks, facts_content, section

_LEAST_FEATURES = 4  # lines of features, also where they have to be scrolled to
_SPREAD_LINES, _MOST_SPREAD = 4, 8  # lines of the bars of a distribution
_FEATURE_WIDTH = 31  # cells of one


def sae_detail(
    sae: SaeSummary,
    reading: SaeReading | None,
    width: int,
    height: int,
    *,
    tall: bool = False,
    evaluated: bool = True,
    trained: bool = True,
    apart: int = 0,
) -> Content:
    """Everything about one SAE; what its files hold besides (`reading`) follows when it is read.

    `width` and `height` are the pane's, in cells. `tall`: there is room for more of everything.
    Without `evaluated`, how good it is is shown elsewhere; without `trained`, how its training
    went. `apart`: so many parts of what `sae_apart` tells are in another pane.
    """
    title = _title(sae)
    facts = _facts(sae, reading)
    lines = chart_lines(height, 8) if tall else 5
    rest = sae_apart(reading, width, trained=trained)[apart:]
    if width < TWO_COLUMNS:
        quality = _quality_of(sae, reading, width) if evaluated else []
        charts = _sae_charts(reading, width, lines) if trained else []
        whole = blocks(title, facts_content(facts, 11, width), *quality, *charts, *rest[:1])
        left = height - len(whole.plain.splitlines()) - 2
        features = _features(sae, reading, width, max(left, _LEAST_FEATURES))
        return blocks(whole, features, *_tables(sae, reading, width), *rest[1:])
    half = width // 2
    first, second = half - 2, width - half
    left_side = [facts_content(facts, 11, first)]
    right_side = [*_tables(sae, reading, second)]
    if evaluated:
        quality, *probes = _quality_of(sae, reading, first)
        left_side.append(quality)
        right_side = [*probes, *right_side]
    charts = (reading.curves if reading is not None and trained else {}) or None
    below = 2 * (AROUND + lines) if charts else 0
    spare = height - below - len(blocks(*left_side).plain.splitlines()) - _SPREAD_LINES
    right_side += _spreads(reading, second, min(_MOST_SPREAD, max(spare // 3, _SPREAD_LINES)))
    free = len(blocks(*left_side).plain.splitlines())
    free -= len(blocks(*right_side).plain.splitlines()) + 2
    features = _features(sae, reading, second, max(free, _LEAST_FEATURES))
    about = beside(blocks(*left_side), blocks(features, *right_side), width)
    above, below_it = blocks(title, about), blocks(*rest)
    used = len(above.plain.splitlines()) + len(below_it.plain.splitlines()) + 3
    return blocks(above, _chart_grid(reading, width, lines, height - used, trained), below_it)


def sae_apart(reading: SaeReading | None, width: int, *, trained: bool = True) -> list[Content]:
    """The settings that it was trained with, what its file says of itself, and its files."""
    if reading is None:
        return []
    said = [Fact(name, printable(str(value))) for name, value in reading.config.items()]
    parts = _training(reading, width) if trained else []
    if said:
        told = facts_in_columns(said, width, NARROW_COLUMNS)
        parts.append(section("Its file says", told))
    files = files_table(reading.files, width)
    return [*parts, files] if files is not None else parts


def _title(sae: SaeSummary) -> Content:
    index = "indexed" if sae.has_index else "no index yet"
    return heading(sae.sae_id, f"{printable(sae.architecture)} SAE · {index}")


def _facts(sae: SaeSummary, reading: SaeReading | None) -> list[Fact]:
    ratio = sae.n_latents / sae.n_inputs if sae.n_inputs else 0
    return [
        Fact("model", printable(sae.model_id) or "–"),
        Fact("layer", printable(sae.layer) or "–"),
        Fact("run", printable(sae.run_id or "–")),
        *_origin(reading),
        Fact("latents", f"{sae.n_latents:,} from {sae.n_inputs:,} inputs ({ratio:g}×)"),
        Fact("k", _declared_k(sae)),
        Fact("size", size(sae.bytes)),
        Fact("next", _next(sae)),
        *note_facts(reading.note if reading else ""),
    ]


def _tables(sae: SaeSummary, reading: SaeReading | None, width: int) -> list[Content]:
    """Its layers, and the other SAEs of its layer."""
    standings = reading.standings if reading is not None else ()
    found = (
        layers_table((sae.evaluation or {}).get("layers"), width),
        standings_table(standings, sae.sae_id, width),
    )
    return [one for one in found if one is not None]


def _spreads(reading: SaeReading | None, width: int, height: int) -> list[Content]:
    if reading is None or reading.indexed is None:
        return []
    drawn = [spread_chart(one, width, height) for one in reading.indexed.spreads]
    return [Content("\n").join(lines) for lines in drawn]


def _next(sae: SaeSummary) -> str:
    """What can be done with it that was not done yet, by key."""
    words = [] if sae.has_index else [f"{key('runs.new', 'new.index')} index"]
    words += [] if sae.evaluation is not None else [f"{key('runs.new', 'new.evaluate')} evaluate"]
    words += [f"{key('runs.compare')} compare", f"{key('runs.export')} export"]
    words.append(f"{key('runs.new', 'new.train')} train another")
    return " · ".join([f"{key('list.open')} features", *words] if sae.has_index else words)


def _origin(reading: SaeReading | None) -> list[Fact]:
    """Where an imported SAE comes from, and what its file says of the texts it is for."""
    said = reading.said if reading is not None else {}
    facts = []
    if source := said.get("source"):
        words = [str(source), *(str(said[name]) for name in ("format",) if said.get(name))]
        facts.append(Fact("imported", printable(" · ".join(words))))
    words = []
    if (context := said.get("context_size")) is not None:
        words.append(f"contexts of {context} tokens")
    if (bos := said.get("prepend_bos")) is not None:
        words.append("with BOS" if bos else "without BOS")
    if (norm := said.get("outlier_norm")) is not None:
        words.append(f"tokens up to a norm of {norm:.4g}")
    return [*facts, Fact("made for", printable(", ".join(words)))] if words else facts


def _declared_k(sae: SaeSummary) -> str:
    """k as the file says it, and beside it the L0 that was measured."""
    if sae.k is None:
        return "–"
    l0 = (sae.evaluation or {}).get("l0")
    measured = f" declared, L0 {l0:.1f} measured" if isinstance(l0, int | float) else ""
    return f"{sae.k}{measured}"


def measured(found: Mapping[str, Any], trained: Mapping[str, Any], width: int) -> list[Content]:
    """What an evaluation found, and its probes; with it what the training had measured."""
    quality = section("On held-out text", facts_content(_quality(found, trained), 27, width))
    probes = _probes(found.get("probes") or {}, width)
    layers = _layers(found, width)
    if probes and width >= TWO_COLUMNS:
        return [beside(quality, probes[0], width), *layers]
    return [quality, *layers, *probes]


def _layers(found: Mapping[str, Any], width: int) -> list[Content]:
    """Of an SAE over several layers the figures of each, of two models how many latents are of
    each."""
    parts = []
    layers, origins = found.get("layers"), found.get("origins")
    known = [one for one in layers if isinstance(one, Mapping)] if isinstance(layers, list) else []
    if known:
        facts = [Fact(printable(str(one.get("layer"))), _layer_figures(one)) for one in known]
        longest = max(len(fact.name) for fact in facts) + 2
        parts.append(section("By layer", facts_content(facts, min(longest, 27), width)))
    if isinstance(origins, Mapping) and origins:
        words = [f"{printable(str(name))} {n:,}" for name, n in origins.items() if type(n) is int]
        parts.append(section("Latents by model", Content(" · ".join(words))))
    return parts


def _layer_figures(one: Mapping[str, Any]) -> str:
    """What was measured of one layer, on one line."""
    named = (("fvu", "FVU", 3), ("l0", "L0", 1))
    words = [
        f"{title} {number(one[name], digits)}"
        for name, title, digits in named
        if isinstance(one.get(name), int | float)
    ]
    if isinstance(dead := one.get("dead_share"), int | float):
        words.append(f"dead {metric('dead_share', float(dead))}")
    return " · ".join(words) or "–"


def _quality_of(sae: SaeSummary, reading: SaeReading | None, width: int) -> list[Content]:
    """The evaluation and its probes; before one, what training measured at its end,
    or the check of an import."""
    if sae.evaluation is not None:
        result = reading.training.get("result") if reading is not None else None
        return measured(sae.evaluation, result if isinstance(result, Mapping) else {}, width)
    trouble = f"{printable(sae.evaluation_trouble)}\n" if sae.evaluation_trouble else ""
    evaluate = key("runs.new", "new.evaluate")
    words = f"{evaluate} evaluates it on held-out text"
    hint = Content.assemble((trouble, "$error"), (words, "$muted"))
    parts = [section("Not evaluated", hint)]
    standing = _own(sae, reading)
    if standing is not None and standing.source:
        facts = [
            Fact("FVU", number(standing.fvu)),
            Fact("L0", number(standing.l0, 1)),
        ]
        if standing.dead_share is not None or standing.source != "check":
            dead = metric("dead_share", standing.dead_share or 0.0)
            facts.append(Fact("dead latents", dead))
        head = "As checked" if standing.source == "check" else "Held out, after training"
        parts.append(section(head, facts_content(facts, 14, width)))
    return parts


def _own(sae: SaeSummary, reading: SaeReading | None) -> Standing | None:
    found = reading.standings if reading is not None else ()
    return next((one for one in found if one.sae_id == sae.sae_id), None)


def _sae_charts(reading: SaeReading | None, width: int, height: int) -> list[Content]:
    """FVU against L0, and how the training went, under one another."""
    if reading is None:
        return []
    front = pareto(reading.standings, reading.sae_id)
    curves = training_charts(reading.curves, width, height)
    parts = [Content("\n").join(front(width, height))] if front is not None else []
    return [*parts, section("Training", curves)] if curves.plain else parts


def _chart_grid(
    reading: SaeReading | None, width: int, height: int, room: int, trained: bool
) -> Content:
    """The same beside one another, in `room` lines."""
    if reading is None:
        return Content("")
    front = pareto(reading.standings, reading.sae_id)
    curves = reading.curves if trained else {}
    return training_charts(curves, width, height, room, [front] if front is not None else [])


def _training(reading: SaeReading | None, width: int) -> list[Content]:
    """The settings that the SAE was trained with."""
    config = reading.training.get("config") if reading is not None else None
    if not isinstance(config, Mapping):
        return []
    return [section("Trained with", settings(config, width, NARROW_COLUMNS))]


def _features(
    sae: SaeSummary, reading: SaeReading | None, width: int, lines: int
) -> Content | None:
    """Features that tell something, in `lines` lines, once the index is open."""
    if reading is None or reading.indexed is None or not reading.indexed.rows:
        return None
    indexed = reading.indexed
    words = f"{indexed.named:,} named · {indexed.silent:,} of {sae.n_latents:,} never fire"
    words += f" on {count(indexed.tokens)} tokens"
    columns = max(width // _FEATURE_WIDTH, 1)
    cells = [feature_cell(row, _FEATURE_WIDTH) for row in indexed.rows[: columns * lines]]
    head = Content.assemble(("Its features", "bold $primary"), (f"  {words}", "$muted"))
    return Content.assemble(
        head.truncate(width, ellipsis=True), "\n", in_columns(cells, width, _FEATURE_WIDTH)
    )


def _probes(found: Mapping[str, Any], width: int) -> list[Content]:
    """Probes for the labels on k latents, and on k of the activations' own dimensions."""
    rows = probe_rows(found)
    if not rows:
        return []
    ks = list(dict.fromkeys(k for row in rows for k in row.by_k))
    facts = [Fact("k", "".join(f"{k:7}" for k in (*ks, "all")).rstrip())]
    for row in rows:
        values = (*(row.by_k.get(k) for k in ks), row.everything)
        shown = ("–" if value is None else number(value, 3) for value in values)
        facts.append(Fact(row.probe, "".join(f"{reading:7}" for reading in shown).rstrip()))
    return [section("k-sparse probes", facts_content(facts, 22, width))]


def _quality(found: Mapping[str, Any], trained: Mapping[str, Any]) -> list[Fact]:
    """What an evaluation measured, with what the training had measured at its end."""

    def before(name: str) -> str:
        value = trained.get(name)
        if not isinstance(value, int | float):
            return ""
        return f"  ({metric(name, float(value))} after training)"

    def reading(name: str, digits: int = 3) -> str:
        value = found.get(name)
        return number(value, digits) if isinstance(value, int | float) else "–"

    def share(key: str) -> str:
        value = found.get(key)
        return f"{100 * value:.1f}%" if isinstance(value, int | float) else "–"

    losses = " / ".join(
        reading(key) for key in ("ce_original", "ce_reconstructed", "ce_zero") if key in found
    )
    facts = [
        Fact("FVU", reading("fvu") + before("fvu")),
        Fact("FVU, all tokens", f"{reading('fvu_all')}  ({share('outlier_share')} outliers)"),
        Fact("explained variance", reading("explained_variance")),
        Fact("cosine", reading("cosine")),
        Fact("L0", reading("l0", 1) + before("l0")),
        Fact("dead latents", share("dead_share") + before("dead_share")),
        Fact("dense latents", share("dense_share")),
        Fact("c_dec", reading("c_dec", 4)),
        Fact("loss recovered", reading("loss_recovered")),
        Fact("KL", reading("kl", 4)),
        Fact("CE: original / SAE / zero", losses or "–"),
        Fact("CE with mean ablation", reading("ce_mean")),
        Fact("loss recovered (mean)", reading("loss_recovered_mean")),
    ]
    return [fact for fact in facts if not fact.value.startswith("–")]
