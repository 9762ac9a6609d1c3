"""A workspace that cannot be written is browsed, and says that nothing can be named."""

import pytest

from mi_crow.errors import UserError
from tests.helpers.index_fixture import copy_index
from tests.helpers.other_user import read_only
from tests.tui.driving import notices, press, screen_text, settle
from tests.tui.stand_ins import N_FEATURES
from tui.screens.inspect.keeping import Found, ask_to_save

SAE = "demo-topk"


async def test_a_read_only_workspace_is_browsed_and_t_says_why_not(run_app, app_workspace):
    copy_index(app_workspace, SAE, n_features=N_FEATURES, n_documents=24)
    with read_only(app_workspace.root):
        async with run_app(app_workspace, size=(100, 30), sae_id=SAE) as pilot:
            assert "read only" in screen_text(pilot).splitlines()[0]
            pilot.app.clear_notifications()
            await press(pilot, "2", "t")
            assert "tagging is off" in notices(pilot)
            assert not pilot.app.screen.prompt.is_open
            pilot.app.clear_notifications()
            ask_to_save(pilot.app, Found("inspect", "a text", {}))
            await settle(pilot)
            assert notices(pilot).startswith("nothing can be saved: ")


async def test_t_says_why_not_where_only_the_folder_cannot_be_written(
    run_app, app_workspace, monkeypatch
):
    copy_index(app_workspace, SAE, n_features=N_FEATURES, n_documents=24)
    monkeypatch.setattr("tui.workbench.why_read_only", lambda _: "you may not write to 'w'")
    async with run_app(app_workspace, size=(100, 30), sae_id=SAE) as pilot:
        await press(pilot, "2", "t")
        assert "tagging is off: you may not write to 'w'" in notices(pilot)
        assert not pilot.app.screen.prompt.is_open


async def test_a_name_that_cannot_be_written_is_in_the_messages_to_be_copied(
    run_app, app_workspace, monkeypatch
):
    def full(*_: object) -> None:
        raise UserError("the disk is full")

    copy_index(app_workspace, SAE, n_features=N_FEATURES, n_documents=24)
    monkeypatch.setattr("mi_crow.mechanistic.concepts.edits.rename", full)
    async with run_app(app_workspace, size=(100, 30), sae_id=SAE) as pilot:
        await press(pilot, "2", "t", *"storm at sea", "enter")
        await settle(pilot)
        assert notices(pilot).endswith(
            "the disk is full\nNot saved: storm at sea; ! then y copies it"
        )
        assert pilot.app.message_log.read()[0].sentence == "Not saved: storm at sea"


@pytest.mark.slow
async def test_annotations_that_are_replaced_while_open_are_told(run_app, app_workspace):
    async with run_app(app_workspace, size=(100, 30), sae_id=SAE) as pilot:
        pilot.app.context.annotations.set_concept(SAE, 1, "sea")
        await settle(pilot)
        app_workspace.annotations_path.unlink()
        pilot.app.look_now()
        await settle(pilot)
        assert "removed while it was open" in notices(pilot)
