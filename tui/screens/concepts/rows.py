"""The list of concepts: rows, filter and the coverage line; pure."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from time import localtime, strftime
from typing import TYPE_CHECKING

from textual.content import Content

from tui.text import printable
from tui.widgets.lists.feature_columns import score
from tui.widgets.lists.row_list import Cell, Row

if TYPE_CHECKING:
    from mi_crow.mechanistic.concepts.annotations import Concept

HeldOut = Mapping[int, tuple[str, float | None]]  # feature -> the label it predicts, AUROC


@dataclass(frozen=True)
class ConceptsRead:
    """What the annotations and the index say about the concepts of one SAE."""

    sae_id: str | None
    concepts: "Sequence[Concept]" = ()
    held_out: HeldOut = field(default_factory=dict)
    alive: int | None = None


def key_of(concept: "Concept") -> str:
    """The key of a concept's row."""
    return f"{concept.feature}:{concept.name}"


def matching(concepts: "Sequence[Concept]", search: str) -> "list[Concept]":
    """The concepts that contain every word of `search`, or whose number it is."""
    words = search.lower().split()
    number_word = "".join(words).removeprefix("#")

    def matches(concept: "Concept") -> bool:
        if number_word == str(concept.feature):
            return True
        text = " ".join((concept.name, concept.note, *concept.tags)).lower()
        return all(word in text for word in words)

    return [concept for concept in concepts if matches(concept)]


def concept_rows(
    concepts: "Sequence[Concept]", held_out: HeldOut, marked: Container[str]
) -> list[Row]:
    """One row per concept; a dot before those that are marked."""
    return [_row(concept, held_out, key_of(concept) in marked) for concept in concepts]


def _row(concept: "Concept", held_out: HeldOut, is_marked: bool) -> Row:
    label, auroc = held_out.get(concept.feature, ("", None))
    words = printable(concept.name)
    name = Cell("● " if is_marked else "", "$accent", ((words, "$foreground"),), words.casefold())
    return Row(
        key_of(concept),
        (
            name,
            Cell(f"#{concept.feature}", "$primary", value=concept.feature),
            Cell(f"{concept.confidence:.1f}", "$muted", value=concept.confidence),
            Cell(score(auroc), "$secondary" if auroc is not None else "$faint", value=auroc),
            Cell(printable(label) or "–", "$muted" if label else "$faint"),
            Cell(printable(concept.note), "$muted"),
            Cell(printable(concept.source), "$faint"),
            Cell(strftime("%Y-%m-%d", localtime(concept.updated)), "$faint", value=concept.updated),
            Cell(printable(" ".join(f"#{tag}" for tag in concept.tags)), "$secondary"),
        ),
    )


def coverage(named: int, alive: int | None, marked: int, search: str) -> Content:
    """How much of the SAE has a name: `12 of 1,904 firing features named · 0.6%`."""
    parts: list[tuple[str, str]] = [("Concepts", "bold $primary"), ("  ", "")]
    if alive:
        parts += [
            (f"{named:,}", "$foreground"),
            (f" of {alive:,} firing features named", "$muted"),
            (" · ", "$faint"),
            (f"{100 * named / alive:.1f}%", "$accent"),
        ]
    else:
        parts.append((f"{named:,} features named", "$muted"))
    if search:
        parts += [(" · ", "$faint"), (f"“{printable(search)}”", "$accent")]
    if marked:
        parts += [(" · ", "$faint"), (f"{marked} marked", "$accent")]
    return Content.assemble(" ", *parts)
