"""Text from data is shown as data; numbers are shown as people read them."""

import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tui.text import brief, count, duration, number, printable, short_moment, size


@given(st.text())
def test_printable_text_moves_no_cursor_and_keeps_every_position(text: str):
    shown = printable(text)
    assert len(shown) == len(text)
    assert all(c.isprintable() or unicodedata.category(c) == "Zs" for c in shown)


def test_control_characters_are_seen():
    assert printable("a\nb\tc\x1b[31m\x00") == "a⏎b⇥c␛[31m␀"
    assert printable("a\nb", keep_newlines=True) == "a\nb"


def test_markup_and_other_scripts_stay_as_they_are():
    assert printable("[bold]x[/bold] здравствуй 你好") == "[bold]x[/bold] здравствуй 你好"


def test_right_to_left_overrides_are_defused():
    assert "\u202e" not in printable("abc\u202edef")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (950, "950"),
        (9501, "9,501"),
        (21_440, "21.4k"),
        (999_999, "1.00M"),
        (1_250_000, "1.25M"),
        (3_100_000_000, "3.10G"),
    ],
)
def test_count(value: int, text: str):
    assert count(value) == text


@given(st.integers(min_value=0, max_value=10**14))
def test_a_count_fits_five_characters(value: int):
    assert len(count(value)) <= 5


@pytest.mark.parametrize(
    ("value", "text"), [(812, "812 B"), (4_100_000, "4.1 MB"), (2.3e10, "23.0 GB")]
)
def test_size(value: float, text: str):
    assert size(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(8, "8s"), (177, "2m 57s"), (1500, "25m"), (7500, "2h 05m"), (100_000, "1d 3h")],
)
def test_duration(value: float, text: str):
    assert duration(value) == text


def test_of_a_long_sentence_what_it_says_is_kept():
    short = "'rain' is not a number; " * 5
    assert brief(short) == short
    assert brief(f"{'x' * 5000!r} is not a number") == f"'{'x' * 79}…' is not a number"
    assert brief("x" * 5000, 50) == "x" * 49 + "…"


def test_a_missing_number_is_a_dash():
    assert number(None) == number(float("nan")) == "–"
    assert number(0.12345) == "0.123"


def test_a_moment_of_today_is_a_time_and_any_other_one_a_day(monkeypatch):
    noon = 1_790_000_000.0 - 1_790_000_000.0 % 86400 + 43_200
    monkeypatch.setattr("tui.text.localtime", lambda t=noon: time.gmtime(t))
    assert short_moment(noon - 3600) == "11:00"
    assert short_moment(noon - 43_200) == "00:00"
    assert short_moment(noon - 43_201) == "09-20"
    assert short_moment(noon + 43_200) == "09-22"
    assert short_moment(noon - 365 * 86_400) == "09-21"  # of last year
