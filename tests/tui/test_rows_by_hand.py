"""Rows that are put together by hand are what Textual's own ways make of them."""

from hypothesis import given, settings
from hypothesis import strategies as st
from rich.segment import Segment
from textual.app import App
from textual.content import Content, Span
from textual.strip import Strip
from textual.style import Style

from tui.widgets.lists.line_view import LineView
from tui.widgets.lists.row_list import Cell, Column, Row, RowList, fitted

_TEXTS = st.text(st.sampled_from("ab c,-│é漢🙂\u0301\t\x07\n"), max_size=12)
_STYLES = st.sampled_from(["", "bold", "red", "$primary", "italic on blue", "$muted"])
_CELLS = st.builds(
    Cell, _TEXTS, _STYLES, st.lists(st.tuples(_TEXTS, _STYLES), max_size=2).map(tuple)
)
_COLUMNS = (Column("one", 6), Column("two", 5, "right"), Column("three"))


class _Wide(RowList):
    """A list of 30 cells without a screen."""

    @property
    def text_width(self) -> int:
        return 30


class _Lines(App[None]):
    def compose(self):
        yield LineView()


@given(st.tuples(_CELLS, _CELLS, _CELLS), st.sampled_from(" ▌"))
@settings(deadline=None)
def test_a_row_is_its_cells_one_after_the_other(cells, marker):
    rows = _Wide(_COLUMNS)
    rows._rows = (Row("key", cells),)
    parts = [
        fitted(Content.assemble((cell.text, cell.style), *cell.more), width, align)
        for cell, width, align in rows._layout(rows._rows[0], 28)
    ]
    first = Content.styled(marker, "$primary") if marker.strip() else Content(marker)
    wanted = first + Content(" ").join(parts)
    found = rows.row_content(0, 30, marker)
    assert found.plain == wanted.plain
    assert found.cell_length == wanted.cell_length
    assert _each(found) == _each(wanted)


def _each(content: Content) -> list[list[object]]:
    """The styles of each character."""
    return [
        [style for start, end, style in content.spans if start <= at < end]
        for at in range(len(content.plain))
    ]


async def test_segments_are_those_that_textual_makes():
    async with _Lines().run_test() as pilot:
        lines = pilot.app.query_one(LineView)

        @given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), _STYLES), max_size=5))
        @settings(deadline=None)
        def alike(spans: list[tuple[int, int, str]]) -> None:
            ordered = [Span(min(a, b), max(a, b), style) for a, b, style in spans]
            content = Content("0123456789", ordered)
            base = Style.parse("white on black")
            textual = content.render(base, end="", parse_style=lines._get_style)
            wanted = [Segment(text, (base + own).rich_style) for text, own in textual if text]
            found = lines._segments(content, base)
            assert Strip(found).simplify() == Strip(wanted).simplify()

        alike()
