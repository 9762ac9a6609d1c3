"""The list of concepts: rows, filter and the coverage line; pure."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from time import localtime, strftime
from typing import TYPE_CHECKING

from textual.content import Content

from tui.text import printable
from tui.widgets.lists.feature_columns import score
from tui.widgets.lists.row_list import Cell, Row

if TYPE_CHECKING:
    from mi_crow.mechanistic.concepts.annotations import Concept
    from mi_crow.mechanistic.concepts.coverage import ConceptFacts, Coverage

HeldOut = Mapping[int, tuple[str, float | None]]  # feature -> the label it predicts, AUROC


@dataclass(frozen=True)
class ConceptsRead:
    """What the annotations and the index say about the concepts of one SAE."""

    sae_id: str | None
    concepts: "Sequence[Concept]" = ()
    held_out: HeldOut = field(default_factory=dict)
    alive: int | None = None
    facts: "Mapping[int, ConceptFacts]" = field(default_factory=dict)
    coverage: "Coverage | None" = None


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
        tags = (f"#{tag}" for tag in concept.tags)
        text = " ".join((concept.name, concept.note, *tags)).lower()
        return all(word in text for word in words)

    return [concept for concept in concepts if matches(concept)]


def concept_rows(
    concepts: "Sequence[Concept]", read: ConceptsRead | None, marked: Container[str]
) -> list[Row]:
    """One row per concept; a dot before those that are marked."""
    read = read or ConceptsRead(None)
    return [_row(concept, read, key_of(concept) in marked) for concept in concepts]


def _row(concept: "Concept", read: ConceptsRead, is_marked: bool) -> Row:
    label, auroc = read.held_out.get(concept.feature, ("", None))
    facts = read.facts.get(concept.feature)
    known = facts.score if facts is not None else None
    words = printable(concept.name)
    name = Cell("● " if is_marked else "", "$accent", ((words, "$foreground"),), words.casefold())
    return Row(
        key_of(concept),
        (
            name,
            Cell(f"#{concept.feature}", "$primary", value=concept.feature),
            _shared(f"{concept.confidence:.1f}", "$muted", concept.confidence),
            _shared(score(auroc), "$secondary" if auroc is not None else "$faint", auroc),
            _share(facts.density if facts is not None else None),
            _share(facts.covers if facts is not None else None),
            _shared(score(known), "$secondary" if known is not None else "$faint", known),
            _shared(f" {printable(label)}" if label else " –", "$muted" if label else "$faint"),
            _shared(printable(" ".join(f"#{tag}" for tag in concept.tags)), "$secondary"),
            _shared(printable(concept.note), "$muted"),
            _shared(printable(concept.source), "$faint"),
            _shared(_day(concept.updated), "$faint", concept.updated),
            _shared(facts.kind if facts is not None else "", "$muted"),
        ),
    )


@lru_cache(4096)
def _shared(text: str, style: str, value: float | None = None) -> Cell:
    """A cell that many rows have: of 20,000 names, most say the same of most things."""
    return Cell(text, style, value=value)


@lru_cache(4096)
def _day(seconds: float) -> str:
    return strftime("%Y-%m-%d", localtime(seconds))


def _share(value: float | None) -> Cell:
    """A share in percent, with as many digits as say something."""
    if value is None:
        return _shared("–", "$faint")
    return _shared(percent(value), "$muted", value)


def percent(value: float) -> str:
    """`0.013%`, `0.31%`, `1.3%`, `13%`."""
    steps = (0.1, 0.01, 0.001)
    digits = sum(value < step for step in steps) if value else 0
    return f"{100 * value:.{digits}f}%"


def coverage(
    named: int,
    alive: int | None,
    marked: int,
    search: str,
    found: "Coverage | None" = None,
    room: int = 200,
) -> Content:
    """How much of the SAE has a name: `12 of 1,904 firing features named · 0.6% · 8% of firings ·
    23% of texts`, as much of it as there is room for."""
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
    told: list[tuple[str, str]] = []
    if search:
        told += [(" · ", "$faint"), (f"“{printable(search)}”", "$accent")]
    if marked:
        told += [(" · ", "$faint"), (f"{marked} marked", "$accent")]
    if found is not None:
        for share, of in (
            (found.firings, " of firings"),
            (found.strongest, " of texts by their strongest feature"),
        ):
            more = [(" · ", "$faint"), (percent(share), "$accent"), (of, "$muted")]
            if Content.assemble(" ", *parts, *more, *told).cell_length > room:
                break
            parts += more
    return Content.assemble(" ", *parts, *told)
