"""What the detail pane says about a run: what was captured, what it looks like, what came of it;
pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from textual.content import Content

from mi_crow.mechanistic.sae.evaluation.standing import Standing
from mi_crow.store.runs.glance import Glance
from mi_crow.store.workspace import RunSummary, SaeSummary
from tui.preferences.key_words import key
from tui.screens.runs.charts import RunReading
from tui.screens.runs.detail import NARROW_COLUMNS, TWO_COLUMNS, heading, note_facts, settings
from tui.screens.runs.figures.tables import label_bars
from tui.screens.runs.figures.texts import some_texts
from tui.text import count, duration, moment, number, printable, size
from tui.widgets.facts import Fact, beside, blocks, facts_content, section
from tui.widgets.trouble import trouble_content

_NAME_WIDTH = 11
_MOST_LABELS = 12
_LABEL_LINES = 8  # of their bars


def run_detail(
    run: RunSummary,
    saes: Sequence[SaeSummary],
    reading: RunReading | None,
    width: int,
    height: int,
    *,
    apart: int = 0,
) -> Content:
    """Everything about one activation run; what its files hold (`reading`) follows when it is
    read. `width` and `height` are the pane's, in cells: the texts take what is left of it. `apart`:
    what `run_apart` tells is in another pane."""
    manifest = run.manifest
    glance = reading.glance if reading is not None else None
    per_document = manifest.n_tokens / manifest.n_documents if manifest.n_documents else 0
    revision = f" · revision {manifest.revision[:12]}" if manifest.revision else ""
    parts = "1 part" if len(manifest.parts) == 1 else f"{len(manifest.parts)} parts"
    facts = [
        Fact("model", printable(manifest.model_id + revision)),
        Fact("source", printable(_dataset(manifest.dataset))),
        Fact("documents", f"{manifest.n_documents:,}{_split_words(glance)}"),
        Fact("tokens", f"{manifest.n_tokens:,}, {per_document:.0f} per document on average"),
        Fact("stored", f"{manifest.dtype} in {parts}, {size(run.bytes)}"),
        Fact("captured", f"{moment(manifest.created)}, took {duration(manifest.seconds)}"),
        Fact(
            "next",
            f"{key('list.open')} trains an SAE on it"
            if manifest.complete
            else "resume its capture",
        ),
        *note_facts(reading.note if reading is not None else ""),
    ]
    labels = glance.labels if glance is not None else {}
    if labels and width < TWO_COLUMNS:
        facts.insert(4, Fact("labels", _label_words(labels)))
    status = "complete" if manifest.complete else "not complete"
    trained = [sae for sae in saes if sae.run_id == run.run_id]
    first = [facts_content(facts, _NAME_WIDTH, width)]
    second = [
        section("Layers", Content("\n").join(_layers(run, glance))),
        _trained(trained, reading.standings if reading is not None else ()),
    ]
    if width >= TWO_COLUMNS:
        half = width // 2
        about = facts_content(facts, _NAME_WIDTH, half - 2)
        bars = label_bars(labels, width - half, _LABEL_LINES)
        first, second = [beside(about, blocks(*second, bars), width)], []
    above = blocks(
        heading(run.run_id, f"activation run · {status}"),
        *first,
        *second,
        trouble_content(reading.trouble) if reading is not None and reading.trouble else None,
    )
    below = Content("") if apart else run_apart(run, width)
    left = height - len(above.plain.splitlines()) - len(below.plain.splitlines()) - 3
    return blocks(above, some_texts(glance, width, left), below)


def run_apart(run: RunSummary, width: int) -> Content:
    """The settings that it was captured with."""
    return section("Captured with", settings(run.manifest.settings, width, NARROW_COLUMNS))


def _dataset(spec: Mapping[str, Any]) -> str:
    source = str(spec.get("source", "–"))
    words = [source]
    if spec.get("split") and source != "sample":
        words.append(str(spec["split"]))
    named = (("limit", "at most {:,} documents"), ("token_limit", "at most {:,} tokens"))
    for name, words_of in named:
        value = spec.get(name)
        if isinstance(value, int):
            words.append(words_of.format(value))
    if isinstance(spec.get("sample_seed"), int):
        words.append(f"a random sample, seed {spec['sample_seed']}")
    return " · ".join(words)


def _split_words(glance: Glance | None) -> str:
    """How many are held out; of a large run, among the first documents."""
    if glance is None or not glance.counted:
        return ""
    held = sum(n for split, n in glance.splits.items() if split != "train")
    among = "" if glance.counted >= glance.total else f" of the first {glance.counted:,}"
    return f": {glance.counted - held:,} to train on, {held:,} held out{among}"


def _label_words(labels: Mapping[str, int]) -> str:
    first, more = list(labels.items())[:_MOST_LABELS], len(labels) - _MOST_LABELS
    if len(first) > 1 and len(set(labels.values())) == 1:
        words = f"{first[0][1]:,} each: " + ", ".join(printable(label) for label, _ in first)
    else:
        words = " · ".join(f"{printable(label)} {n:,}" for label, n in first)
    return words + (f" and {more} more" if more > 0 else "")


def _layers(run: RunSummary, glance: Glance | None) -> list[Content]:
    layers = run.manifest.layers
    points = max([len(layer.point) for layer in layers], default=0)
    names = max([len(layer.name) for layer in layers], default=0)
    lines = []
    for layer in layers:
        n_bytes = glance.layer_bytes.get(layer.name) if glance is not None else None
        shown = f"   {size(n_bytes)}" if n_bytes else ""
        rounding = run.manifest.rounding_fvu.get(layer.name)
        rest = "" if rounding is None else f"   int8 costs an FVU of {rounding:.2g}"
        name = "" if layer.name == layer.point else printable(layer.name)
        lines.append(
            Content.assemble(
                f"{printable(layer.point):<{points}}",
                (f"   {name:<{names}}", "$muted"),
                f"   {layer.width:,} wide{shown}",
                (rest, "$muted"),
            )
        )
    return lines


def _trained(saes: Sequence[SaeSummary], standings: Sequence[Standing]) -> Content:
    """The SAEs that were trained on the run, the best known figures of each."""
    if not saes:
        return section("SAEs trained on it", Content.styled("none yet", "$muted"))
    known = {one.sae_id: one for one in standings}
    names = max(len(sae.sae_id) for sae in saes)
    lines = []
    for sae in reversed(saes):
        one = known.get(sae.sae_id, Standing(sae.sae_id))
        lines.append(
            Content.assemble(
                f"{printable(sae.sae_id):<{names}}",
                (f"  {printable(sae.architecture)}, {count(sae.n_latents)} latents", "$muted"),
                f"  FVU {number(one.fvu)}  L0 {number(one.l0, 1)}" if one.source else "",
                (f"  {one.measured}" if one.measured else "", "$muted"),
            )
        )
    return section("SAEs trained on it", Content("\n").join(lines))
