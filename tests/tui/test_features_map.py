"""The map of features: what is drawn where, and what a reader does with it on a real index."""

import json
from dataclasses import replace

import numpy as np
import pytest

from mi_crow.errors import MiCrowError
from mi_crow.mechanistic.features.feature_map import FeatureMap
from mi_crow.mechanistic.features.records import FeatureRow
from mi_crow.store.json_object import JsonObject
from tests.helpers.index_fixture import make_index
from tests.tui.driving import notices, press, screen_text, settle, table
from tests.tui.test_features_index import SAE
from tui.app import MiCrowApp
from tui.screens.features.map import saved_colour
from tui.screens.features.map_place import saved_place
from tui.screens.features.map_popup import MapPopup, about
from tui.screens.features.screen import FeaturesScreen
from tui.themes.named import PAPER
from tui.widgets.map.colours import COLOURS, colouring
from tui.widgets.map.dots import BLANK, dots
from tui.widgets.map.view import MapView
from tui.widgets.map.viewport import Viewport

UNIT = Viewport(0, 0, 1, 1)


def points(*pairs: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    found = np.array(pairs, dtype=float).reshape(-1, 2)
    return found[:, 0], found[:, 1]


def test_a_point_lights_its_dot():
    x, y = points((0.01, 0.99), (0.99, 0.01))
    drawn = dots(x, y, np.array([0, 1]), 2, UNIT, (3, 2))
    assert drawn.braille.tolist() == [[0x01, 0, 0], [0, 0, 0x80]]
    assert drawn.kinds.tolist() == [[0, BLANK, BLANK], [BLANK, BLANK, 1]]


def test_all_points_are_counted_and_those_outside_are_not_drawn():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 5000))
    whole = Viewport.whole(x, y)
    assert dots(x, y, None, 5, whole, (40, 10)).counts.sum() == 5000
    part = whole.zoomed(0.5, 0.0, 0.0, whole)
    inside = (x >= part.left) & (x < part.left + part.width)
    inside &= (y > part.bottom) & (y <= part.bottom + part.height)
    assert dots(x, y, None, 5, part, (40, 10)).counts.sum() == inside.sum() < 5000


def test_a_cell_shows_its_most_common_kind_and_the_telling_ones_first():
    x, y = points(*[(0.1, 0.1)] * 6)
    of = np.array([0, 1, 1, 2, 2, 2])
    assert dots(x, y, of, 3, UNIT, (1, 1)).kinds[0, 0] == 1
    assert dots(x, y, np.full(6, 2), 3, UNIT, (1, 1)).kinds[0, 0] == 2


def test_shades_go_by_the_logarithm():
    x, y = points((0.1, 0.5), *[(0.4, 0.5)] * 30, *[(0.9, 0.5)] * 1000)
    assert dots(x, y, None, 5, UNIT, (3, 1)).kinds.tolist() == [[0, 2, 4]]
    assert dots(*points((0.5, 0.5)), None, 5, UNIT, (1, 1)).kinds.tolist() == [[0]]


@pytest.mark.parametrize("n", [0, 1, 2])
def test_a_map_of_few_or_equal_points_has_a_size(n: int):
    x, y = points(*[(3.0, -2.0)] * n)
    whole = Viewport.whole(x, y)
    assert whole.width > 0
    assert whole.height > 0
    assert dots(x, y, None, 5, whole, (4, 4)).counts.sum() == n
    assert len(whole.nearest(x, y, (0, 0), (4, 4))) == n


def test_zoom_keeps_the_point_and_the_map_bounds_it():
    part = UNIT.zoomed(0.25, 0.5, 0.25, UNIT)
    assert part.cell_of(0.5, 0.25, 80, 20) == UNIT.cell_of(0.5, 0.25, 80, 20)
    assert part.zoomed(16, 0.5, 0.25, UNIT) == UNIT
    assert part.panned(100, 100, UNIT) == Viewport(0.75, 0.75, 0.25, 0.25)
    deep = UNIT
    for _ in range(50):
        deep = deep.zoomed(0.5, 0.3, 0.3, UNIT)
    assert deep.width > 1e-4


def test_cells_and_points_belong_together():
    for cell in ((0, 0), (79, 23), (12, 7)):
        assert UNIT.cell_of(*UNIT.centre_of(*cell, 80, 24), 80, 24) == cell


def test_the_nearest_goes_by_what_the_screen_shows():
    x, y = points((0.5, 0.6), (0.58, 0.5), (0.0, 0.0))
    # 80 by 8 cells: 6.4 cells to the right are 6.4, 0.8 cells up are 1.6.
    assert UNIT.nearest(x, y, (0.5, 0.5), (80, 8)).tolist() == [0, 1, 2]
    assert UNIT.nearest(x, y, (0.5, 0.5), (8, 80)).tolist() == [1, 0, 2]


def small_map() -> FeatureMap:
    x = np.array([0, 1, 2, np.nan], dtype=np.float32)
    label = np.array([1, 1, -1, 0], dtype=np.int32)
    named = np.array([True, False, False, True])
    return FeatureMap(x, x, np.array([0.0, 0.5, 0.005, 0.1]), label, named, ("bank", "sea"))


def test_colours_are_counted_over_what_is_on_the_map():
    found = small_map()
    assert found.placed.tolist() == [0, 1, 2]
    labels = colouring("label", found, ())
    assert [(kind.words, kind.count) for kind in labels.kinds if kind.count] == [
        ("sea", 2),
        ("no label", 1),
    ]
    assert kinds_of("name") == [0, 1, 1, 0]
    assert kinds_of("marks", 2) == [1, 1, 0, 1]
    assert kinds_of("density") == [5, 4, 2, 4]
    for by in COLOURS:
        kinds = colouring(by, found, ()).kinds
        assert len({kind.mark for kind in kinds}) == len(kinds)  # told apart without colours


def kinds_of(by: str, *marks: int) -> list[int]:
    of = colouring(by, small_map(), marks).of
    assert of is not None
    return of.tolist()


def view(pilot) -> MapView:
    return pilot.app.screen.query_one(MapView)


async def test_the_cursor_finds_features_and_enter_opens_one(open_index):
    async with open_index((80, 24)) as pilot:
        await press(pilot, "m")
        assert isinstance(pilot.app.screen, MapPopup)
        first = view(pilot).feature
        assert f"#{first} " in screen_text(pilot)
        await press(pilot, "tab")
        second = view(pilot).feature
        assert second != first
        assert f"#{second} " in screen_text(pilot)
        await press(pilot, "question_mark")  # more keys than a narrow footer has room for
        assert "The whole map" in screen_text(pilot)
        await press(pilot, "escape", "greater_than_sign", "enter")
        screen = pilot.app.screen
        assert isinstance(screen, FeaturesScreen)
        assert screen._feature == second


async def test_a_region_marks_what_is_in_it(open_index):
    async with open_index((80, 24)) as pilot:
        total = pilot.app.context.features.meta().n_features
        await press(pilot, "m")
        shown = view(pilot)
        await press(pilot, "space")
        assert "esc leave the region" in footer(pilot)
        await press(pilot, "l", "escape")
        assert not shown.is_marking  # escape left the region, not the map
        assert "esc close" in footer(pilot)
        shown._go(shown._view.centre_of(0, 0, *shown.shape))
        await press(pilot, "space")
        shown._go(shown._view.centre_of(shown.shape[0] - 1, shown.shape[1] - 1, *shown.shape))
        await press(pilot, "space")
        assert f"{total} marked" in screen_text(pilot)
        await press(pilot, "escape")
        assert len(table(pilot).marks) == total


async def test_where_the_map_ends_half_a_screen_is_a_way_of_the_cursor(open_index):
    async with open_index((80, 24)) as pilot:
        await press(pilot, "m")
        shown = view(pilot)
        whole, (columns, rows) = shown.view, shown.shape
        await press(pilot, "H", "H", "K", "K")
        assert shown._cursor == (0, 0)
        await press(pilot, "L", "J")
        assert shown._cursor == (columns // 2, rows // 2)
        assert shown.view == whole


def footer(pilot) -> str:
    return screen_text(pilot).splitlines()[-1]


def status(pilot) -> str:
    """What the map says of the feature at the cursor."""
    return str(pilot.app.screen.query_one("#map-feature").content)


@pytest.mark.slow
async def test_the_feature_at_the_cursor_is_named_and_copied(open_index, monkeypatch):
    copied: list[str] = []
    monkeypatch.setattr(MiCrowApp, "copy_to_clipboard", lambda _, text: copied.append(text))
    async with open_index() as pilot:
        await press(pilot, "m")
        feature = view(pilot).feature
        await press(pilot, "t")
        assert f"#{feature} is" in screen_text(pilot)
        await press(pilot, "escape")
        assert isinstance(pilot.app.screen, MapPopup)
        await press(pilot, "d", "t", *"a rope", "enter")
        assert view(pilot).has_focus
        assert "a rope" in status(pilot)
        assert "named 1" in screen_text(pilot)
        await press(pilot, "y", "colon", *"undo your latest", "enter")
        assert copied == [f"{feature}\ta rope"]
        assert f"#{feature} " in status(pilot)
        assert "a rope" not in status(pilot)


def test_a_proposed_name_stands_where_there_is_no_other():
    row = FeatureRow(7, 3, 0.1, 2.0, 1.0, None, None, None, proposed="“rope”")
    assert "#7  “rope”" in about(row, 1).plain
    assert "rope" not in about(replace(row, concept="sail"), 1).plain


async def test_colours_are_told_and_kept(open_index):
    async with open_index((80, 24)) as pilot:
        await press(pilot, "m")
        legends = set()
        for _ in COLOURS:
            legends.add(screen_text(pilot).splitlines()[-4])
            await press(pilot, "d")
        assert len(legends) == len(COLOURS)
        await press(pilot, "d", "escape")
        state = JsonObject.of(pilot.app.screen.state(), "state")
        assert saved_colour(state) == COLOURS[1]
    with pytest.raises(MiCrowError):
        saved_colour(JsonObject.of({"map_colour": "sound"}, "state"))


@pytest.mark.slow
async def test_letters_stand_for_colours_where_there_are_none(open_index, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    async with open_index((80, 24)) as pilot:
        await press(pilot, "m", "d")
        text = screen_text(pilot)
        assert "· without a name" in text
        assert not any(0x2800 < ord(one) <= 0x28FF for one in text)


@pytest.mark.slow
async def test_an_index_without_coordinates_says_how_to_get_them(open_index, monkeypatch):
    async with open_index((80, 24)) as pilot:
        store = pilot.app.context.features
        columns = store._held[0].columns
        nothing = np.full(len(columns), np.nan)
        columns._more.update(map_x=nothing, map_y=nothing)
        await press(pilot, "m")
        assert "no coordinates" in notices(pilot)
        assert f"mi-crow index --sae {SAE}" in notices(pilot)
        place = np.arange(len(columns), dtype=float)
        columns._more.update(map_x=place, map_y=np.where(place == 3, np.nan, place))
        await press(pilot, "m")
        assert "1 without coordinates" in screen_text(pilot)


@pytest.mark.slow
async def test_a_move_draws_only_the_cells_that_change(open_index, monkeypatch):
    async with open_index((200, 60)) as pilot:
        await press(pilot, "m")
        shown = view(pilot)
        asked = []
        refresh = shown.refresh

        def noted(*regions, **more):
            asked.extend(regions or [shown.size.region])
            return refresh(*regions, **more)

        monkeypatch.setattr(shown, "refresh", noted)
        await press(pilot, "h")
        await settle(pilot)
        assert asked
        assert sum(region.area for region in asked) <= 4


@pytest.mark.slow
async def test_zoom_and_position_come_back(open_index, run_app, empty_workspace):
    async with open_index((80, 24)) as pilot:
        await press(pilot, "m", "greater_than_sign", "greater_than_sign", "L", "j")
        left = view(pilot).view, view(pilot).at
        assert "•" in screen_text(pilot)  # few dots, each large enough for its colour
        screen = pilot.app.screen_stack[0]
        kept = saved_place(JsonObject.of(screen.state(), "state"))  # while it is open
        assert kept is not None
        assert kept.at == left[1]
        await press(pilot, "escape", "m")
        assert (view(pilot).view, view(pilot).at) == left
        await press(pilot, "tab", "enter")
        opened = pilot.app.screen.open_feature
        saved = json.loads(json.dumps(pilot.app.screen.state()))
        await press(pilot, "m")
        assert view(pilot).view.width == left[0].width
        assert view(pilot).feature == opened
    async with run_app(empty_workspace, size=(80, 24), sae_id=SAE) as pilot:
        await press(pilot, "2")
        pilot.app.screen.restore(JsonObject.of(saved, "state"))
        await settle(pilot)
        await press(pilot, "m")
        assert view(pilot).view.width == left[0].width


@pytest.mark.slow
async def test_a_feature_out_of_sight_is_shown_at_the_same_zoom(open_index):
    async with open_index((80, 24)) as pilot:
        await press(pilot, "m", *["greater_than_sign"] * 5, "escape")
        far = next(n for n in table(pilot).shown_ids if not _in_view(pilot, n))
        table(pilot).go_to(far)
        await settle(pilot)
        zoomed = pilot.app.screen.map_place.view
        await press(pilot, "m")
        assert view(pilot).view.width == zoomed[2]
        assert view(pilot).feature == far


def _in_view(pilot, feature: int) -> bool:
    screen = pilot.app.screen
    found = screen.context.features.map()
    left, bottom, width, height = screen.map_place.view
    x, y = found.x[feature] - left, found.y[feature] - bottom
    return bool(np.isnan(x) or (0 <= x <= width and 0 <= y <= height))


def test_a_part_of_the_map_is_taken_up_where_it_is_one():
    part = Viewport(0.2, 0.2, 0.1, 0.1)
    assert part.around(0.25, 0.25, UNIT) == part
    assert part.around(0.5, 0.5, UNIT) == Viewport(0.45, 0.45, 0.1, 0.1)
    assert part.around(9.0, 9.0, UNIT) == Viewport(0.9, 0.9, 0.1, 0.1)
    assert Viewport(0, 0, 7, 0.1).around(0.5, 0.5, UNIT) == UNIT  # of an index with another map


@pytest.mark.parametrize(
    "damage",
    [
        {"view": [0, 0, 1]},
        {"view": [0, 0, -1, 1]},
        {"view": [0, 0, float("nan"), 1]},
        {"view": "all"},
        {"at": [True, 0]},
        {"at": [1e999, 0]},
        {"sae": 3},
        {"feature": -1},
    ],
)
def test_a_damaged_place_is_refused(damage):
    place = {"sae": SAE, "view": [0, 0, 1, 1], "at": [0, 0], "feature": 3}
    assert saved_place(JsonObject.of({"map": place}, "state")) is not None
    assert saved_place(JsonObject.of({}, "state")) is None
    with pytest.raises(MiCrowError):
        saved_place(JsonObject.of({"map": place | damage}, "state"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "size",
    [
        pytest.param((80, 24), id="small"),
        pytest.param((200, 60), id="large", marks=pytest.mark.slow),
    ],
)
def test_the_map_on_paper(snap_compare, empty_workspace, size):
    make_index(empty_workspace, SAE)
    app = MiCrowApp(empty_workspace, SAE)

    async def drive(pilot) -> None:
        app.theme = PAPER.name
        await settle(pilot)
        await press(pilot, "2", "m", "greater_than_sign")

    assert snap_compare(app, terminal_size=size, run_before=drive)
