"""Lists in an order: by key, by a click on a title, kept for the next start."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mi_crow.errors import CorruptDataError
from mi_crow.store.settings import UserSettings
from mi_crow.store.settings_file import SettingsText
from tests.helpers.index_fixture import make_index
from tests.tui.conftest import NOW, add_run
from tests.tui.driving import press, screen_text, settle
from tui.app import MiCrowApp
from tui.preferences.preferences import Preferences
from tui.state import StateFile
from tui.widgets.lists.row_list import Cell, Column, ListHeading, Row
from tui.widgets.lists.row_order import RowOrder, ordered
from tui.widgets.lists.sorted_list import SortedList

COLUMNS = (Column("name"), Column("size", 6, "right"))
SAE = "fixture-sae"


def row(name: str, size: float | None) -> Row:
    return Row(name, (Cell(name), Cell("–" if size is None else f"{size:g} B", value=size)))


@given(st.lists(st.none() | st.floats(-1e9, 1e9)), st.booleans())
def test_rows_without_a_value_stay_last_either_way(sizes, descending):
    rows = [row(f"row {place}", size) for place, size in enumerate(sizes)]
    found = [one.cells[1].value for one in ordered(rows, COLUMNS, RowOrder("size", descending))]
    known = sorted((size for size in sizes if size is not None), reverse=descending)
    assert found == [*known, *[None] * (len(sizes) - len(known))]


def test_words_come_in_the_order_of_the_alphabet_whatever_their_case():
    rows = [row(name, 1) for name in ("beta", "Alpha", "gamma")]
    assert [one.key for one in ordered(rows, COLUMNS, RowOrder("name"))] == [
        "Alpha",
        "beta",
        "gamma",
    ]


def test_the_first_order_by_numbers_shows_the_large_ones_and_the_next_the_small_ones():
    rows = [row("a", 1), row("b", 2)]
    size = COLUMNS[1]
    first = RowOrder().by(size, rows, COLUMNS)
    assert first == RowOrder("size", True)
    assert first.by(size, rows, COLUMNS) == RowOrder("size", False)


@pytest.mark.parametrize("saved", [None, [], ["size"], ["size", 1], ["height", True], "size"])
def test_what_is_no_order_is_refused(saved):
    with pytest.raises(CorruptDataError):
        RowOrder.from_json(saved, COLUMNS)


@pytest.fixture
def three_runs(empty_workspace):
    for number, name in enumerate(("beta", "alpha", "gamma")):
        add_run(empty_workspace, name, "sample", NOW - number)
    return empty_workspace


def shown(pilot) -> list[str]:
    return [one.key for one in pilot.app.screen.query_one("#list-runs", SortedList).rows]


async def test_o_goes_through_the_columns_and_a_click_on_a_title_turns_the_order(
    run_app, three_runs
):
    async with run_app(three_runs) as pilot:
        as_they_came = shown(pilot)
        cursor = pilot.app.screen.query_one("#list-runs", SortedList).key
        await press(pilot, "o")
        assert shown(pilot) == ["alpha", "beta", "gamma"]
        assert "Activation runs  3 ↑" in screen_text(pilot)
        await press(pilot, "O")
        assert shown(pilot) == ["gamma", "beta", "alpha"]
        assert pilot.app.screen.query_one("#list-runs", SortedList).key == cursor
        heading = pilot.app.screen.query(ListHeading).first()
        await pilot.click(heading, offset=(3, 0))
        await settle(pilot)
        assert shown(pilot) == ["alpha", "beta", "gamma"]
        await pilot.click(heading, offset=(heading.size.width - 3, 0))
        await settle(pilot)
        assert "size↓" in screen_text(pilot)
        await press(pilot, "o")
        assert shown(pilot) == as_they_came


@pytest.mark.slow
async def test_an_order_comes_back_and_one_that_is_none_is_told(three_runs, monkeypatch):
    file = StateFile(three_runs.root)
    async with MiCrowApp(three_runs, None, file.read(), file).run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        await press(pilot, "o")
        pilot.app.exit()
    async with MiCrowApp(three_runs, None, file.read(), file).run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        assert shown(pilot) == ["alpha", "beta", "gamma"]
    file.path.write_text(file.path.read_text().replace('"run"', '"hue"'))
    app, told = MiCrowApp(three_runs, None, file.read(), file), []
    monkeypatch.setattr(app, "notify", lambda message, **_: told.append(message))
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        assert any("hue" in sentence for sentence in told)


@pytest.mark.slow
async def test_concepts_are_marked_by_range_and_all_and_come_back(empty_workspace):
    make_index(empty_workspace, SAE)
    file = StateFile(empty_workspace.root)
    app = MiCrowApp(empty_workspace, None, file.read(), file)
    async with app.run_test() as pilot:
        await settle(pilot)
        for feature in range(1, 7):
            app.context.annotations.set_concept(SAE, feature, f"name {feature}")
        await press(pilot, "5", "g", "o", "j", "space", "j", "v")
        assert "3 marked" in screen_text(pilot)
        await press(pilot, "asterisk")
        assert "6 marked" in screen_text(pilot)
        await press(pilot, "asterisk", "slash", *"name 2", "enter", "asterisk")
        assert "1 marked" in screen_text(pilot)
        pilot.app.exit()
    async with MiCrowApp(empty_workspace, None, file.read(), file).run_test() as pilot:
        await settle(pilot)
        text = screen_text(pilot)
        assert "“name 2”" in text
        assert "1 marked" in text
        await press(pilot, "escape", "escape")
        rows = pilot.app.screen.query_one(SortedList).rows
        assert [one.cells[1].value for one in rows] == [1, 2, 3, 4, 5, 6]


@pytest.mark.slow
async def test_the_columns_of_a_list_are_chosen_and_kept(app_workspace):
    """By the settings, with the popup, and at the next start; a list has them in any order."""
    file = StateFile(app_workspace.root)
    settings = '[columns]\nsaes = ["L0", "latents", "recovered"]\nruns = ["nothing"]\n'
    found = Preferences.of(UserSettings.of(SettingsText(settings)))
    assert "column 'nothing' of runs is not known; there is " in found.mistakes[0]
    app = MiCrowApp(app_workspace, state_file=file, preferences=found)
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        saes = app.screen.query_one("#list-saes", SortedList)
        saes.focus()
        await settle(pilot)
        titles = next(line for line in screen_text(pilot).splitlines() if "latents" in line)
        assert titles.split()[:5] == ["SAEs", "2", "L0", "latents", "recovered"]
        assert "16.0   2,048     0.994" in screen_text(pilot)
        await press(pilot, "vertical_line", "j", "space", "J", "enter")  # without L0
        assert saes.columns_chosen == ("sae", "latents", "recovered")
        await press(pilot, "o", "o")
        assert saes.order.column == "latents"
        app.exit()
    app = MiCrowApp(app_workspace, saved=file.read(), state_file=file, preferences=found)
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        saes = app.screen.query_one("#list-saes", SortedList)
        assert saes.columns_chosen == ("sae", "latents", "recovered")
        saes.columns_chosen = tuple(column.name for column in saes.columns)
        await settle(pilot)  # those that do not fit are left out, from the right
        assert [one.title for one in saes.shown_columns()][:2] == ["SAE", "model"]
        app.prefer(Preferences())
        await settle(pilot)
        assert "FVU" in screen_text(pilot)
        assert "recovered" not in screen_text(pilot)


@pytest.mark.slow
async def test_y_copies_the_row_or_the_text_that_has_the_focus(app_workspace, run_app):
    async with run_app(app_workspace, sae_id="demo-topk") as pilot:
        app = pilot.app
        await press(pilot, "1")
        saes = app.screen.query_one("#list-saes", SortedList)
        saes.focus()
        saes.select("demo-topk")
        await press(pilot, "space", "k", "y")  # the mark is no part of the name
        assert app.clipboard.split("\t")[:2] == ["demo-topk", "2,048"]
        app.screen.query_one("#detail").focus()
        await press(pilot, "y")
        assert app.clipboard.startswith("demo-topk\ntopk SAE")
        assert "loss recovered" in app.clipboard
        app.screen.query_one("#list-jobs").focus()
        await press(pilot, "l")
        await press(pilot, "y")
        assert app.clipboard == app.screen.query_one("#log-text").text_to_copy()[0]
        await press(pilot, "escape", "exclamation_mark", "y")
        assert app.clipboard == "Copied the text"
        await press(pilot, "escape", "6", "y")
        assert app.clipboard.startswith("model.layers.2")
        await press(pilot, "4", "y")
        assert "Nothing to copy here" in [told.sentence for told in app.message_log.read()]
