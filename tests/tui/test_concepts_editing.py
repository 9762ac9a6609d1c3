"""Concepts: the line of a name, tags of several, what is written; the next feature to name."""

import json
from functools import partial

import pytest

from mi_crow.mechanistic.concepts.annotations import Annotations
from tests.tui.driving import notices, press, screen_text, settle, table
from tests.tui.stand_ins import NAMES, SAE
from tui.app import MiCrowApp


@pytest.fixture
def open_concepts(open_on):
    def name_all(app: MiCrowApp) -> None:
        for feature, name in NAMES.items():
            app.context.annotations.set_concept(SAE, feature, name, tags=["old"])

    return partial(open_on, "5", "g", before=name_all, size=(120, 40))


async def test_t_edits_the_whole_line_of_a_concept(open_concepts):
    async with open_concepts() as pilot:
        annotations: Annotations = pilot.app.context.annotations
        concept = pilot.app.screen._concept
        await press(pilot, "t")
        assert pilot.app.screen.prompt.field.value == f"{concept.name} #old"
        await press(pilot, "end", "ctrl+u", *"sea #wet ~0.5 -- salt", "enter")
        (found,) = annotations.concepts(SAE, concept.feature)
        said = (found.name, found.tags, found.confidence, found.note)
        assert said == ("sea", ("wet",), 0.5, "salt")
        await press(pilot, "u")
        assert [one.name for one in annotations.concepts(SAE, concept.feature)] == [concept.name]


async def test_an_edit_of_the_note_leaves_a_long_confidence_as_it_is(open_concepts):
    async with open_concepts() as pilot:
        annotations: Annotations = pilot.app.context.annotations
        feature = pilot.app.screen._concept.feature
        name = annotations.concepts(SAE, feature)[0].name
        annotations.set_concept(SAE, feature, name, 0.998898)
        pilot.app.look_now()
        await settle(pilot)
        await press(pilot, "t")
        assert pilot.app.screen.prompt.field.value == f"{name} ~0.999"
        await press(pilot, "end", *" -- so", "enter")
        (found,) = annotations.concepts(SAE, feature)
        assert (found.confidence, found.note) == (0.998898, "so")


async def test_marked_concepts_are_tagged_and_only_they_are_written(open_concepts, tmp_path):
    async with open_concepts() as pilot:
        annotations: Annotations = pilot.app.context.annotations
        await press(pilot, "space", "space", "T", *"#wet, -old", "enter")
        tags = sorted(one.tags for one in annotations.concepts(SAE))
        assert tags == [("old",), ("old",), ("wet",), ("wet",)]
        assert "#wet" in screen_text(pilot)
        await press(pilot, "w")
        assert "2 of 4 concepts" in screen_text(pilot)
        assert "unmark for all" in screen_text(pilot)
        pilot.app.screen.prompt.field.value = str(tmp_path / "some.json")
        await press(pilot, "enter")
        assert len(json.loads((tmp_path / "some.json").read_text())) == 2
        await press(pilot, "escape", "slash", *"nosuch", "enter")
        assert "None of 4 concepts matches" in screen_text(pilot)
        await press(pilot, "w")
        assert not pilot.app.screen.prompt.is_open
        await press(pilot, "slash", "ctrl+u", *"#old", "enter", "w")
        pilot.app.screen.prompt.field.value = str(tmp_path / "shown.csv")
        await press(pilot, "enter")
        assert len((tmp_path / "shown.csv").read_text().splitlines()) == 3


async def test_the_line_stays_open_for_the_next_feature_and_an_empty_one_skips(open_on):
    async with open_on("2", "g", size=(120, 40)) as pilot:
        annotations: Annotations = pilot.app.context.annotations
        ids = list(table(pilot).shown_ids[:4])
        await press(
            pilot, "t", *"rain", "enter", *"xo", "enter", "ctrl+u", "enter", *"fog", "enter"
        )
        await press(pilot, "escape")
        found = {one.feature: one.name for one in annotations.concepts(SAE)}
        assert found == {ids[0]: "rain", ids[1]: "xo", ids[3]: "fog"}
        assert not pilot.app.screen.prompt.is_open
        assert not notices(pilot)  # they would cover the rows; the list of messages has them
        assert any("fog" in told.sentence for told in pilot.app.message_log.read())


async def test_escape_takes_the_filter_away_and_then_the_marks(open_on):
    async with open_on("2", "g", size=(120, 40)) as pilot:
        await press(pilot, "slash", *"fires>0", "enter", "space", "space")
        assert len(table(pilot).marks) == 2
        await press(pilot, "t")
        assert "2 marked" in screen_text(pilot)
        await press(pilot, "escape", "escape")
        assert "fires>0" not in screen_text(pilot)
        assert len(table(pilot).marks) == 2
        await press(pilot, "escape")
        assert not table(pilot).marks


async def test_an_order_brings_its_column_along(open_on):
    async with open_on("2", "g", size=(120, 40)) as pilot:
        assert "skew" not in table(pilot).columns
        await press(pilot, "slash", *"sort:skew", "enter")
        assert table(pilot).columns[1] == "skew"
        await press(pilot, "escape")
        assert "skew" not in table(pilot).columns


async def test_what_another_app_wrote_while_a_prompt_was_open_stays(open_concepts):
    async with open_concepts() as pilot:
        annotations: Annotations = pilot.app.context.annotations
        concept = pilot.app.screen._concept
        other = Annotations(annotations.path, actor="bob")
        prompts = {"T": "wet", "t": " #cold", "e": " more", "C": "0.5"}
        for at, (keys, typed) in enumerate(prompts.items()):
            await press(pilot, keys)
            said = 0.4, f"bob's {at}", ["old", f"bob-{at}"]
            other.set_concept(SAE, concept.feature, concept.name, *said)
            await press(pilot, *(["ctrl+u"] if keys == "C" else []), *typed, "enter")
            (found,) = annotations.concepts(SAE, concept.feature)
            assert found.tags[:2] == ("old", f"bob-{at}")
            assert found.tags[2:] == {"T": ("wet",), "t": ("cold",)}.get(keys, ())
            assert (found.note == f"bob's {at}") == (keys != "e")
            assert (found.confidence == 0.4) == (keys != "C")
            pilot.app.look_now()
            await settle(pilot)
        other.close()


async def test_an_edit_of_a_name_that_is_gone_says_so_and_keeps_what_was_typed(open_concepts):
    async with open_concepts() as pilot:
        annotations: Annotations = pilot.app.context.annotations
        concept = pilot.app.screen._concept
        await press(pilot, "T")
        other = Annotations(annotations.path, actor="bob")
        other.set_concept(SAE, concept.feature, "bob's")
        other.remove_concept(SAE, concept.feature, concept.name)
        other.close()
        await press(pilot, *"wet", "enter")
        assert [one.name for one in annotations.concepts(SAE, concept.feature)] == ["bob's"]
        assert "is not there any more" in notices(pilot)
        assert "Not saved: wet" in notices(pilot)
