"""Pictures of every screen in each state: empty, looking, loading, failed, gone, too small."""

import pytest

from mi_crow.errors import CorruptDataError, NotFoundError
from mi_crow.store.workspace import Workspace
from tests.tui.driving import press, settle
from tests.tui.stand_ins import SAE, ScriptedSession, give_index
from tests.tui.test_control_screen import FakeSession
from tui import messages
from tui.actions import SCREENS
from tui.app import MiCrowApp
from tui.messages import SessionState
from tui.screens.base import MiCrowScreen
from tui.widgets.area import Area

EVERY_SIZE = pytest.mark.parametrize(
    "size",
    [
        pytest.param((80, 24), id="small"),
        pytest.param((200, 60), id="large"),
    ],
)
EVERY_SCREEN = pytest.mark.parametrize("screen", SCREENS)


def broken(*_, **__):
    raise CorruptDataError("block 7 of [the index] is damaged", hint="build it again")


def gone(*_):
    raise NotFoundError("the workspace is gone: '/data/crow' is not there", hint="it is as it was")


async def with_index(pilot) -> ScriptedSession:
    """Gives the app an index, and lets it notice now, not at some moment of the test."""
    session = give_index(pilot.app)
    await settle(pilot)
    pilot.app.look_now()
    await settle(pilot)
    return session


@pytest.fixture
def picture(snap_compare, app_workspace):
    """`picture(screen, before, size)`: the screen once `before(pilot)` has made its state."""

    def compare(screen: str, before, size: tuple[int, int], workspace=app_workspace) -> bool:
        app = MiCrowApp(workspace, SAE if workspace is app_workspace else None)

        async def drive(pilot) -> None:
            await settle(pilot)
            await app.go(screen)
            await settle(pilot)
            await before(pilot)
            await settle(pilot)
            app.clear_notifications()
            await settle(pilot)

        return snap_compare(app, terminal_size=size, run_before=drive)

    return compare


async def nothing(_) -> None:
    """The screen as it comes up."""


async def run(pilot) -> None:
    """Asks for what the screen does with the model."""
    for field in pilot.app.screen.query(Area):
        field.text = "The harbour was quiet before the storm."
    await press(pilot, "ctrl+r" if pilot.app.current_mode != "control" else "l")


@pytest.mark.slow
@EVERY_SIZE
@EVERY_SCREEN
def test_an_empty_workspace_on_every_screen(picture, tmp_path, screen, size):
    assert picture(screen, nothing, size, Workspace.open(tmp_path / "empty"))


@pytest.mark.slow
@EVERY_SCREEN
def test_before_the_first_look(picture, tmp_path, monkeypatch, screen):
    monkeypatch.setattr(MiCrowApp, "look_now", lambda self: None)
    assert picture(screen, nothing, (80, 24), Workspace.open(tmp_path / "empty"))


@pytest.mark.slow
@EVERY_SIZE
@pytest.mark.parametrize("screen", ["inspect", "steer", "control"])
def test_before_anything_is_asked_of_the_model(picture, screen, size):
    assert picture(screen, with_index, size)


@pytest.mark.slow
@EVERY_SIZE
@pytest.mark.parametrize("screen", ["inspect", "steer", "control"])
def test_while_the_model_loads(picture, monkeypatch, screen, size):
    async def load(pilot) -> None:
        await with_index(pilot)
        monkeypatch.setattr(MiCrowScreen, "in_thread", lambda *_, **__: None)
        pilot.app.context._set_session(SessionState("loading", SAE))
        await run(pilot)

    assert picture(screen, load, size)


@pytest.mark.slow
@EVERY_SIZE
@EVERY_SCREEN
def test_what_failed(picture, monkeypatch, screen, size):
    async def fail(pilot) -> None:
        context = pilot.app.context
        session = await with_index(pilot)
        if screen == "runs":
            monkeypatch.setattr("tui.screens.runs.history.read_note", broken)
            await press(pilot, "j")
        elif screen == "features":
            monkeypatch.setattr(type(context.features), "find", broken)
            await press(pilot, "o")
        elif screen == "concepts":
            monkeypatch.setattr(type(context.annotations), "concepts", broken)
            context.publish(messages.ConceptsChanged())
        elif screen == "control":
            context._session = FakeSession(fails="layers")
            await run(pilot)
        else:
            session.error = CorruptDataError("the model's answer is broken", hint="try again")
            await run(pilot)

    assert picture(screen, fail, size)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("screen", "size"),
    [*((screen, (80, 24)) for screen in SCREENS), ("features", (200, 60))],
    ids=[*SCREENS, "large"],
)
def test_a_workspace_that_is_gone(picture, monkeypatch, screen, size):
    async def lose(pilot) -> None:
        monkeypatch.setattr("tui.workbench.look", gone)
        pilot.app.look_now()

    assert picture(screen, lose, size)


@pytest.mark.slow
@EVERY_SIZE
def test_a_workspace_that_is_read_only(picture, monkeypatch, size):
    monkeypatch.setattr("tui.workbench.why_read_only", lambda _: "the file system is read-only")
    assert picture("runs", nothing, size)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(38, 12), (80, 9)], ids=["narrow", "low"])
def test_a_terminal_that_is_too_small(picture, size):
    assert picture("runs", nothing, size)


@pytest.mark.slow
@EVERY_SCREEN
def test_the_smallest_terminal(picture, screen):
    async def index(pilot) -> None:
        await with_index(pilot)

    assert picture(screen, index, (40, 10))


@EVERY_SIZE
@pytest.mark.slow
def test_the_question_for_a_picture(picture, monkeypatch, size):
    monkeypatch.setattr("tui.screens.picture.picture_name", lambda _: "mi-crow-runs.svg")

    async def ask(pilot) -> None:
        await press(pilot, "colon", *"save a pict", "enter")
        pilot.app.screen.focused.value = "picture.png"
        await press(pilot, "enter")

    assert picture("runs", ask, size)
