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
from mi_crow.progress import done_of


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
    assert [words.number(one) for one in (80945.4, -9850.0, 999.94)] == [
        "80,945",
        "-9,850",
        "999.9",
    ]
    assert words.number(float("inf")) == "inf"
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
    assert describe(event, 80) == "1,200 of 5,000 steps  1 min 1 s left  FVU 0.123"
    assert describe(event, 40) == "1,200 of 5,000 steps  1 min 1 s left"
    assert describe(event, 5) == "1,200 of 5,000 steps"
    assert describe({"done": 5, "total": 100, "unit": "%"}, 80) == ""
    assert describe({"done": 5, "total": 100, "unit": "%"}, 80, "training") == "training"
    assert describe(event, 50, "training") == "training  1,200 of 5,000 steps  1 min 1 s left"


def test_a_loss_that_is_the_fvu_is_said_once() -> None:
    event = {"done": 1, "total": 9, "unit": "step", "metrics": {"fvu": 0.5, "loss": 0.5}}
    assert describe(event, 80) == "1 of 9 steps  FVU 0.5"
    event["metrics"] = {"fvu": 0.5, "loss": 0.7}
    assert describe(event, 80) == "1 of 9 steps  FVU 0.5  loss 0.7"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("fvu", 0.11834, "FVU 0.118"),
        ("dead_share", 0.0312, "dead 3.12%"),
        ("tokens_s", 78_713.4, "78,713 tokens/s"),
        ("gpu_memory_peak", 1.2e9, "peak GPU memory 1.2 GB"),
        ("lambda_l1", 1e-5, "lambda l1 1e-05"),
    ],
)
def test_a_jobs_metrics_are_said_in_words(name: str, value: float, expected: str) -> None:
    assert words.reading(name, value) == expected


@pytest.mark.parametrize(
    ("done", "total", "unit", "expected"),
    [
        (1200, 5000, "step", "1,200 of 5,000 steps"),
        (0, 1, "document", "0 of 1 document"),
        (3, 12, "batch", "3 of 12 batches"),
        (1, 1, "batch", "1 of 1 batch"),
        (2, 9, "try", "2 of 9 tries"),
        (2.0, 9.0, "MB", "2 of 9 MB"),
        (48, 100, "%", "48%"),
    ],
)
def test_how_far_work_is(done: float, total: float, unit: str, expected: str) -> None:
    assert done_of(done, total, unit) == expected


def test_columns_move_together_where_a_text_would_be_cut(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "21")
    print_table([">n", "name…"], [["1", "0123456789abcdef"]])
    print_table([">n", "name…"], [["1", "0123456789abcdefghi"]])
    rows = [line for line in capsys.readouterr().out.splitlines() if "0" in line]
    assert [row.rstrip() for row in rows] == ["1   0123456789abcdef", "1  0123456789abcdefg…"]


def test_a_row_that_is_wider_than_the_terminal_is_a_list(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    print_table(["id", ">size", "when"], [["first", "3.4 MB", "2026-03-01"], ["x", "", "today"]])
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        "id    first",
        "size  3.4 MB",
        "when  2026-03-01",
        "",
        "id    x",
        "when  today",
    ]


def test_such_a_list_has_the_cells_of_columns_of_one_name(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "12")
    tokens = [Column(token, right=True) for token in ("the", "sea", "the")]
    print_table(["at", *tokens], [["resid_post.0", "10%", "20%", "30%"]])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[-3:] == [["the", "10%"], ["sea", "20%"], ["the", "30%"]]


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
