"""Pictures of the frame and the Runs and Control screens at the two sizes they are built for."""

import pytest

from mi_crow.jobs import list_jobs
from tests.tui.driving import LARGE, SIZES, SMALL, press, settle
from tests.tui.test_control_screen import FakeSession
from tui.app import MiCrowApp
from tui.themes.named import PAPER


@pytest.fixture
def picture(snap_compare, app_workspace):
    """`picture(*keys, size=, theme=)`: the app after these keys equals the kept picture."""

    def compare(*keys: str, size=SMALL, theme: str | None = None, workspace=app_workspace) -> bool:
        app = MiCrowApp(workspace, "demo-topk" if workspace is app_workspace else None)

        async def drive(pilot) -> None:
            await settle(pilot)
            if theme is not None:
                app.theme = theme
            await press(pilot, "1", *keys)

        return snap_compare(app, terminal_size=size, run_before=drive)

    return compare


@SIZES
def test_runs(picture, size):
    assert picture(size=size)


@pytest.mark.slow
@SIZES
def test_a_running_job(picture, size):
    assert picture("j", "j", "j", "j", "j", size=size)


@pytest.mark.slow
def test_an_evaluated_sae(picture):
    assert picture("j", "j", "j", size=LARGE)


def test_an_empty_workspace(picture, tmp_path):
    from mi_crow.store.workspace import Workspace

    assert picture(workspace=Workspace.open(tmp_path / "empty"))


def test_the_capture_form(picture):
    assert picture("n")


def test_the_help_overlay(picture):
    assert picture("question_mark")


@pytest.mark.slow
def test_the_palette(picture):
    assert picture("colon", *"train")


@pytest.mark.slow
def test_the_light_theme(picture):
    assert picture("j", "j", "j", "j", "j", size=(120, 40), theme=PAPER.name)


@SIZES
def test_control_with_a_model(picture, monkeypatch, size):
    monkeypatch.setattr("tui.context.AppContext.session", FakeSession())
    assert picture("6", "l", "ctrl+r", size=size)


@pytest.mark.slow
def test_control_before_loading(picture):
    assert picture("6")


@pytest.mark.slow
def test_cancelling(picture, app_workspace):
    assert any(job.status == "running" for job in list_jobs(app_workspace))
    assert picture("j", "j", "j", "j", "j", "c")
