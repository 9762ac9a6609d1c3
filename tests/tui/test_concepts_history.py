"""Undo and redo on the screens: this session's changes, and a list of all to pick from."""

import pytest

from mi_crow.mechanistic.concepts.annotations import Annotations
from tests.tui.driving import notices, press, screen_text, settle
from tests.tui.stand_ins import give_index
from tui.widgets.lists.row_list import RowList

SAE = "demo-topk"


def names(annotations: Annotations) -> set[str]:
    return {concept.name for concept in annotations.concepts(SAE)}


async def test_u_takes_back_this_session_alone_and_ctrl_y_brings_it_back(run_app, app_workspace):
    before = Annotations(app_workspace.annotations_path)  # the same person, an earlier session
    before.set_concept(SAE, 3, "sails")
    async with run_app(app_workspace, sae_id=SAE) as pilot:
        give_index(pilot.app)
        await settle(pilot)
        annotations = pilot.app.context.annotations
        await press(pilot, "5", "r", *"boats", "enter")
        await press(pilot, "e", *"why", "enter")
        await press(pilot, "u", "u")
        assert "undone: change “boats” of feature 3" in notices(pilot)
        assert "undone: rename “sails” to “boats” of feature 3" in notices(pilot)
        assert names(annotations) == {"sails"}
        await press(pilot, "u")
        assert names(annotations) == {"sails"}
        assert "Nothing to undo in this session" in notices(pilot)
        await press(pilot, "ctrl+y")
        assert names(annotations) == {"boats"}
        assert "redone: rename “sails” to “boats” of feature 3" in notices(pilot)
        await press(pilot, "ctrl+y")
        assert annotations.concepts(SAE)[0].note == "why"
        await press(pilot, "ctrl+y")
        assert "Nothing to redo" in notices(pilot)


@pytest.mark.slow
async def test_a_former_change_is_picked_from_the_history(run_app, app_workspace):
    eve = Annotations(app_workspace.annotations_path, actor="eve")
    eve.set_concept(SAE, 3, "sails")
    eve.set_concept(SAE, 17, "letters")
    eve.set_concept(SAE, 17, "letters", note="greetings")
    async with run_app(app_workspace, sae_id=SAE) as pilot:
        give_index(pilot.app)
        await settle(pilot)
        await press(pilot, "5", "H")
        text = screen_text(pilot)
        assert "eve" in text
        assert "name “sails” of feature 3" in text
        await press(pilot, "G", "enter")  # the oldest
        assert names(pilot.app.context.annotations) == {"letters"}
        await press(pilot, "H")
        rows = pilot.app.screen.query_one(RowList).rows
        assert rows[0].cells[2].text == "undo: name “sails” of feature 3"
        assert [row.cells[3].text for row in rows] == ["", "", "", "undone"]
        await press(pilot, "j", "j", "enter")  # a name whose note was changed since
        assert "not undone, it has changed since: name “letters”" in notices(pilot)
        assert "undo change 3 first (change “letters” of feature 17: -- greetings)" in notices(
            pilot
        )
        assert names(pilot.app.context.annotations) == {"letters"}


@pytest.mark.slow
async def test_a_change_can_be_read_to_its_end_at_the_smallest_size(run_app, app_workspace):
    async with run_app(app_workspace, sae_id="demo-topk") as pilot:
        name = "sails and masts"
        pilot.app.context.annotations.set_concept("demo-topk", 1462, name)
        pilot.app.context.annotations.undo()
        pilot.app.look_now()
        await settle(pilot)
        await press(pilot, "5", "H")
        assert f"undo: name “{name}” of feature 1462" in screen_text(pilot)
