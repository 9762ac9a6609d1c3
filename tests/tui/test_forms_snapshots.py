"""Pictures of the forms of jobs, in their states, at the sizes that the app is built for."""

import time
from collections import namedtuple

import pytest

from mi_crow.jobs import list_jobs
from tests.tui.conftest import NOW
from tests.tui.driving import SIZES, press, select, settle
from tui.app import MiCrowApp

Disk = namedtuple("Disk", "total used free")


@pytest.fixture
def picture(snap_compare, app_workspace, monkeypatch):
    """`picture(*keys, size=, job=)`: the app after these keys equals the kept picture."""
    monkeypatch.setattr("shutil.disk_usage", lambda path: Disk(10**12, 3 * 10**11, 7 * 10**11))
    monkeypatch.setattr("tui.screens.runs.forms.job_form.shown_root", lambda workspace: "/work")

    def compare(*keys: str, size: tuple[int, int], job: str | None = None) -> bool:
        app = MiCrowApp(app_workspace, "demo-topk")

        async def drive(pilot) -> None:
            await settle(pilot)
            if job is not None:
                await press(pilot, "1")
                await select(pilot, "jobs", job)
            await press(pilot, *keys)

        return snap_compare(app, terminal_size=size, run_before=drive)

    return compare


@SIZES
def test_a_training(picture, size):
    assert picture("1", "j", "n", "t", size=size)


@pytest.mark.slow
@SIZES
def test_layers_with_their_widths(picture, size):
    assert picture("1", "n", "c", *"sample", "tab", *"post", size=size)


@pytest.mark.slow
@SIZES
def test_an_open_section(picture, size):
    keys = ("1", "j", "n", "t", *["tab"] * 8, "enter", "down", "9")
    assert picture(*keys, size=size)


@pytest.mark.slow
@SIZES
def test_what_is_wrong(picture, size):
    assert picture("1", "n", "i", "tab", "tab", *"many", size=size)


@pytest.mark.slow
@SIZES
def test_a_failed_job_again(picture, app_workspace, fake_jobs, size, monkeypatch):
    params = {"run_id": "demo", "layer": "resid_post.2", "k": 77}
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: NOW)
        failed = fake_jobs.add("failed", "train", name="again", created=NOW, params=params)
    assert any(job.job_id == failed for job in list_jobs(app_workspace))
    assert picture("enter", size=size, job=failed)


@pytest.mark.slow
def test_hardly_any_room(picture):
    assert picture("1", "j", "n", "t", size=(40, 10))
