"""The feature table: 131,072 rows cost a screenful, and the cursor is always where it should be."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from textual.app import App, ComposeResult
from textual.pilot import Pilot

from mi_crow.errors import CorruptDataError
from mi_crow.mechanistic.features.catalogue import DEFAULT
from mi_crow.mechanistic.features.records import FeatureRow
from tests.tui.driving import press, screen_text, settle
from tui.screens.concepts.rows import percent
from tui.themes.named import CROW, theme
from tui.widgets.lists.feature_columns import density, layout, row_content, score, titles_content
from tui.widgets.lists.feature_table import BLOCK_ROWS, FeatureTable

N = 131_072


def row(feature: int, **changes: Any) -> FeatureRow:
    values = {"fires": 1200, "density": 0.0123, "max_act": 12.345, "mean_act": 3.21}
    names = {"concept": None, "top_label": "sailing", "top_auroc": 0.973}
    return FeatureRow(feature, **(values | names | changes))


class TableApp(App[None]):
    """The table alone."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[int] = []
        self.concept: str | None = None
        self.messages: list[FeatureTable.Highlighted | FeatureTable.Opened] = []
        self.failures: list[Exception] = []

    def notify(self, message: str, *, remedy: str = "", **settings: Any) -> None:
        super().notify(f"{message} {remedy}", **settings)

    def get_theme_variable_defaults(self) -> dict[str, str]:
        return theme(CROW.name).variables

    def compose(self) -> ComposeResult:
        yield FeatureTable()

    def on_mount(self) -> None:
        self.table.focus()

    def on_feature_table_rows_failed(self, message: FeatureTable.RowsFailed) -> None:
        self.failures.append(message.error)

    @property
    def table(self) -> FeatureTable:
        return self.query_one(FeatureTable)

    def fetch(self, ids: Sequence[int], more: Sequence[str] = ()) -> list[FeatureRow]:
        self.read += ids
        return [row(i, concept=self.concept) for i in ids]

    def on_feature_table_highlighted(self, message: FeatureTable.Highlighted) -> None:
        self.messages.append(message)

    def on_feature_table_opened(self, message: FeatureTable.Opened) -> None:
        self.messages.append(message)


async def shown(pilot: Pilot, ids: Sequence[int]) -> FeatureTable:
    app = pilot.app
    assert isinstance(app, TableApp)
    app.table.show(ids, app.fetch)
    await settle(pilot)
    return app.table


async def test_only_the_blocks_on_the_screen_are_read():
    app = TableApp()
    async with app.run_test(size=(80, 24)) as pilot:
        table = await shown(pilot, list(range(N - 1, -1, -1)))
        assert len(app.read) == BLOCK_ROWS
        assert str(N - 1) in screen_text(pilot)
        await press(pilot, "G")
        assert table.feature == 0
        assert len(app.read) <= 3 * BLOCK_ROWS
        assert screen_text(pilot).splitlines()[-1].split()[:2] == ["▌", "0"]


@pytest.mark.parametrize(
    ("keys", "place"),
    [
        ("j", 1),
        ("j j down k", 2),
        ("k", 0),
        ("G", 999),
        ("G j", 999),
        ("G g", 0),
        ("ctrl+d", 23),
        ("ctrl+d ctrl+d ctrl+u", 23),
    ],
)
async def test_keys_move_the_cursor(keys: str, place: int):
    app = TableApp()
    async with app.run_test(size=(80, 24)) as pilot:
        table = await shown(pilot, [i * 3 for i in range(1000)])
        await press(pilot, *keys.split())
        assert (table.cursor, table.feature) == (place, place * 3)
        assert any(line.startswith("▌") for line in screen_text(pilot).splitlines())


async def test_a_new_order_keeps_the_cursor_on_its_feature():
    app = TableApp()
    async with app.run_test(size=(80, 24)) as pilot:
        table = await shown(pilot, list(range(1000)))
        assert table.go_to(700)
        await shown(pilot, list(range(999, -1, -1)))
        assert (table.feature, table.cursor) == (700, 299)
        await shown(pilot, [5, 6, 7])
        assert (table.feature, table.cursor) == (5, 0)
        assert not table.go_to(700)


async def test_enter_opens_and_moves_are_told_once():
    app = TableApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await shown(pilot, [4, 8])
        app.messages.clear()
        await press(pilot, "j", "j", "enter")
        assert [type(message).__name__ for message in app.messages] == ["Highlighted", "Opened"]
        assert [message.feature for message in app.messages] == [8, 8]


async def test_rows_read_again_show_a_new_concept():
    app = TableApp()
    async with app.run_test(size=(80, 24)) as pilot:
        table = await shown(pilot, [4, 8])
        assert "sailing" in screen_text(pilot)
        app.concept = "[b]boats[/b]"
        table.reread()
        await settle(pilot)
        assert "[b]boats[/b]" in screen_text(pilot)


async def test_an_empty_table_says_so_and_moves_nowhere():
    app = TableApp()
    async with app.run_test(size=(80, 24)) as pilot:
        table = await shown(pilot, [])
        assert "No features" in screen_text(pilot)
        await press(pilot, "j", "G", "enter")
        assert table.feature is None


async def test_an_unreadable_index_is_told_and_the_numbers_stay():
    app = TableApp()

    def broken(ids: Sequence[int], more: Sequence[str] = ()) -> list[FeatureRow]:
        raise CorruptDataError("features.duckdb is cut short")

    async with app.run_test(size=(80, 24)) as pilot:
        app.table.show([41, 42], broken)
        await settle(pilot)
        assert "42" in screen_text(pilot)
        assert "cut short" in str(app.failures[0])


async def test_a_move_paints_kept_lines_again():
    app = TableApp()
    painted: list[int] = []

    async with app.run_test(size=(80, 24)) as pilot:
        table = await shown(pilot, list(range(N)))
        strip: Callable = table._strip

        def counted(*arguments):
            painted.append(1)
            return strip(*arguments)

        table._strip = counted  # type: ignore[method-assign]
        await press(pilot, "j")
        assert len(painted) == 2  # the line that lost the cursor and the one that got it
        await press(pilot, "k")
        assert len(painted) == 2


@pytest.mark.parametrize("width", [34, 44, 60, 80, 120])
def test_a_line_and_its_titles_are_as_wide_as_the_table(width: int):
    shown = layout(DEFAULT, {"feature": 6}, width)
    line = row_content(131_071, row(131_071), shown, "▌")
    assert line.cell_length == width
    titles = titles_content(shown, "density", True)
    assert "density↓" in titles.plain
    assert titles.cell_length <= line.cell_length


def test_a_row_that_is_not_read_yet_shows_its_number():
    assert row_content(42, None, layout(DEFAULT, {}, 60), " ").plain.strip() == "42"


def test_a_dead_feature_says_so():
    dead = row(42, fires=0, density=0.0, top_auroc=None)
    assert "never fires" in row_content(42, dead, layout(DEFAULT, {}, 80), " ").plain


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.0, "0"), (0.5, "50%"), (0.042, "4.2%"), (0.0042, "0.42%"), (0.00042, "0.042%")],
)
def test_density_is_short(share: float, text: str):
    assert density(share) == text


@pytest.mark.parametrize("shown", [density, percent])
def test_a_share_that_rounds_up_has_no_digit_more_than_the_round_one(shown):
    for share, text in ((0.0996, "10%"), (0.00996, "1.0%"), (0.000996, "0.10%")):
        assert shown(share) == text


def test_density_never_reads_as_zero_when_it_is_not():
    assert density(1e-7) == "<.001%"


def test_a_score_below_one_never_reads_as_one():
    assert [score(value) for value in (0.5, 0.994, 0.9981, 1.0, None)] == [
        "0.50",
        "0.99",
        "0.998",
        "1.00",
        "–",
    ]
