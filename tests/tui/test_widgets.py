"""The frame's widgets: lists, plots, facts, forms, log."""

import math

from hypothesis import given
from hypothesis import strategies as st
from textual.app import App, ComposeResult

from mi_crow.errors import UserError
from tests.tui.driving import press, screen_text, settle
from tui.text import progress_bar
from tui.themes.named import DEFAULT, theme
from tui.widgets.facts import Fact, facts_content
from tui.widgets.forms.fields import FormField
from tui.widgets.forms.line import FormInput
from tui.widgets.forms.popup import FormPopup
from tui.widgets.lists.row_list import Cell, Column, Row, RowList
from tui.widgets.plot import Axis, Curve, Mark, chart
from tui.widgets.sharing import share_heights

finite = st.floats(allow_nan=False, allow_infinity=False, width=32)


@given(
    st.lists(st.tuples(finite, finite), min_size=1, max_size=200),
    st.integers(16, 80),
    st.integers(2, 12),
)
def test_a_chart_has_the_size_it_was_given(points, width, height):
    axis = Axis("", "{:.3g}".format)
    curve = Curve(tuple(sorted(points)))
    lines = chart(axis, axis, width + 30, height, [curve], [Mark(points[0])])
    assert len(lines) == height + 1
    assert {line.cell_length for line in lines} == {width + 30}


def test_a_chart_falls_where_its_values_fall_and_names_its_ends():
    x, y = Axis("step", "{:.0f}".format, 0, 100), Axis("FVU", "{:.1f}".format, 0.0)
    lines = chart(x, y, 30, 4, [Curve(((0.0, 1.0), (100.0, 0.0)))])
    assert lines[0].plain.startswith("1.0 │")
    assert lines[3].plain.startswith("0.0 │")
    assert lines[0].plain[5] > "\u2800"
    assert lines[3].plain[-1] > "\u2800"
    assert lines[0].plain[-1] == " "
    assert lines[3].plain[5] == " "
    assert lines[4].plain.split() == ["0", "step", "100"]
    assert chart(x, y, 30, 4, [Curve(((math.nan, 1.0),))]) == []


def test_named_marks_at_one_place_are_beside_each_other():
    x, y = Axis("L0", str, 0.0, 64.0), Axis("FVU", str, 0.0, 1.0)
    for at in (0.0, 32.0, 64.0):
        marks = [Mark((at, 0.5)), *(Mark((at, 0.5), sign, named=True) for sign in "ABCD")]
        (line,) = [one for one in chart(x, y, 40, 5, [], marks) if "A" in one.plain]
        assert sorted(line.plain.split("│")[1].strip(" ┈")) == ["A", "B", "C", "D"]


def test_a_new_point_changes_only_the_lines_it_is_on():
    x, y = Axis("step", "{:.0f}".format, 0, 100), Axis("FVU", "{:.1f}".format, 0.0)
    points = tuple((float(step), 1 - step / 100) for step in range(0, 50, 5))
    before = chart(x, y, 60, 8, [Curve(points)])
    after = chart(x, y, 60, 8, [Curve((*points, (50.0, 0.5)))])
    changed = [a for a, b in zip(before, after, strict=True) if not a.is_same(b)]
    assert 1 <= len(changed) <= 2


@given(st.floats(0, 1), st.integers(1, 80))
def test_a_bar_fills_its_width(share, width):
    done, left = progress_bar(share, width)
    assert len(done) + len(left) == width


@given(st.integers(3, 60), st.lists(st.integers(1, 200), min_size=3, max_size=3))
def test_lists_share_all_lines_and_none_gets_more_than_it_needs_but_the_last(available, needs):
    heights = share_heights(available, needs)
    assert available - 2 <= sum(heights) <= available
    assert all(height <= need for height, need in zip(heights[:-1], needs[:-1], strict=True))
    assert all(
        height >= min(need, available // 3) for height, need in zip(heights, needs, strict=True)
    )


def test_long_values_wrap_under_themselves():
    text = facts_content([Fact("model", "one two three")], 8, 16).plain
    assert text == "model   one two\n        three"


def test_a_name_too_long_for_its_column_stays_apart_from_its_value():
    text = facts_content([Fact("checkpoint_minutes", "10"), Fact("k", "32")], 17, 34).plain
    assert text == "checkpoint_minutes 10\nk                32"


class Bare(App[None]):
    """An app with our theme and nothing else."""

    CSS_PATH = "../../tui/app.tcss"

    def get_theme_variable_defaults(self) -> dict[str, str]:
        return theme(DEFAULT).variables


class OneList(Bare):
    """Just a list."""

    def compose(self) -> ComposeResult:
        yield RowList([Column("name"), Column("n", 6, "right")], empty="nothing")

    def on_mount(self) -> None:
        self.query_one(RowList).focus()


def fifty(prefix: str = "row") -> list[Row]:
    return [Row(f"{prefix}-{i}", (Cell(f"{prefix} {i} [b]x[/b]"), Cell(str(i)))) for i in range(50)]


async def test_a_list_moves_with_the_keys_of_the_table():
    app = OneList()
    async with app.run_test(size=(40, 11)) as pilot:
        rows = app.query_one(RowList)
        rows.set_rows(fifty())
        await settle(pilot)
        for key, expected in [
            ("j", "row-1"),
            ("k", "row-0"),
            ("G", "row-49"),
            ("g", "row-0"),
            ("ctrl+d", "row-10"),
            ("ctrl+u", "row-0"),
            ("down", "row-1"),
            ("end", "row-49"),
        ]:
            await press(pilot, key)
            assert rows.key == expected, key
        assert "row 49 [b]x[/b]" in screen_text(pilot)  # scrolled to, and markup is only text


async def test_numbers_stand_under_each_other():
    app = OneList()
    async with app.run_test(size=(40, 11)) as pilot:
        app.query_one(RowList).set_rows(fifty())
        await settle(pilot)
        await press(pilot, *"jjjjjjjjjjj")
        ends = {len(line[:38].rstrip()) for line in screen_text(pilot).splitlines()}
        assert len(ends) == 1


async def test_the_cursor_stays_on_its_row_when_rows_come_and_go():
    app = OneList()
    async with app.run_test(size=(40, 11)) as pilot:
        rows = app.query_one(RowList)
        rows.set_rows(fifty())
        await press(pilot, "j", "j", "j")
        rows.set_rows([Row("new", (Cell("new"),)), *fifty()])
        await settle(pilot)
        assert rows.key == "row-3"
        rows.set_rows(fifty()[:2])
        await settle(pilot)
        assert rows.key == "row-1"
        rows.set_rows([])
        await settle(pilot)
        assert rows.key is None
        assert "nothing" in screen_text(pilot)


def asks(submit) -> FormPopup:
    fields = [
        FormField("model", "model", "", "which one", ("sample", "smol")),
        FormField("limit", "documents", "12"),
    ]
    return FormPopup("Ask", fields, submit)


async def test_a_form_hands_over_its_texts_and_closes():
    app, got, results = Bare(), [], []

    def submit(values):
        got.append(dict(values))
        return "job-1"

    async with app.run_test() as pilot:
        app.push_screen(asks(submit), results.append)
        await settle(pilot)
        await press(pilot, "down", "down", "enter", "ctrl+r")
        assert got == [{"model": "smol", "limit": "12"}]
        assert results == ["job-1"]


async def test_a_form_shows_one_sentence_and_stays_open():
    def submit(values):
        raise UserError("k = 64 is more than n_latents = 32 [b]", hint="lower k")

    app = Bare()
    async with app.run_test() as pilot:
        app.push_screen(asks(submit))
        await settle(pilot)
        await press(pilot, "ctrl+r")
        assert "k = 64 is more than n_latents = 32 [b]; lower k" in screen_text(pilot)
        await press(pilot, "escape")
        assert not isinstance(app.screen, FormPopup)


async def test_ghost_text_is_taken_with_tab_only_while_it_shows():
    app = Bare()
    async with app.run_test() as pilot:
        app.push_screen(asks(lambda values: ""))
        await settle(pilot)
        await press(pilot, "s", "m", "tab")
        first = app.screen.query(FormInput).first()
        assert first.value == "smol"
        assert first.has_focus
        await press(pilot, "tab")
        assert not first.has_focus


async def test_enter_goes_on_to_the_next_field_and_the_button_starts():
    app, results = Bare(), []
    async with app.run_test() as pilot:
        app.push_screen(asks(lambda values: "job-2"), results.append)
        await settle(pilot)
        await press(pilot, "enter", "enter", "enter")
        assert results == ["job-2"]


async def test_enter_answers_a_form_of_one_question():
    app, results = Bare(), []
    async with app.run_test() as pilot:
        fields = [FormField("name", "new name", "smol")]
        app.push_screen(FormPopup("Rename", fields, dict, "Rename"), results.append)
        await settle(pilot)
        await press(pilot, "end", "2", "enter")
        assert results == [{"name": "smol2"}]
