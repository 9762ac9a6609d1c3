"""What is shown of a vector: its row, how it was made, what was found in it; pure."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from textual.content import Content

from tui.text import number, printable
from tui.widgets.facts import Fact, blocks, facts_content, section
from tui.widgets.lists.row_list import Cell, Column, Row

if TYPE_CHECKING:
    from mi_crow.mechanistic.vectors.stored import VectorSummary

COLUMNS = (
    Column("vector"),
    Column("method", 8),
    Column("layer", 15, from_width=44),
    Column("AUROC", 6, "right", from_width=36),
    Column("norm", 7, "right", from_width=56),
    Column("model", 20, from_width=84),
)
_NAMES = 14
_MOST = 300  # characters of what a vector was made of


@dataclass(frozen=True)
class Known:
    """A vector of the workspace, as its file tells."""

    summary: "VectorSummary"
    norms: Mapping[str, float]

    @property
    def name(self) -> str:
        return self.summary.name

    @property
    def made(self) -> Mapping[str, Any]:
        return self.summary.made


def figures_at(one: Known, point: str) -> Mapping[str, Any]:
    layers = one.made.get("layers")
    found = layers.get(point) if isinstance(layers, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def auroc_of(one: Known) -> tuple[float | None, bool]:
    """The best AUROC of its layers, and whether it is of held-out texts."""
    for key in ("auroc_heldout", "auroc"):
        values = [figures_at(one, point).get(key) for point in one.summary.widths]
        known = [float(value) for value in values if isinstance(value, int | float)]
        if known:
            return max(known), key == "auroc_heldout"
    return None, False


def vector_rows(found: Sequence[Known]) -> list[Row]:
    rows = []
    for one in found:
        auroc, heldout = auroc_of(one)
        points = ", ".join(one.summary.widths)
        norms = list(one.norms.values())
        cells = (
            Cell(printable(one.name), "bold $foreground"),
            Cell(printable(one.summary.method), "$muted"),
            Cell(printable(points)),
            Cell(number(auroc, 2), "$accent" if heldout else "$muted"),
            Cell(number(norms[0], 2) if len(norms) == 1 else "", "$muted"),
            Cell(printable(one.summary.model_id), "$muted"),
        )
        rows.append(Row(one.name, cells))
    return rows


def vector_detail(one: Known, inside: Mapping[str, Any] | None, hint: str, width: int) -> Content:
    """All that is known of a vector; `inside` is what the session found in it."""
    return blocks(
        section(printable(one.name), facts_content(_facts(one), _NAMES, width)),
        *(_inside(inside, width) if inside is not None else (Content.styled(hint, "$muted"),)),
    )


def _facts(one: Known) -> list[Fact]:
    made = one.made
    facts = [Fact("method", one.summary.method), Fact("model", one.summary.model_id)]
    if made.get("note"):
        facts.insert(0, Fact("note", str(made["note"]), "$accent"))
    for side in ("for", "against"):
        words = made.get(side)
        if isinstance(words, list) and words:
            total = made.get(f"texts_{side}")
            many = f"  ({total} texts)" if isinstance(total, int) else ""
            facts.append(Fact(side, ", ".join(map(str, words))[:_MOST] + many))
    features = made.get("features")
    if isinstance(features, list):
        facts.append(Fact("features", ", ".join(map(_feature, features))[:_MOST]))
    facts += [
        Fact(name, str(made[key]))
        for key, name in (("run_id", "run"), ("sae", "SAE"), ("source", "from"), ("seed", "seed"))
        if made.get(key) not in (None, "")
    ]
    if isinstance(of := made.get("of"), dict) and isinstance(of.get("feature"), int):
        # A search that makes a feature or a label happen made it.
        aim = f"#{of['feature']} of {of.get('sae')}" + (
            f", {of['label']}" if of.get("label") else ""
        )
        facts.append(Fact("made for", aim))
    for point, width in one.summary.widths.items():
        figures = figures_at(one, point)
        words = f"width {width:,}, norm {number(one.norms.get(point), 2)}"
        if isinstance(median := figures.get("median_norm"), int | float):
            words += f" (a token {number(median, 2)})"
        for key, name in (("auroc_heldout", "held-out AUROC"), ("auroc", "AUROC of its own texts")):
            if isinstance(value := figures.get(key), int | float):
                words += f", {name} {number(value, 3)}"
        facts.append(Fact(point, words))
    if isinstance(created := made.get("created"), int | float):
        facts.append(Fact("made", time.strftime("%Y-%m-%d %H:%M", time.localtime(created))))
    return [Fact(printable(one.name), printable(one.value), one.style) for one in facts]


def _feature(one: Any) -> str:
    if isinstance(one, list) and len(one) == 2:
        weight = f"{one[1]:g}*" if one[1] != 1 else ""
        return f"{weight}#{one[0]}"
    return str(one)


FEATURE_COLUMNS = (
    Column("feature"),
    Column("cosine", 6, "right"),
    Column("in the sum", 10, "right"),
)


def feature_rows(found: Mapping[str, Any]) -> list[Row]:
    """The nearest features, then the others of the sum; the keys are their numbers."""
    features = found.get("features")
    if not isinstance(features, Mapping):
        return []
    names = found.get("names") or {}
    cosines = {int(one["feature"]): float(one["cosine"]) for one in features["nearest"]}
    sums = {int(one["feature"]): float(one["coefficient"]) for one in features["pursuit"]}
    return [
        Row(
            str(feature),
            (
                Cell(
                    f"#{feature}",
                    "bold $foreground",
                    ((f"  {printable(name)}", "$accent"),)
                    if (name := str(names.get(feature) or names.get(str(feature)) or ""))
                    else (),
                ),
                Cell(number(cosines.get(feature), 2), "$accent"),
                Cell(number(sums.get(feature), 2), "$chart"),
            ),
        )
        for feature in dict.fromkeys((*cosines, *sums))
    ]


def features_title(found: Mapping[str, Any]) -> str:
    """Whose features they are, and how much of the vector their sum is."""
    features = found.get("features")
    if not isinstance(features, Mapping):
        return ""
    share = features.get("explained")
    part = f" · sum {100 * share:.0f}%" if isinstance(share, int | float) else ""
    return printable(f"Features of {features['sae_id']}{part}")


def _inside(found: Mapping[str, Any], width: int) -> tuple[Content, ...]:
    """The texts that the session found, and why it found no more."""
    parts = []
    features, texts = found.get("features"), found.get("texts")
    if isinstance(texts, Mapping):
        lines = [
            Content.assemble(
                (f"{number(one['projection'], 2):>6}  ", "$accent"),
                (f"{one['label']}  " if one.get("label") else "", "$muted"),
                ("…" if one.get("cut") else "") + printable(str(one["text"])),
            ).truncate(width, ellipsis=True)
            for one in texts["top"]
        ]
        title = f"Texts of {texts['run_id']} most along it"
        parts.append(section(printable(title), Content("\n").join(lines)))
    for key in ("features_why", "texts_why"):
        if found.get(key):
            parts.append(Content.styled(printable(str(found[key])), "$warning"))
    if not parts and not isinstance(features, Mapping):
        parts.append(Content.styled("there is no SAE and no run of its layer", "$muted"))
    return tuple(parts)
