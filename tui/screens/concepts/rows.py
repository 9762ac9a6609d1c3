"""The list of concepts: rows, filter and the coverage line; pure."""

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from time import localtime, strftime
from typing import TYPE_CHECKING, Final

from textual.content import Content

from tui.text import printable
from tui.widgets.lists.feature_columns import score
from tui.widgets.lists.row_list import Cell, value_of

if TYPE_CHECKING:
    from mi_crow.mechanistic.concepts.annotations import Concept
    from mi_crow.mechanistic.concepts.coverage import ConceptFacts, Coverage

HeldOut = Mapping[int, tuple[str, float | None]]  # feature -> the label it predicts, AUROC


@dataclass(frozen=True, eq=False)
class ConceptsRead:
    """What the annotations and the index say about the concepts of one SAE."""

    sae_id: str | None
    concepts: "Sequence[Concept]" = ()
    held_out: HeldOut = field(default_factory=dict)
    alive: int | None = None
    facts: "Mapping[int, ConceptFacts]" = field(default_factory=dict)
    coverage: "Coverage | None" = None
    several: bool = False  # whether the SAE is over several layers


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
) -> "list[ConceptRow]":
    """One row per concept; a dot before those that are marked."""
    read = read or ConceptsRead(None)
    return [ConceptRow(one, read, key_of(one) in marked) for one in concepts]


@dataclass(frozen=True, slots=True)
class ConceptRow:
    """One row of the list, whose cells are made when they are looked at: those of 20,000 names
    would take 13 MB."""

    concept: "Concept"
    read: ConceptsRead
    is_marked: bool

    @property
    def facts(self) -> "ConceptFacts | None":
        return self.read.facts.get(self.concept.feature)

    @property
    def held_out(self) -> tuple[str, float | None] | None:
        return self.read.held_out.get(self.concept.feature)

    @property
    def key(self) -> str:
        return key_of(self.concept)

    @property
    def cells(self) -> tuple[Cell, ...]:
        return tuple(make(self) for make in _CELLS)

    def value(self, place: int) -> float | str | None:
        return value_of(_CELLS[place](self))


def _name(row: ConceptRow) -> Cell:
    words = printable(row.concept.name)
    mark = "● " if row.is_marked else ""
    return Cell(mark, "$accent", ((words, "$foreground"),), words.casefold())


def _number(row: ConceptRow) -> Cell:
    return Cell(f"#{row.concept.feature}", "$primary", value=row.concept.feature)


def _confidence(row: ConceptRow) -> Cell:
    return _shared(f"{row.concept.confidence:.1f}", "$muted", row.concept.confidence)


def _auroc(row: ConceptRow) -> Cell:
    return _scored(row.held_out[1] if row.held_out is not None else None)


def _density(row: ConceptRow) -> Cell:
    return _share(row.facts.density if row.facts is not None else None)


def _covers(row: ConceptRow) -> Cell:
    return _share(row.facts.covers if row.facts is not None else None)


def _name_score(row: ConceptRow) -> Cell:
    """Of the proposed name; faint beside another, as on Features."""
    facts = row.facts
    if facts is None or facts.score is None:
        return _scored(None)
    style = "$secondary" if facts.is_scored(row.concept.name) else "$faint"
    return _shared(f"{'d ' if facts.explained else ''}{score(facts.score)}", style, facts.score)


def _label(row: ConceptRow) -> Cell:
    label = row.held_out[0] if row.held_out is not None else ""
    return _shared(f" {printable(label)}" if label else " –", "$muted" if label else "$faint")


def _tags(row: ConceptRow) -> Cell:
    return _shared(printable(" ".join(f"#{tag}" for tag in row.concept.tags)), "$secondary")


def _note(row: ConceptRow) -> Cell:
    return Cell(printable(row.concept.note), "$muted")


def _source(row: ConceptRow) -> Cell:
    return _shared(printable(row.concept.source), "$faint")


def _changed(row: ConceptRow) -> Cell:
    return _shared(_day(row.concept.updated), "$faint", row.concept.updated)


def _kind(row: ConceptRow) -> Cell:
    return _shared(row.facts.kind if row.facts is not None else "", "$muted")


def _layer(row: ConceptRow) -> Cell:
    return _shared(printable(row.facts.layer) if row.facts is not None else "", "$muted")


_CELLS: Final[tuple[Callable[[ConceptRow], Cell], ...]] = (
    _name,
    _number,
    _confidence,
    _auroc,
    _density,
    _covers,
    _name_score,
    _label,
    _tags,
    _note,
    _source,
    _changed,
    _kind,
    _layer,
)


@lru_cache(256)
def _shared(text: str, style: str, value: float | None = None) -> Cell:
    """A cell that many rows have: a page of names says the same of most things."""
    return Cell(text, style, value=value)


@lru_cache(256)
def _day(seconds: float) -> str:
    return strftime("%Y-%m-%d", localtime(seconds))


def _scored(value: float | None) -> Cell:
    return _shared(score(value), "$secondary" if value is not None else "$faint", value)


def _share(value: float | None) -> Cell:
    """A share in percent, with as many digits as say something."""
    if value is None:
        return _shared("–", "$faint")
    return _shared(percent(value), "$muted", value)


def percent(value: float) -> str:
    """`0.013%`, `0.31%`, `1.3%`, `13%`."""
    shown = float(f"{value:.2g}")  # 0.0996 is 10%, not 10.0%
    digits = sum(shown < step for step in (0.1, 0.01, 0.001)) if value else 0
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
