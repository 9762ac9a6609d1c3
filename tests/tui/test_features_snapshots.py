"""Pictures of Features, Inspect, Steer and Concepts at the sizes they are built for."""

from types import SimpleNamespace

import pytest

from mi_crow.store.workspace import Workspace
from tests.helpers.index_fixture import make_index
from tests.tui.driving import LARGE, SIZES, SMALL, press, settle
from tests.tui.stand_ins import DEAD, NAMES, give_index
from tui import messages
from tui.app import MiCrowApp
from tui.themes.named import PAPER
from tui.widgets.area import Area

MEDIUM = (120, 40)
TEXT = (
    "The harbour was quiet before the storm. Two sloops lay at anchor, their masts creaking, and "
    "the crew counted the sails again.\nA letter from the bank waited in the captain's cabin; "
    "nobody wished to open it before the tide had turned."
)


@pytest.fixture
def picture(snap_compare, app_workspace):
    """`picture(screen, *keys, send=, size=, theme=)`: the screen after these keys."""

    def compare(screen: str, *keys: str, send=(), size=SMALL, theme=None, prompt="") -> bool:
        app = MiCrowApp(app_workspace, "demo-topk")

        async def drive(pilot) -> None:
            await settle(pilot)
            for feature, name in NAMES.items():
                app.context.annotations.set_concept("demo-topk", feature, name)
            give_index(app)
            if theme is not None:
                app.theme = theme
            await settle(pilot)
            await app.go(screen)
            await settle(pilot)
            for message in send:
                app.screen.post_message(message)
                await settle(pilot)
            if prompt:
                app.screen.query_one("#steer-prompt", Area).text = prompt
            await press(pilot, *keys)

        return snap_compare(app, terminal_size=size, run_before=drive)

    return compare


@SIZES
def test_the_table_of_features(picture, size):
    assert picture("features", "j", "j", size=size)


@pytest.mark.parametrize(
    "size",
    [
        pytest.param(SMALL, id="small", marks=pytest.mark.slow),
        pytest.param(MEDIUM, id="medium"),
        pytest.param(LARGE, id="large", marks=pytest.mark.slow),
    ],
)
def test_a_feature(picture, size):
    assert picture("features", send=[messages.OpenFeature(3)], size=size)


@pytest.mark.slow
def test_a_feature_by_day(picture):
    assert picture("features", "j", "enter", "j", size=MEDIUM, theme=PAPER.name)


@pytest.mark.slow
def test_a_dead_feature(picture):
    assert picture("features", send=[messages.OpenFeature(DEAD)])


@pytest.mark.slow
def test_a_feature_being_named(picture):
    assert picture("features", "j", "t")


@pytest.mark.slow
def test_the_filter(picture):
    assert picture("features", "slash", *"sail")


@pytest.mark.slow
@SIZES
def test_the_choice_of_columns(picture, size):
    assert picture("features", "vertical_line", "j", "j", "space", "J", size=size)


@pytest.mark.slow
@SIZES
def test_marked_features_being_tagged(picture, size):
    shown = ["vertical_line", *("j" * 16), "space", *("K" * 10), "enter"]
    assert picture("features", *shown, "space", "j", "j", "v", "T", size=size)


@pytest.mark.slow
def test_no_index(snap_compare, app_workspace):
    async def drive(pilot) -> None:
        await settle(pilot)
        await press(pilot, "2")

    app = MiCrowApp(app_workspace, "demo-topk")
    assert snap_compare(app, terminal_size=SMALL, run_before=drive)


@SIZES
def test_an_inspected_text(picture, size, monkeypatch):
    monkeypatch.setattr("tui.screens.inspect.reading.monotonic", lambda: 0.0)
    assert picture("inspect", "right", "right", send=[messages.SendToInspect(3, TEXT)], size=size)


@SIZES
def test_a_steered_text(picture, size):
    send = [messages.SendToSteer(3), messages.SendToSteer(101)]
    assert picture(
        "steer",
        "less_than_sign",
        "less_than_sign",
        "ctrl+r",
        send=send,
        size=size,
        prompt="The harbour",
    )


@pytest.mark.slow
def test_the_form_of_an_intervention(picture):
    assert picture("steer", "a")


@SIZES
def test_concepts(picture, size, monkeypatch):
    clock = SimpleNamespace(time=lambda: 1_790_000_000.0)
    monkeypatch.setattr("mi_crow.mechanistic.concepts.annotations.time", clock)
    assert picture("concepts", "j", "space", size=size)


@pytest.mark.slow
@SIZES
def test_the_map(snap_compare, tmp_path, size):
    workspace = Workspace.open(tmp_path / "workspace")
    make_index(workspace, "fixture-sae")

    async def drive(pilot) -> None:
        await settle(pilot)
        await press(pilot, "2", "m", "space", *["l"] * 6, *["j"] * 3)

    app = MiCrowApp(workspace, "fixture-sae")
    assert snap_compare(app, terminal_size=size, run_before=drive)
