"""Token heat: every character survives wrapping, and no step relies on colour alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from tui.text import printable
from tui.themes.named import OWN, theme
from tui.themes.readable import HEAT_STEPS
from tui.widgets.histogram import histogram_lines
from tui.widgets.token_heat import (
    HeatMarks,
    Piece,
    heat_line,
    heat_step,
    heat_style,
    peak_index,
    quoted,
    token_window,
    wrap_tokens,
)

TOKENS = st.lists(st.text(alphabet="ab é漢\n\x1b[]", max_size=6), max_size=30)


@given(TOKENS, st.integers(2, 40))
def test_wrapping_keeps_every_character_but_overhanging_spaces(tokens: list[str], width: int):
    lines = wrap_tokens(tokens, width)
    shown = "".join(piece.text for line in lines for piece in line)
    wanted = "".join(printable(token) for token in tokens)
    assert shown.replace(" ", "") == wanted.replace(" ", "")
    for line in lines:
        assert cell_len("".join(piece.text for piece in line)) <= width
        for piece in line:
            assert piece.text in printable(tokens[piece.index])


def test_lines_break_between_words_and_after_a_line_feed():
    lines = wrap_tokens(["The", " har", "bour", " is", "\n", "calm"], 11)
    shown = ["".join(piece.text for piece in line) for line in lines]
    assert shown == ["The harbour", "is⏎", "calm"]


@given(st.floats(0, 1e6), st.floats(1e-6, 1e6))
def test_steps_cover_the_ramp_in_order(value: float, peak: float):
    step = heat_step(value, peak)
    assert 0 <= step <= HEAT_STEPS
    assert heat_step(value / 2, peak) <= step
    assert (step == 0) == (value == 0)


def test_nothing_is_hot_where_nothing_is_a_number():
    assert heat_step(float("nan"), 1.0) == 0
    assert heat_step(1.0, 0.0) == 0
    assert heat_step(-1.0, 1.0) == 0


def test_the_attribute_ramp_has_four_looks_and_no_colour():
    looks = [heat_style(step, "attributes") for step in range(HEAT_STEPS + 1)]
    assert list(dict.fromkeys(looks)) == ["", "underline", "bold", "bold reverse"]


@pytest.mark.parametrize("name", OWN)
def test_each_colour_step_names_its_own_text_colour(name: str):
    for step in range(1, HEAT_STEPS + 1):
        assert heat_style(step) == f"$heat-{step}-text on $heat-{step}"
        assert {f"heat-{step}", f"heat-{step}-text"} <= set(theme(name).variables)


def test_markup_in_a_token_stays_text():
    line = heat_line([Piece(0, "[red]"), Piece(1, " x")], [1.0, 0.0], 1.0)
    assert line.plain == "[red] x"


def test_space_around_a_hot_word_stays_plain():
    line = heat_line([Piece(0, " mast ")], [1.0], 1.0)
    (span,) = line.spans
    assert (span.start, span.end) == (1, 5)


def test_peak_cursor_and_dimmed_tokens_stand_out():
    pieces = [Piece(i, text) for i, text in enumerate("abc")]
    marks = HeatMarks(peak=0, cursor=1, dimmed=frozenset({2}))
    styles = [str(span.style) for span in heat_line(pieces, [3, 0, 3], 3.0, marks=marks).spans]
    assert "underline" in styles[0]
    assert "bold" in styles[0]
    assert "reverse" in styles[1]
    assert "heat" not in styles[2]


def test_the_peak_is_the_greatest_value_above_zero():
    assert peak_index([0.0, 2.0, 1.0]) == 1
    assert peak_index([0.0, -1.0]) is None
    assert peak_index([]) is None


def test_a_quoted_token_loses_its_leading_space_only():
    assert quoted(" mast") == "“mast”"
    assert quoted("\n") == "“⏎”"
    assert quoted(" ") == "“ ”"


@given(st.lists(st.text("ab ", min_size=1, max_size=8), min_size=1), st.data())
def test_a_window_holds_the_peak_and_fits(texts: list[str], data):
    peak = data.draw(st.integers(0, len(texts) - 1))
    cells = data.draw(st.integers(10, 80))
    start, stop = token_window(texts, peak, cells)
    assert 0 <= start <= peak < stop <= len(texts)
    assert cell_len("".join(texts[start:stop])) <= cells


@given(
    st.lists(st.integers(0, 100_000), min_size=1, max_size=80),
    st.integers(1, 60),
    st.integers(1, 8),
)
def test_a_histogram_fits_and_shows_every_filled_bin(counts: list[int], width: int, height: int):
    lines = histogram_lines(counts, width, height)
    assert len(lines) == height
    assert all(len(line) == len(lines[0]) <= width for line in lines)
    assert (lines[-1].strip() != "") == any(counts)


def test_a_histogram_is_as_high_as_its_fullest_bin():
    assert histogram_lines([0, 1, 1000], 3, 2) == ["  █", " ▂█"]
