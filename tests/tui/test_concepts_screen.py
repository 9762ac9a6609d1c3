"""The Concepts screen: the list of names, changes of many, undo, files in and out."""

import json
from functools import partial

import pytest
from textual.pilot import Pilot

from mi_crow.errors import UserError
from mi_crow.mechanistic.features.records import FeatureFilter
from tests.tui.driving import notices, press, screen_text, settle
from tests.tui.stand_ins import NAMES, SAE, give_index
from tui.app import MiCrowApp
from tui.screens.concepts.importing import ImportPopup
from tui.screens.concepts.typed_path import typed_path
from tui.screens.features.detail import FeatureDetailPane
from tui.widgets.field import Field
from tui.widgets.frame.popup import Confirm
from tui.widgets.lists.row_list import RowList
from tui.widgets.prompt_line import PromptLine


@pytest.fixture
def open_concepts(open_on):
    def name_all(app: MiCrowApp) -> None:
        for feature, name in NAMES.items():
            app.context.annotations.set_concept(SAE, feature, name)

    return partial(open_on, "5", "g", before=name_all)


def rows(pilot: Pilot) -> list[str]:
    found = pilot.app.screen.query_one("#concepts-list", RowList).rows
    return sorted(row.cells[0].more[0][0] for row in found)


def names(pilot: Pilot) -> list[str]:
    app = pilot.app
    assert isinstance(app, MiCrowApp)
    return sorted(concept.name for concept in app.context.annotations.concepts(SAE))


async def test_every_name_is_listed_with_its_feature_and_the_coverage(open_concepts):
    async with open_concepts() as pilot:
        assert rows(pilot) == sorted(NAMES.values())
        text = screen_text(pilot)
        assert all(f"#{feature}" in text for feature in NAMES)
        firing = len(pilot.app.context.features.ids(flt=FeatureFilter(alive=True)))
        assert f"4 of {firing} firing features named" in text


@pytest.mark.slow
async def test_nothing_named_yet_says_what_to_do(run_app, app_workspace):
    async with run_app(app_workspace, sae_id=SAE) as pilot:
        give_index(pilot.app)
        await settle(pilot)
        await press(pilot, "5", "x", "r", "space", "enter", "y")
        assert "No concepts yet" in screen_text(pilot)


async def test_the_filter_narrows_the_list_and_escape_clears_it(open_concepts):
    async with open_concepts() as pilot:
        await press(pilot, "slash", *"mast")
        assert rows(pilot) == ["sails and masts"]
        await press(pilot, "enter", "escape")
        assert rows(pilot) == sorted(NAMES.values())


@pytest.mark.slow
async def test_enter_opens_the_feature(open_concepts):
    async with open_concepts() as pilot:
        key = pilot.app.screen.query_one(RowList).key or ""
        await press(pilot, "enter")
        assert pilot.app.current_mode == "features"
        pane = pilot.app.screen.query_one(FeatureDetailPane)
        assert pane.feature == int(key.partition(":")[0])


async def test_a_concept_is_renamed_and_the_change_undone(open_concepts):
    async with open_concepts() as pilot:
        await press(pilot, "slash", *"mast", "enter", "r", *"rigging", "enter", "escape")
        assert "rigging" in rows(pilot)
        assert "sails and masts" not in names(pilot)
        await press(pilot, "u")
        assert names(pilot) == sorted(NAMES.values())


@pytest.mark.slow
async def test_notes_and_confidence_are_kept(open_concepts):
    async with open_concepts() as pilot:
        await press(pilot, "slash", *"mast", "enter", "e", *"parts", "enter")
        await press(pilot, "C", *"0.5", "enter")
        (concept,) = (c for c in pilot.app.context.annotations.concepts(SAE) if c.feature == 3)
        assert (concept.note, concept.confidence) == ("parts", 0.5)
        pilot.app.clear_notifications()
        await pilot.pause()
        assert "parts" in screen_text(pilot)


@pytest.mark.slow
async def test_a_confidence_beyond_one_is_refused(open_concepts):
    async with open_concepts() as pilot:
        await press(pilot, "C", *"7", "enter")
        assert "7 is more than 1" in screen_text(pilot)
        assert pilot.app.screen.query_one(PromptLine).is_open  # what was typed is still there
        assert {c.confidence for c in pilot.app.context.annotations.concepts(SAE)} == {1.0}


@pytest.mark.slow
async def test_marked_concepts_are_removed_together_after_a_question(open_concepts):
    async with open_concepts() as pilot:
        await press(pilot, "space", "space", "x")
        assert "Remove 2 concepts?" in screen_text(pilot)
        await press(pilot, "n")
        assert len(names(pilot)) == 4
        await press(pilot, "x", "y")
        assert len(names(pilot)) == 2


@pytest.mark.slow
async def test_one_concept_is_removed_at_once_and_comes_back(open_concepts):
    async with open_concepts() as pilot:
        await press(pilot, "x")
        assert len(rows(pilot)) == 3
        await press(pilot, "u")
        assert len(rows(pilot)) == 4


async def test_concepts_are_written_to_a_file_and_read_again(open_concepts, tmp_path):
    path = tmp_path / "concepts.json"
    async with open_concepts() as pilot:
        await press(pilot, "w", "ctrl+u")
        pilot.app.screen.prompt.field.value = str(path)
        await press(pilot, "enter")
        assert set(NAMES.values()) <= set(json.dumps(json.loads(path.read_text())).split('"'))
        for _ in NAMES:
            await press(pilot, "x")
        assert names(pilot) == []
        await press(pilot, "I")
        pilot.app.screen.prompt.field.value = str(path)
        await press(pilot, "enter")
        assert names(pilot) == sorted(NAMES.values())


async def test_a_prompt_ends_when_the_focus_goes_elsewhere_and_not_before(open_concepts):
    async with open_concepts() as pilot:
        await press(pilot, "w", "ctrl+u")
        assert pilot.app.screen.prompt.is_open
        pilot.app.screen.focus_home()
        await settle(pilot)
        assert not pilot.app.screen.prompt.is_open
        await press(pilot, "w", "ctrl+u")  # asked for again, it takes what is typed
        assert pilot.app.screen.prompt.is_open
        assert pilot.app.screen.focused is pilot.app.screen.prompt.field


@pytest.mark.slow
async def test_a_file_that_is_not_there_is_told(open_concepts):
    async with open_concepts() as pilot:
        await press(pilot, "I", *"nowhere.json", "enter")
        assert "file 'nowhere.json' not found" in " ".join(screen_text(pilot).split())
        assert pilot.app.screen.prompt.is_open
        assert names(pilot) == sorted(NAMES.values())


@pytest.mark.slow
async def test_nothing_is_written_over_a_file_without_a_yes(open_concepts, tmp_path):
    path = tmp_path / "names.json"
    path.write_text("mine")
    async with open_concepts() as pilot:
        await press(pilot, "w")
        pilot.app.screen.query_one(PromptLine).query_one(Field).value = str(path)
        await press(pilot, "enter")
        assert isinstance(pilot.app.screen, Confirm)
        await press(pilot, "n")
        assert path.read_text() == "mine"
        await press(pilot, "w")
        pilot.app.screen.query_one(PromptLine).query_one(Field).value = str(path)
        await press(pilot, "enter", "y")
        assert len(json.loads(path.read_text())) == len(NAMES)


async def test_an_import_asks_by_which_rule_and_shows_what_it_would_change(open_concepts, tmp_path):
    path = tmp_path / "names.json"
    feature, name = next(iter(NAMES.items()))
    rows = [
        {"sae_id": SAE, "feature": feature, "name": name, "note": "another note"},
        {"sae_id": SAE, "feature": feature, "name": "another name"},
        {"sae_id": SAE, "feature": -1, "name": "nowhere"},
        {"sae_id": SAE, "feature": 1, "name": ""},
    ]
    path.write_text(json.dumps(rows))
    async with open_concepts() as pilot:
        annotations = pilot.app.context.annotations
        annotations.set_concept(SAE, feature, name, note="my note")

        def said() -> dict[str, str]:
            return {one.name: one.note for one in annotations.concepts(SAE, feature)}

        await press(pilot, "I")
        pilot.app.screen.query_one(PromptLine).query_one(Field).value = str(path)
        await press(pilot, "enter")
        assert isinstance(pilot.app.screen, ImportPopup)
        troubles = "2 rows are wrong", "row 3: feature -1", "row 4: a concept needs a name"
        for words in ("[keep]", "2 not taken, yours stay", "nothing changes", *troubles):
            assert words in screen_text(pilot)
        await press(pilot, "l", "l")
        for words in ("[both]", "another name", "my note", "another name"):
            assert words in screen_text(pilot)
        await press(pilot, "enter")
        assert "leaves out the rows that are wrong" in notices(pilot)
        assert said() == {name: "my note"}
        await press(pilot, "space", "enter")
        assert said() == {name: "my note\nanother note", "another name": ""}
        await press(pilot, "u")
        assert said() == {name: "my note"}


@pytest.mark.parametrize("text", ["~no-such-user/a.json", "x" * 300 + ".json", "/etc/passwd/a.csv"])
def test_a_path_that_cannot_be_is_told(text):
    with pytest.raises(UserError):
        typed_path(text)
