"""What a screen shows while its work failed, and while the workspace is gone or read only."""

import pytest

from mi_crow.errors import CorruptDataError, UserError
from tests.helpers.other_user import read_only
from tests.tui.driving import SIZES, notices, press, screen_text, settle
from tests.tui.stand_ins import give_index
from tui import messages
from tui.widgets.area import Area
from tui.widgets.lists.feature_table import FeatureTable
from tui.widgets.lists.row_list import RowList
from tui.widgets.trouble import Trouble

SAE = "demo-topk"


def broken(*_, **__):
    raise CorruptDataError("block 7 of [index] is damaged", hint="build it again")


def troubles(pilot) -> list[str]:
    """What the panes of the screen say went wrong."""
    return [one.id for one in pilot.app.screen.query(Trouble) if one.display]


def footer(pilot) -> str:
    return screen_text(pilot).splitlines()[-1]


async def look(pilot) -> None:
    pilot.app.look_now()
    await settle(pilot)


# Panes keep the sentence.


async def test_a_list_of_features_that_cannot_be_read_says_so_until_it_can(
    app_workspace, run_app, monkeypatch
):
    async with run_app(app_workspace, sae_id=SAE) as pilot:
        give_index(pilot.app)
        await press(pilot, "2")
        with monkeypatch.context() as patch:
            patch.setattr(type(pilot.app.context.features), "find", broken)
            await press(pilot, "o")
            pilot.app.clear_notifications()
            await settle(pilot)
            assert troubles(pilot) == ["table-trouble"]
            text = screen_text(pilot)
            assert "block 7 of [index] is damaged" in text
            assert "build it again" in text
        await press(pilot, "O")
        assert troubles(pilot) == []


@pytest.mark.slow
async def test_a_feature_that_cannot_be_read_says_why_in_its_pane(
    app_workspace, run_app, monkeypatch
):
    async with run_app(app_workspace, size=(130, 40), sae_id=SAE) as pilot:
        give_index(pilot.app)
        await press(pilot, "2")
        with monkeypatch.context() as patch:
            patch.setattr(type(pilot.app.context.features), "detail", broken)
            await press(pilot, "j")
            assert troubles(pilot) == ["feature-trouble"]
            assert "block 7 of [index] is damaged" in screen_text(pilot)
        await press(pilot, "j")
        assert troubles(pilot) == []


@pytest.mark.slow
async def test_inspect_and_steer_keep_why_the_model_did_not_answer(open_steer):
    async with open_steer(3) as (pilot, session):
        session.error = UserError("the text is too long", hint="shorten it")
        await press(pilot, "ctrl+r")
        assert troubles(pilot) == ["steer-trouble"]
        await pilot.app.go("inspect", messages.SendToInspect(3, "The harbour"))
        await settle(pilot)
        assert troubles(pilot) == ["inspect-trouble"]
        pilot.app.clear_notifications()
        await settle(pilot)
        assert "the text is too long" in screen_text(pilot)
        session.error = None
        await press(pilot, "ctrl+r")
        assert troubles(pilot) == []
        await press(pilot, "4")
        assert troubles(pilot) == ["steer-trouble"]
        await press(pilot, "ctrl+r")
        assert troubles(pilot) == []


@pytest.mark.slow
async def test_concepts_that_cannot_be_read_are_not_called_none(
    app_workspace, run_app, monkeypatch
):
    async with run_app(app_workspace, sae_id=SAE) as pilot:
        with monkeypatch.context() as patch:
            patch.setattr(type(pilot.app.context.annotations), "concepts", broken)
            await press(pilot, "5")
            assert troubles(pilot) == ["concepts-trouble"]
            assert "No concepts yet" not in screen_text(pilot)
        pilot.app.context.annotations.set_concept(SAE, 3, "sails")
        await look(pilot)
        assert troubles(pilot) == []
        assert "sails" in screen_text(pilot)


@pytest.mark.slow
async def test_the_detail_of_a_run_says_what_of_it_cannot_be_read(
    app_workspace, run_app, monkeypatch
):
    monkeypatch.setattr("tui.screens.runs.history.read_note", broken)
    async with run_app(app_workspace, size=(120, 40)) as pilot:
        await press(pilot, "j")
        assert "block 7 of [index] is damaged" in screen_text(pilot)
        assert "demo" in screen_text(pilot)


# The workspace.


async def test_a_workspace_that_is_gone_is_told_on_every_screen_and_comes_back(
    app_workspace, run_app
):
    away = app_workspace.root.with_name("moved")
    async with run_app(app_workspace, sae_id=SAE) as pilot:
        await press(pilot, "1")
        before = [row.key for row in pilot.app.screen.query_one("#list-runs", RowList).rows]
        app_workspace.root.rename(away)
        await look(pilot)
        for key in "123456":
            await press(pilot, key, "escape")
            assert "is gone" in screen_text(pilot).splitlines()[2], key
        await press(pilot, "1")
        rows = pilot.app.screen.query_one("#list-runs", RowList).rows
        assert [row.key for row in rows] == before
        await press(pilot, "n", "c", "ctrl+r", "escape", "escape", "2", "t", *"hill", "enter")
        assert not app_workspace.root.exists()
        pilot.app.context.annotations.data_version()
        away.rename(app_workspace.root)
        await look(pilot)
        told = [one.sentence for one in pilot.app.message_log.read()]
        assert not [one for one in told if "removed" in one or "damaged" in one]
        pilot.app.clear_notifications()
        await settle(pilot)
        for key in "12":
            await press(pilot, key)
            assert "is gone" not in screen_text(pilot)


@pytest.mark.slow
async def test_what_a_pane_could_not_read_meanwhile_it_reads_again(
    app_workspace, run_app, monkeypatch
):
    away = app_workspace.root.with_name("moved")
    async with run_app(app_workspace, size=(130, 40), sae_id=SAE) as pilot:
        await press(pilot, "5")
        give_index(pilot.app)
        await press(pilot, "2")
        app_workspace.root.rename(away)
        await look(pilot)
        with monkeypatch.context() as patch:
            for method in ("find", "detail"):
                patch.setattr(type(pilot.app.context.features), method, broken)
            patch.setattr(type(pilot.app.context.annotations), "concepts", broken)
            await press(pilot, "j", "o")
            assert troubles(pilot) == ["table-trouble", "feature-trouble"]
            pilot.app.concepts_changed(99)
            await press(pilot, "5")
            assert troubles(pilot) == ["concepts-trouble"]
        away.rename(app_workspace.root)
        await look(pilot)
        assert troubles(pilot) == []
        await press(pilot, "2")
        assert troubles(pilot) == []
        assert pilot.app.screen.query_one(FeatureTable).row_count


async def test_a_read_only_workspace_says_so_and_starts_nothing(app_workspace, run_app):
    with read_only(app_workspace.root):
        async with run_app(app_workspace, size=(100, 30)) as pilot:
            assert "read only" in screen_text(pilot).splitlines()[0]
            for key in ("n", "x", "r"):
                pilot.app.clear_notifications()
                await press(pilot, key)
                assert "Nothing can be started or changed here" in notices(pilot), key
                assert len(pilot.app.screen_stack) == 1


@SIZES
async def test_what_a_read_only_workspace_refuses_is_not_offered(
    app_workspace, run_app, monkeypatch, size
):
    why = ["the file system is read-only"]
    monkeypatch.setattr("tui.workbench.why_read_only", lambda _: why[0])
    async with run_app(app_workspace, size=size, sae_id=SAE) as pilot:
        give_index(pilot.app)
        offered = {
            "1": ("n new", "x remove", "r rename", "e note"),
            "2": ("t tag",),
            "4": ("F measure", "A auto"),
            "6": ("w capture", "V vector"),
        }
        for key, words in offered.items():
            await press(pilot, key, "escape")
            line = footer(pilot)
            assert not [one for one in words if one in line], line
            assert "? keys" in line
        await press(pilot, "1", "space")
        assert "space mark" in footer(pilot) or "enter open" in footer(pilot)
        await press(pilot, "colon", *"rename")
        styles = [row.cells[0].style for row in pilot.app.screen.query_one(RowList).rows]
        assert styles[0] == "$faint"
        await press(pilot, "escape")
        why[0] = ""
        await look(pilot)
        assert "n new" in footer(pilot)


async def test_what_is_saved_beside_names_is_not_offered_where_it_cannot_be_written(
    app_workspace, run_app, monkeypatch
):
    monkeypatch.setattr("tui.workbench.why_read_only", lambda _: "the disk is read-only")
    async with run_app(app_workspace, size=(200, 60), sae_id=SAE) as pilot:
        give_index(pilot.app)
        pilot.app.context.annotations.save_preset("calm", [])
        await press(pilot, "4", "escape", "p")
        assert "enter" in footer(pilot)
        assert "remove" not in footer(pilot)
        await press(pilot, "escape", "5", "I")
        assert not pilot.app.screen.prompt.is_open
        assert "tagging is off: the disk is read-only" in notices(pilot)


# Keys are shown where they do something.


@pytest.mark.slow
async def test_enter_is_offered_where_there_is_something_to_open(empty_workspace, run_app):
    async with run_app(empty_workspace) as pilot:
        pilot.app.notify("nothing to open")
        await press(pilot, "exclamation_mark")
        assert "enter" not in screen_text(pilot)
        await press(pilot, "escape", "5")
        assert "enter open" not in screen_text(pilot).splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("capture", "capture finished: the run new"),
        ("train", "train finished: the SAE new"),
        ("index", "index finished: the index of demo-topk"),
    ],
)
async def test_a_finished_job_names_what_it_made(fake_jobs, kind, words):
    from mi_crow.jobs import list_jobs
    from tui.widgets.frame.endings import ending_line

    fake_jobs.add("finished", kind, name=None if kind == "index" else "new")
    assert ending_line(list_jobs(fake_jobs.workspace)[0]) == words


@pytest.mark.slow
async def test_a_prompt_that_is_missing_is_said_where_the_text_would_be(open_steer):
    async with open_steer(3) as (pilot, _):
        pilot.app.screen.query_one("#steer-prompt", Area).text = ""
        await press(pilot, "ctrl+r")
        assert troubles(pilot) == ["steer-trouble"]
