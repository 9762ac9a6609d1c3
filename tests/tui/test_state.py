"""What the app was doing comes back at its next start."""

import errno
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from mi_crow.errors import CorruptDataError, UserError
from mi_crow.mechanistic.steering.interventions import Intervention
from mi_crow.store.json_object import JsonObject
from mi_crow.store.workspace import Workspace
from tests.tui.driving import notices, press, screen_text, select, settle
from tui.app import MiCrowApp
from tui.screens.features.map_place import saved_place
from tui.screens.features.opening import saved_look
from tui.screens.features.query import TableQuery
from tui.state import SavedState, StateFile
from tui.widgets.area import Area
from tui.widgets.example_list import ExampleList
from tui.widgets.field import Field
from tui.widgets.forms.drafts import drafts_of
from tui.widgets.lists.feature_table import FeatureTable
from tui.widgets.lists.row_list import RowList

SAE = "fixture-sae"


def started(workspace: Workspace) -> MiCrowApp:
    """The app as the command line opens it."""
    file = StateFile(workspace.root)
    return MiCrowApp(workspace, None, file.read(), file)


def the_app(pilot: Pilot) -> MiCrowApp:
    assert isinstance(pilot.app, MiCrowApp)
    return pilot.app


def stacked(pilot: Pilot) -> list[str]:
    """The features on the stack of Steer."""
    rows = pilot.app.screen.query_one("#steer-stack", RowList).rows
    return [re.findall(r"#\d+", " ".join(cell.text for cell in row.cells))[0] for row in rows]


async def test_filter_feature_text_prompt_stack_and_theme_come_back(indexed: Workspace) -> None:
    async with started(indexed).run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        await press(pilot, "3")
        pilot.app.screen.query_one("#inspect-text", Area).text = "The mast is high."
        await press(pilot, "escape", "2", "slash", *"max>0 sort:mean", "enter", "j", "j")
        feature = pilot.app.screen.query_one(FeatureTable).feature
        await press(pilot, "s")
        pilot.app.screen.query_one("#steer-prompt", Area).text = "Once"
        pilot.app.screen.query_one("#steer-seed", Field).value = "7"
        await pilot.app.run_action("next_theme")
        theme = pilot.app.theme
        await press(pilot, "2")
        pilot.app.exit()
    async with started(indexed).run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        assert pilot.app.current_mode == "features"
        assert pilot.app.theme == theme
        table = pilot.app.screen.query_one(FeatureTable)
        assert table.feature == feature
        assert table.row_count < 64
        await press(pilot, "4")
        assert pilot.app.screen.query_one("#steer-prompt", Area).text == "Once"
        assert pilot.app.screen.query_one("#steer-seed", Field).value == "7"
        assert stacked(pilot) == [f"#{feature}"]
        await press(pilot, "e", "space", *"upon")
        assert pilot.app.screen.query_one("#steer-prompt", Area).text == "Once upon"
        await press(pilot, "escape", "3")
        assert pilot.app.screen.query_one("#inspect-text", Area).text == "The mast is high."


@pytest.mark.slow
async def test_what_was_never_opened_this_time_is_kept(indexed: Workspace) -> None:
    steer = {"prompt": "Once", "stack": [], "tokens": "9", "temperature": "1", "seed": "2"}
    StateFile(indexed.root).write(SavedState("runs", SAE, "", {"steer": steer}))
    async with started(indexed).run_test() as pilot:
        await settle(pilot)
        await press(pilot, "2")
        pilot.app.exit()
    assert StateFile(indexed.root).read().screens["steer"] == steer


@pytest.mark.slow
async def test_the_state_is_written_while_the_app_runs(indexed: Workspace) -> None:
    async with started(indexed).run_test() as pilot:
        await settle(pilot)
        await press(pilot, "5")
        the_app(pilot).look_now()
        await settle(pilot)
        assert StateFile(indexed.root).read().screen == "concepts"


async def test_a_disk_that_was_full_for_a_while_is_told_once_and_loses_nothing(
    indexed: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, full = StateFile.write, [True]

    def fails(file: StateFile, state: SavedState) -> None:
        if full[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file.path.parent))
        write(file, state)

    monkeypatch.setattr(StateFile, "write", fails)
    app = started(indexed)
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await settle(pilot)
        for key in "546":
            await press(pilot, key)
            app.keep_state()
            await settle(pilot)
        said = [one.sentence for one in app.message_log.since(0.0)]
        assert len([one for one in said if "not kept for the next start" in one]) == 1
        full[0] = False
        app.keep_state(now=True)  # as at its end
        assert StateFile(indexed.root).read().screen == "control"


@pytest.mark.slow
async def test_a_state_of_another_kind_is_told_and_harms_nothing(
    indexed: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = {"features": {"sort": 3}, "steer": {"stack": [{"op": "explode"}]}}
    StateFile(indexed.root).write(SavedState("features", "gone", "no-theme", broken))
    app, told = started(indexed), []
    monkeypatch.setattr(app, "notify", lambda message, **_: told.append(message))
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        assert app.context.sae_id == SAE
        assert pilot.app.screen.query_one(FeatureTable).row_count > 0
        await press(pilot, "4")
        assert stacked(pilot) == []
    assert any("sort" in sentence for sentence in told)
    assert any("explode" in sentence for sentence in told)


async def test_a_feature_that_took_the_place_of_the_table_is_open_again(indexed: Workspace) -> None:
    async with started(indexed).run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        await press(pilot, "2", "j", "enter")
        assert "esc table" in screen_text(pilot)
        title = screen_text(pilot).splitlines()[2]
        pilot.app.exit()
    async with started(indexed).run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        assert screen_text(pilot).splitlines()[2] == title
        await press(pilot, "escape")
        assert pilot.app.focused is pilot.app.screen.query_one(FeatureTable)
        pilot.app.exit()
    async with started(indexed).run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        assert pilot.app.focused is pilot.app.screen.query_one(FeatureTable)


async def test_a_form_left_half_filled_by_a_kill_opens_as_it_was(indexed: Workspace) -> None:
    async with started(indexed).run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        await press(pilot, "1", "n", "c", *"gpt2")
        the_app(pilot).look_now()
        await settle(pilot)
        saved = StateFile(indexed.root).read()  # all that a kill leaves
        await press(pilot, "ctrl+u", "escape")
    assert saved.drafts[-1]["texts"]["model.model"] == "gpt2"
    StateFile(indexed.root).write(saved)
    async with started(indexed).run_test(size=(80, 24), notifications=True) as pilot:
        await settle(pilot)
        assert "Capture activations: 1 n c opens the form as it was left" in notices(pilot)
        await press(pilot, "n", "c")
        assert the_app(pilot).screen.query(Field).first().value == "gpt2"
        assert "As it was left" in screen_text(pilot)
        await press(pilot, "ctrl+n")
        the_app(pilot).look_now()
        await settle(pilot)
        assert StateFile(indexed.root).read().drafts == ()


@pytest.mark.slow
async def test_the_form_of_an_earlier_job_says_its_key_in_the_users_key_map(
    app_workspace: Workspace,
) -> None:
    async with started(app_workspace).run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        await select(pilot, "jobs", next(iter(the_app(pilot).context.jobs())).job_id)
        await press(pilot, "E", "x")
        the_app(pilot).look_now()
        await settle(pilot)
    app = started(app_workspace)
    app.set_keymap({"runs.again": "J"})
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await settle(pilot)
        assert ": 1 J opens the form as it was left" in notices(pilot)


DRAFT = {"form": "Train an SAE", "began": {}, "texts": {"k": "9"}, "open": True, "way": []}


@pytest.mark.parametrize(
    "damaged", [3, {"form": "Train an SAE"}, DRAFT | {"texts": {"k": 9}}, DRAFT | {"way": "n"}]
)
async def test_a_damaged_form_is_left_out_and_told_and_the_others_come_back(
    indexed: Workspace, damaged: object
) -> None:
    whole = DRAFT | {"form": "Capture activations", "way": ["app.runs", "runs.gone"]}
    StateFile(indexed.root).write(SavedState(drafts=(damaged, whole)))
    async with started(indexed).run_test(size=(80, 24), notifications=True) as pilot:
        await settle(pilot)
        assert "saved form 1" in notices(pilot)
        assert "Capture activations: the form opens as it was left" in notices(pilot)
        assert [title for title, _ in drafts_of(the_app(pilot))] == ["Capture activations"]


@pytest.mark.slow
def test_each_workspace_has_its_own_state(tmp_path: Path) -> None:
    one, other = StateFile(tmp_path / "one"), StateFile(tmp_path / "other")
    one.write(SavedState("steer"))
    assert other.read() == SavedState()
    assert one.read() == SavedState("steer")


@pytest.mark.parametrize("text", ["{", "[]", '{"screens": []}', '{"screen": 3}', '{"drafts": {}}'])
def test_a_damaged_file_is_refused(tmp_path: Path, text: str) -> None:
    file = StateFile(tmp_path)
    file.write(SavedState("steer"))
    assert json.loads(file.path.read_text())["workspace"] == str(tmp_path)
    file.path.write_text(text)
    with pytest.raises(CorruptDataError):
        file.read()


@pytest.mark.slow
async def test_how_the_examples_were_drawn_comes_back(indexed: Workspace) -> None:
    async with started(indexed).run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        await press(pilot, "2", "d", "d")
        pilot.app.exit()
    async with started(indexed).run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        screen = pilot.app.screen
        assert screen.query_one(ExampleList).look == "aligned"
        assert "aligned" in screen_text(pilot)


def test_a_damaged_way_to_draw_examples_is_refused() -> None:
    with pytest.raises(CorruptDataError, match="look"):
        saved_look(JsonObject.of({"look": "sideways"}, "the saved state"))


@pytest.mark.parametrize(
    ("read", "saved"),
    [
        (TableQuery.from_json, {"before": ["density"]}),
        (TableQuery.from_json, {"before": ["density", True, 3]}),
        (TableQuery.from_json, {"before": [3, True]}),
        (saved_place, {"map": {"view": [0, 0, 10**400, 1], "at": [0, 0], "sae": SAE}}),
        (saved_place, {"map": {"view": [0, 0, 1, 1], "at": [0, True], "sae": SAE}}),
    ],
)
def test_a_part_of_the_wrong_length_or_size_is_refused(read: Any, saved: dict[str, Any]) -> None:
    with pytest.raises(CorruptDataError):
        read(JsonObject.of(saved, "the saved state"))


def test_a_strength_that_no_number_holds_is_refused() -> None:
    with pytest.raises(UserError, match="too large"):
        Intervention.from_json({"target": "3", "op": "add", "value": 10**400})
