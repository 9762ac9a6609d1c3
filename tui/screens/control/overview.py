"""What the Control screen says of a model that is not loaded, and of what was made of a layer;
pure."""

from collections.abc import Sequence

from textual.content import Content

from mi_crow.store.workspace import RunSummary, SaeSummary
from tui.preferences.key_words import key
from tui.screens.control.known import KnownModel, runs_on, saes_on, what_is_on
from tui.screens.control.tree import Layer
from tui.screens.runs.figures.tables import label_bars
from tui.screens.runs.figures.texts import some_texts
from tui.text import count, number, printable, size
from tui.widgets.facts import Fact, beside, facts_content, section

_NAMES = 13  # cells of the names of facts
_TWO_COLUMNS = 88  # cells of a pane
_MOST_MODELS = 8
_MOST_LAYERS = 24
_LABEL_LINES = 6
_LEAST_ROOM = 32  # lines that labels and texts need
# What can be done, in the order in which somebody would.
_KEYS = (
    ("control.load", "loads the model, to see all of it"),
    ("control.measure", "loads it, measures on the text below"),
    ("control.new", "adds a detector or controller here"),
    ("control.steer", "puts this layer on the stack of Steer"),
    ("control.capture", "captures the activations of this layer"),
    ("control.filter", "finds a layer by its name"),
    ("app.runs runs.new", "on Runs: capture, train, import"),
)


def made_of(layer: Layer, model: KnownModel | None, open_id: str | None) -> list[Content]:
    """The runs that hold a layer's activations, and the SAEs that read them."""
    if model is None:
        return []
    parts = []
    if runs := runs_on(layer, model):
        parts.append(section("Captured", Content("\n").join(map(_run_line, runs))))
    if saes := saes_on(layer, model):
        lines = [_sae_line(sae, model, sae.sae_id == open_id) for sae in reversed(saes)]
        parts.append(section("SAEs on this layer", Content("\n").join(lines)))
    return parts


def _run_line(run: RunSummary) -> Content:
    manifest = run.manifest
    words = f"  {count(manifest.n_tokens)} tokens · {manifest.dtype} · {size(run.bytes)}"
    more = "" if manifest.complete else "  not complete"
    return Content.assemble(printable(run.run_id), (words, "$muted"), (more, "$warning"))


def _sae_line(sae: SaeSummary, model: KnownModel, is_open: bool) -> Content:
    one = next((one for one in model.standings if one.sae_id == sae.sae_id), None)
    words = f"  {printable(sae.architecture)} · {count(sae.n_latents)} latents"
    if one is not None and one.source:
        words += f" · FVU {number(one.fvu)} · L0 {number(one.l0, 1)}"
    words += " · indexed" if sae.has_index else ""
    mark = " ◂ open" if is_open else ""
    return Content.assemble(printable(sae.sae_id), (mark, "$primary"), (words, "$muted"))


def overview(
    model: KnownModel,
    layers: Sequence[Layer],
    others: Sequence[tuple[str, int, int]],
    width: int,
) -> list[Content]:
    """What can be done, the model by its files, what was made of its layers, the other models.
    `others` are those of the workspace: a name, how many runs, how many SAEs."""
    around = model_and_others(model, layers, others, width, "The model, not loaded yet")
    return [section("What can be done", _keys(width)), *around]


def model_and_others(
    model: KnownModel,
    layers: Sequence[Layer],
    others: Sequence[tuple[str, int, int]],
    width: int,
    title: str = "The model",
) -> list[Content]:
    """The model by its files, what was made of its layers, the other models of the workspace."""
    room = width // 2 - 2 if width >= _TWO_COLUMNS else width
    facts = facts_content(_facts(model), _NAMES, room)
    parts = [section(title, facts)]
    stored = _stored(model, layers, room)
    if stored is not None:
        parts.append(stored)
    if width >= _TWO_COLUMNS and len(parts) > 1:
        parts = [beside(parts[0], parts[1], width)]
    models = _models(model, others, width)
    return parts if models is None else [*parts, models]


def _facts(model: KnownModel) -> list[Fact]:
    found = model.outline
    facts = [Fact("name", printable(model.name))]
    if model.revision:
        facts.append(Fact("revision", printable(model.revision[:12])))
    if found is None:
        return [*facts, Fact("files", "not on this machine, or they do not say", "$muted")]
    attention = f", attention {found.heads_width:,}" if found.heads_width else ""
    facts.append(Fact("blocks", f"{found.blocks:,}"))
    facts.append(Fact("width", f"{found.width:,}{attention}"))
    if found.context:
        facts.append(Fact("context", f"{found.context:,} tokens"))
    if found.file_bytes:
        facts.append(Fact("weights", size(found.file_bytes)))
    n_points = sum(1 for _ in found.points())
    facts.append(Fact("hook points", f"up to {n_points:,}: {_kinds(model)}"))
    return facts


def _kinds(model: KnownModel) -> str:
    points = model.outline.points() if model.outline is not None else ()
    return ", ".join(dict.fromkeys(name.partition(".")[0] for name, _ in points))


def _stored(model: KnownModel, layers: Sequence[Layer], width: int) -> Content | None:
    """Which blocks something was made of; of a deep model those only."""
    points = [layer for layer in layers if layer.point]
    told = [layer for layer in points if what_is_on(layer, model)]
    shown = points if len(points) <= _MOST_LAYERS else told[:_MOST_LAYERS]
    if not shown:
        return None
    wide = max(len(layer.point) for layer in shown)
    lines = []
    for layer in shown:
        words = what_is_on(layer, model)
        best = _best_fvu(layer, model)
        style = ("$foreground", "$muted") if words else ("$faint", "$faint")
        name = (f"{printable(layer.point):<{wide}}", style[0])
        line = Content.assemble(name, (f"  {words or '–'}{best}", style[1]))
        lines.append(line.truncate(width, ellipsis=True))
    if len(shown) < len(points):
        lines.append(
            Content.styled(f"nothing from {len(points) - len(told):,} other layers", "$faint")
        )
    return section("What was made of its layers", Content("\n").join(lines))


def _best_fvu(layer: Layer, model: KnownModel) -> str:
    own = {sae.sae_id for sae in saes_on(layer, model)}
    known = [one.fvu for one in model.standings if one.sae_id in own and one.fvu is not None]
    return f" · FVU {number(min(known))}" if known else ""


def _keys(width: int) -> Content:
    keys = [(key(*names.split()), words) for names, words in _KEYS]
    wide = max(len(one) for one, _ in keys) + 2
    return Content("\n").join(
        Content.assemble((f"{one:<{wide}}", "bold $primary"), words).truncate(
            max(width, 8), ellipsis=True
        )
        for one, words in keys
    )


def _models(
    model: KnownModel, others: Sequence[tuple[str, int, int]], width: int
) -> Content | None:
    """The models that the workspace knows, and those of the hub's cache; None where none are."""
    names = {name for name, *_ in others}
    lines = []
    for name, n_runs, n_saes in others[:_MOST_MODELS]:
        words = [f"{n_runs} run{'' if n_runs == 1 else 's'}"] if n_runs else []
        words += [f"{n_saes} SAE{'' if n_saes == 1 else 's'}"] if n_saes else []
        here = " ◂ here" if name == model.name else ""
        lines.append(
            Content.assemble(
                printable(name), (here, "$primary"), (f"  {' · '.join(words)}", "$muted")
            )
        )
    for name in [one for one in model.cached if one not in names][: _MOST_MODELS - len(lines)]:
        lines.append(Content.assemble(printable(name), ("  in the hub's cache", "$muted")))
    hint = f"another one: {key('list.open')} opens one of its SAEs on Runs"
    if len(others) > 1:
        lines.append(Content.styled(hint, "$muted"))
    if not lines:
        return None
    cut = [line.truncate(max(width, 8), ellipsis=True) for line in lines]
    return section("Models", Content("\n").join(cut))


def captured_texts(model: KnownModel, width: int, height: int) -> list[Content]:
    """What was captured last from the model, in what is left of the pane: labels and texts."""
    glance = model.texts
    if glance is None or height < _LEAST_ROOM:
        return []
    bars = label_bars(glance.labels, width, _LABEL_LINES)
    taken = len(bars.plain.splitlines()) + 1 if bars is not None else 0
    title = f"Some of the texts of {printable(model.runs[-1].run_id)}"
    texts = some_texts(glance, width, height - taken - 1, title)
    return [part for part in (bars, texts) if part is not None]


def models_of(runs: Sequence[RunSummary], saes: Sequence[SaeSummary]) -> list[tuple[str, int, int]]:
    """The models of a workspace, the one that was used last first: runs and SAEs of each."""
    names = [run.manifest.model_id for run in runs] + [sae.model_id for sae in saes]
    latest = list(dict.fromkeys(name for name in reversed(names) if name))
    return [
        (
            name,
            sum(run.manifest.model_id == name for run in runs),
            sum(sae.model_id == name for sae in saes),
        )
        for name in latest
    ]
