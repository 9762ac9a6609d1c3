"""The first start: three ways to begin, each by a key and by the mouse; the demo at any time."""

import pytest

from mi_crow.errors import UserError
from mi_crow.jobs.demo.standing import check_demo, standing
from mi_crow.jobs.kinds import DemoConfig
from mi_crow.store.runs.manifest import LayerSpec
from mi_crow.store.workspace import Workspace
from tests.tui.conftest import NOW, add_run, add_sae
from tests.tui.driving import notices, press, screen_text, settle
from tests.tui.test_runs_screen import rows
from tui.app import MiCrowApp
from tui.screens.runs.library import LibraryPopup
from tui.screens.runs.welcome import Way
from tui.widgets.forms.popup import FormPopup
from tui.widgets.lists.row_list import RowList

WAYS = [("d", "demo"), ("l", "library"), ("c", "capture")]


def what_began(pilot, submitted: list[dict]) -> str:
    """What the choice of a way led to: the demo's job, or the form of another."""
    if submitted:
        return submitted[0]["kind"]
    screen = pilot.app.screen
    if isinstance(screen, LibraryPopup):
        return "library"
    assert isinstance(screen, FormPopup)
    return {"Import an SAE": "import", "Capture activations": "capture"}[screen.heading()]


@pytest.mark.parametrize(("key", "way"), WAYS)
async def test_each_way_to_begin_has_a_key(empty_workspace, run_app, submitted, key, way):
    async with run_app(empty_workspace) as pilot:
        assert f" {key}  " in screen_text(pilot)
        await press(pilot, key)
        assert what_began(pilot, submitted) == way


@pytest.mark.slow
@pytest.mark.parametrize(("key", "way"), [WAYS[0], WAYS[-1]])
async def test_a_way_to_begin_can_be_clicked(empty_workspace, run_app, submitted, key, way):
    async with run_app(empty_workspace) as pilot:
        await pilot.click(f"#way-{way}")
        await settle(pilot)
        assert what_began(pilot, submitted) == way


@pytest.mark.slow
async def test_the_arrows_and_enter_choose_too(empty_workspace, run_app, submitted):
    async with run_app(empty_workspace) as pilot:
        assert pilot.app.screen.query(Way).first().has_focus
        await press(pilot, "up", "down", "enter")
        assert what_began(pilot, submitted) == "library"


async def test_a_file_of_ones_own_has_a_key_too(empty_workspace, run_app, submitted):
    async with run_app(empty_workspace) as pilot:
        assert "m imports your own" in screen_text(pilot)
        await press(pilot, "m")
        assert what_began(pilot, submitted) == "import"


async def test_each_way_says_what_it_takes(empty_workspace, run_app):
    async with run_app(empty_workspace) as pilot:
        text = screen_text(pilot)
        assert "two to four minutes on two cores; 200 MB on the disk; no network" in text
        assert "0.1 to 2 GB" in text
        assert " free" in text


@pytest.mark.slow
async def test_a_workspace_that_fills_shows_its_lists(empty_workspace, run_app, fake_jobs):
    async with run_app(empty_workspace) as pilot:
        fake_jobs.add("running", "demo", created=NOW)
        pilot.app.look_now()
        await settle(pilot)
        assert "This workspace is empty" not in screen_text(pilot)
        assert isinstance(pilot.app.focused, RowList)


@pytest.mark.slow
async def test_the_demo_can_be_started_beside_other_things(
    empty_workspace,
    run_app,
    submitted,
):
    add_run(empty_workspace, "mine", "org/model", NOW)
    async with run_app(empty_workspace) as pilot:
        await press(pilot, "n", "d")
        assert [call["kind"] for call in submitted] == ["demo"]


@pytest.mark.slow
async def test_the_demo_can_be_started_from_the_palette_of_any_screen(
    empty_workspace,
    run_app,
    submitted,
):
    add_run(empty_workspace, "mine", "org/model", NOW)
    async with run_app(empty_workspace) as pilot:
        await press(pilot, "5", "colon", *"run the demo", "enter")
        assert [call["kind"] for call in submitted] == ["demo"]
        assert pilot.app.current_mode == "runs"


@pytest.mark.slow
async def test_a_demo_that_is_there_is_opened(app_workspace, run_app, submitted):
    async with run_app(app_workspace, sae_id="smol-sae") as pilot:
        await press(pilot, "1", "n", "d")
        assert submitted == []
        assert (pilot.app.current_mode, pilot.app.context.sae_id) == ("features", "demo-topk")
        assert "The demo is here already, as SAE demo-topk" in notices(pilot)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("status", "says"),
    [
        ("running", "The demo is running already"),
        ("lost", "started but not finished; R resumes it"),
    ],
)
async def test_a_demo_under_way_is_shown(
    empty_workspace,
    run_app,
    submitted,
    fake_jobs,
    status,
    says,
):
    add_run(empty_workspace, "demo", "sample", NOW)
    job = fake_jobs.add(status, "demo", created=NOW)
    fake_jobs.add("finished", "capture", name="other", created=NOW + 1)
    async with run_app(empty_workspace) as pilot:
        await press(pilot, "n", "d")
        assert submitted == []
        assert rows(pilot, "jobs").key == job
        assert says in notices(pilot)


@pytest.mark.slow
async def test_a_run_that_is_called_like_that_of_the_demo_is_named(
    empty_workspace,
    run_app,
    submitted,
):
    add_run(empty_workspace, "demo", "org/model", NOW)
    async with run_app(empty_workspace) as pilot:
        await press(pilot, "n", "d")
        assert submitted == []
        assert "another run has this name; rename it with r" in notices(pilot)


def test_the_command_line_refuses_what_the_app_does(empty_workspace: Workspace, fake_jobs) -> None:
    check_demo(empty_workspace, DemoConfig())
    add_run(empty_workspace, "demo", "org/model", NOW)
    with pytest.raises(UserError, match="is the name of another run"):
        check_demo(empty_workspace, DemoConfig())
    add_sae(empty_workspace, "demo-topk", "sample", "demo", NOW)
    with pytest.raises(UserError, match="is in this workspace already"):
        check_demo(empty_workspace, DemoConfig())
    job = fake_jobs.add("cancelled", "demo", created=NOW)
    with pytest.raises(UserError, match=f"job {job} started the demo and did not finish it"):
        check_demo(empty_workspace, DemoConfig())
    job = fake_jobs.add("queued", "demo", created=NOW + 1)
    with pytest.raises(UserError, match=f"running already, as job {job}"):
        check_demo(empty_workspace, DemoConfig())


def test_what_an_earlier_demo_left_is_used_again(empty_workspace: Workspace) -> None:
    add_run(empty_workspace, "demo", "sample", NOW)
    (run,) = empty_workspace.list_runs()
    assert run.manifest.layers == [LayerSpec("model.layers.2", "resid_post.2", 128)]
    assert standing([run], [], []).state == "absent"


@pytest.mark.parametrize(
    "size",
    [
        pytest.param((80, 24), id="small"),
        pytest.param((200, 60), id="large", marks=pytest.mark.slow),
    ],
)
def test_the_first_screen(snap_compare, tmp_path, monkeypatch, size):
    monkeypatch.chdir(tmp_path)
    app = MiCrowApp(Workspace.plan(tmp_path / "w"))
    app.context.workspace.ensure()
    assert snap_compare(app, terminal_size=size, run_before=settle)
