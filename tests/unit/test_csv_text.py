"""CSV that no spreadsheet runs, and that comes back as it was."""

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mi_crow.clean_text import clean_text
from mi_crow.csv_text import LINE, WRONG, csv_rows, csv_text, harmless, original
from mi_crow.errors import UserError
from mi_crow.mechanistic.concepts.annotations import Annotations
from mi_crow.mechanistic.concepts.concept_files import read_csv_concepts, write_top_texts_csv

FORMULAS = [
    "=1+1",
    "+1",
    "-1",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    " =cmd|' /C calc'!A0",
    "\uff1d1",
    "\n=1",
]
APOSTROPHES = ["'", "''", "'=1", "''=1", "'tis", "it's"]

hostile = st.text(st.sampled_from("=+-@\t\r\n '\"a,;\u00a0\ufeff\uff1d\0"), max_size=6)


@pytest.mark.parametrize("cell", FORMULAS)
def test_no_cell_begins_as_a_formula(cell: str) -> None:
    assert harmless(cell) == f"'{cell}"
    assert original(harmless(cell)) == cell


@given(st.one_of(hostile, st.text()))
def test_a_cell_comes_back_as_it_was(cell: str) -> None:
    written = harmless(cell)
    assert original(written) == clean_text(cell)
    shown = written.lstrip(" \t\r\n\u00a0\ufeff\0")
    assert shown[:1] not in tuple("=+-@\uff1d")


@given(st.lists(st.tuples(hostile, hostile), max_size=4))
def test_a_table_comes_back_as_it_was(rows: list[tuple[str, str]]) -> None:
    text = csv_text(["a", "b"], rows)
    found = [(row["a"], row["b"]) for row in csv_rows(text, "it", [["a"]])]
    assert found == rows


def test_a_file_of_somebody_elses_is_read_as_it_stands() -> None:
    (row,) = csv_rows("name,note\n'tis,it's '=1\n", "it", [["name"]])
    assert (row["name"], row["note"]) == ("'tis", "it's '=1")


def test_numbers_stay_numbers() -> None:
    assert csv_text(["a"], [[-0.5], [3]]) == "a\n-0.5\n3\n"


def test_concepts_go_out_harmless_and_come_back(tmp_path: Path) -> None:
    annotations = Annotations(tmp_path / "a.sqlite")
    names = [name for name in (*FORMULAS, *APOSTROPHES) if name == name.strip()]
    for feature, name in enumerate(names):
        annotations.set_concept(name, feature, name, note=name, tags=(name,), source=name)
    annotations.set_concept("s", 99, "long", note="x" * 200_000)
    before = annotations.concepts()
    path = tmp_path / "c.csv"
    annotations.export(path)
    csv.field_size_limit(2**31 - 1)
    cells = [cell for row in csv.reader(io.StringIO(path.read_text())) for cell in row]
    csv.field_size_limit(131072)
    assert not [cell for cell in cells if cell.lstrip()[:1] in ("=", "+", "-", "@")]
    other = Annotations(tmp_path / "b.sqlite")
    other.import_(path)
    assert [(c.sae_id, c.feature, c.name, c.note, c.tags, c.source) for c in before] == [
        (c.sae_id, c.feature, c.name, c.note, c.tags, c.source) for c in other.concepts()
    ]


def test_top_texts_and_names_of_latents(tmp_path: Path) -> None:
    path = tmp_path / "top.csv"
    write_top_texts_csv(path, {3: [("=1+1", 0.5)]})
    assert path.read_text() == "feature,rank,activation,text\n3,0,0.5,'=1+1\n"
    path.write_text("feature,name\n3,'=1\n")
    assert read_csv_concepts(path)[3][0].name == "=1"


def test_a_missing_column_is_named() -> None:
    with pytest.raises(UserError, match="has no column 'feature'"):
        list(csv_rows("a,b\n1,2\n", "it", [["feature", "neuron_idx"]]))


@pytest.mark.parametrize("separator", ";\t")
def test_cells_separated_as_in_other_countries(separator: str) -> None:
    text = 'feature,name\r\n1,"a,;\tb"\r\n'.replace("e,n", f"e{separator}n").replace(
        '1,"', f'1{separator}"'
    )
    [row] = csv_rows(text, "it", [["feature"], ["name"]])
    assert (row["feature"], row["name"]) == ("1", "a,;\tb")


def test_a_header_of_nothing_known_is_refused_by_its_first_missing_column() -> None:
    with pytest.raises(UserError, match="it has no column 'name'"):
        list(csv_rows("feature;names\n1;a\n", "it", [["feature;names"], ["name"]]))
    with pytest.raises(UserError, match="it has no column 'feature'"):
        list(csv_rows("", "it", [["feature"], ["name"]]))


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ('feature,name\n3,a\n4,b\n5,"c"d\n6,e\n', 4, "expected"),
        ('feature,name\n3,"a\nb"\n5,"c"d\n6,e\n', 4, "expected"),
        ('feature,name\n3,a\n4,"b\n5,c\n', 3, "a quote is not closed"),
    ],
)
def test_what_is_not_csv_is_told_by_its_line_and_can_be_kept(
    text: str, line: int, says: str
) -> None:
    header = [["feature"], ["name"]]
    with pytest.raises(UserError, match=f"it line {line} is not valid CSV .*{says}"):
        list(csv_rows(text, "it", header))
    rows = list(csv_rows(text, "it", header, keep_wrong=True))
    [wrong] = [row for row in rows if WRONG in row]
    assert wrong[LINE] == line
    good = [row["feature"] for row in rows if WRONG not in row]
    assert good == (["3"] if "closed" in says else [*"346"] if '"a' not in text else ["3", "6"])


def test_a_name_of_two_columns_is_refused() -> None:
    with pytest.raises(UserError, match="it has two columns 'name'"):
        list(csv_rows("feature,name,Name\n1,a,b\n", "it", [["feature"], ["name"]]))
    [row] = csv_rows("feature,name,,\n1,a,,\n", "it", [["feature"], ["name"]])
    assert row["name"] == "a"
