"""The list of concepts: filter, marks and coverage."""

from dataclasses import replace

import pytest

from mi_crow.mechanistic.concepts.annotations import Concept
from mi_crow.mechanistic.concepts.coverage import ConceptFacts
from tui.preferences.list_columns import CONCEPT_COLUMNS
from tui.screens.concepts.rows import ConceptsRead, concept_rows, coverage, key_of, matching
from tui.widgets.lists.row_list import value_of


def named(feature: int, name: str, note: str = "", tags: tuple[str, ...] = ()) -> Concept:
    return Concept("demo", feature, name, 1.0, note, tags, "user", 0.0, 1_790_000_000.0)


CONCEPTS = [
    named(42, "sails and masts", "the parts, not the ship"),
    named(7, "numbers in recipes", tags=("register",)),
    named(420, "harbours"),
]


@pytest.mark.parametrize(
    ("search", "features"),
    [
        ("", [42, 7, 420]),
        ("SAIL", [42]),
        ("parts ship", [42]),
        ("register", [7]),
        ("#regi", [7]),
        ("42", [42]),
        ("#420", [420]),
        ("nothing", []),
    ],
)
def test_the_filter_reads_names_notes_tags_and_numbers(search: str, features: list[int]):
    assert [one.feature for one in matching(CONCEPTS, search)] == features


def test_rows_show_the_held_out_score_and_the_mark():
    held_out = {42: ("sailing", 0.957)}
    marked = {key_of(CONCEPTS[0])}
    own = CONCEPTS[0].name
    facts = {42: ConceptFacts(0.0123, 0.2, 0.9, "token", proposed=own)}
    read = ConceptsRead("demo", CONCEPTS, held_out, facts=facts)
    first, second, _ = concept_rows(CONCEPTS, read, marked)
    texts = [cell.text + "".join(more for more, _ in cell.more) for cell in first.cells]
    assert texts[:5] == ["● sails and masts", "#42", "1.0", "0.96", "1.2%"]
    assert texts[5:8] == ["20%", "0.90", " sailing"]
    # The score is faint beside a name that it is not of; detection has its mark.
    for changed, told in (
        (facts[42], ("0.90", "$secondary")),
        (replace(facts[42], proposed=""), ("0.90", "$faint")),
        (replace(facts[42], explained=True), ("d 0.90", "$secondary")),
    ):
        other = concept_rows(CONCEPTS, replace(read, facts={42: changed}), marked)[0]
        assert (other.cells[6].text, other.cells[6].style) == told
    assert second.cells[0].text == ""
    assert second.cells[3].text == "–"


def test_an_order_asks_for_the_values_of_one_column():
    read = ConceptsRead("demo", CONCEPTS, facts={7: ConceptFacts(0.3, 0.1, None, "")})
    rows = concept_rows(CONCEPTS, read, ())
    assert [row.value(0) for row in rows] == [one.name for one in CONCEPTS]
    assert [row.value(4) for row in rows] == [None, 0.3, None]
    cells = rows[1].cells
    assert len(cells) == len(CONCEPT_COLUMNS)
    assert [value_of(cell) for cell in cells] == [rows[1].value(at) for at in range(len(cells))]


def test_coverage_counts_named_features_among_those_that_fire():
    assert "12 of 1,900 firing features named · 0.6%" in coverage(12, 1900, 0, "").plain


def test_coverage_without_an_index_gives_no_share():
    text = coverage(12, None, 2, "sail").plain
    assert "%" not in text
    assert "“sail”" in text
    assert "2 marked" in text
