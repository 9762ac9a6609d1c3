"""Numbers read well, and foreign text can neither move the cursor nor colour the screen."""

import json
import math
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mi_crow.cli import formatting as words
from mi_crow.cli.display import describe
from mi_crow.cli.tables import SHORTEST, Column, fit, print_facts, print_line, print_table


@pytest.mark.slow
@given(st.text())
def test_visible_text_is_printable_and_harmless_text_is_unchanged(text: str) -> None:
    shown = words.visible(text)
    assert not any(ord(c) < 32 or 0x7F <= ord(c) < 0xA0 for c in shown)
    assert len(shown) == len(text)
    if text.isascii() and text.isprintable():
        assert shown == text


def test_escape_sequences_and_direction_changes_become_symbols() -> None:
    assert words.visible("\x1b[2J\x07") == "␛[2J␇"
    assert words.visible("a\nb\tc\x7f") == "a␊b␉c␡"
    assert "\u202e" not in words.visible("\u202egpj.exe")
    assert words.visible("naïve 日本 👩‍🔬") == "naïve 日本 👩‍🔬"


@pytest.mark.parametrize(
    ("count", "expected"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (3_400_000, "3.4 MB"), (7e15, "7000.0 TB")],
)
def test_sizes(count: int, expected: str) -> None:
    assert words.size(count) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(None, "-"), (4.21, "4.2 s"), (59.4, "59.4 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")],
)
def test_durations(seconds: float | None, expected: str) -> None:
    assert words.duration(seconds) == expected


def test_readings() -> None:
    assert words.number(0.123456) == "0.1235"
    assert words.number(None) == "-"
    assert words.share(0.0123) == "1.23%"
    assert words.count(1234567) == "1,234,567"
    assert words.moment(None) == "-"
    t = datetime(2026, 3, 1, 12, 30).timestamp()
    assert words.moment(t) == "2026-03-01 12:30"


def test_json_never_holds_what_json_does_not_know() -> None:
    value = {"a": math.nan, "b": [math.inf, (1.5, None)], "c": {1: "é"}}
    assert json.loads(words.as_json(value)) == {
        "a": None,
        "b": [None, [1.5, None]],
        "c": {"1": "é"},
    }


def test_tables_show_data_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    print_table([Column("name"), Column("n", right=True)], [["[bold]x[/bold]\x1b[31m", "7"]])
    print_facts({"text": "[red]y[/red]"})
    print_line(":smile: [b]z[/b]")
    out = capsys.readouterr().out
    assert "[bold]x[/bold]␛[31m" in out
    assert "[red]y[/red]" in out
    assert ":smile: [b]z[/b]" in out
    assert "\x1b" not in out


def test_tables_fit_into_80_columns_by_shortening_what_may_be_shortened(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    columns = [Column("id"), Column("note", shorten=True), Column("size", right=True)]
    print_table(columns, [["20260301-120000-train", "x" * 200, "3.4 MB"]])
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert "20260301-120000-train" in lines[-1]
    assert "…" in lines[-1]
    assert lines[-1].endswith("3.4 MB")


def test_the_words_beside_the_bar() -> None:
    event = {"done": 1200, "total": 5000, "unit": "step", "eta_s": 61, "metrics": {"fvu": 0.12345}}
    assert describe(event, 80) == "1,200/5,000 step  1 min 1 s left  fvu 0.123"
    assert describe(event, 40) == "1,200/5,000 step  1 min 1 s left"
    assert describe(event, 5) == "1,200/5,000 step"
    assert describe({"done": 5, "total": 100, "unit": "%"}, 80) == ""
    assert describe({"done": 5, "total": 100, "unit": "%"}, 80, "training") == "training"
    assert describe(event, 50, "training") == "training  1,200/5,000 step  1 min 1 s left"


@given(
    needs=st.lists(st.tuples(st.integers(1, 60), st.booleans()), min_size=1, max_size=8),
    room=st.integers(10, 200),
)
def test_columns_fill_the_room_and_only_the_elastic_give_way(
    needs: list[tuple[int, bool]], room: int
) -> None:
    columns = [Column("", shorten=shorten) for _, shorten in needs]
    widths = fit(columns, [need for need, _ in needs], room)
    for (need, shorten), width in zip(needs, widths, strict=True):
        assert min(need, SHORTEST) <= width <= need
        assert shorten or width == need
    if sum(need for need, _ in needs) <= room:
        assert widths == [need for need, _ in needs]
    elif all(
        width > SHORTEST for (_, shorten), width in zip(needs, widths, strict=True) if shorten
    ):
        assert sum(widths) <= room or not any(shorten for _, shorten in needs)
