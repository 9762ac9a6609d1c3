"""Tagging at the speed of reading: the next unnamed feature, further names, many at once."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from mi_crow.mechanistic.concepts.annotations import Annotations
from mi_crow.mechanistic.concepts.naming_line import complete_naming, parse_naming
from tests.tui.driving import notices, press, screen_text, settle, table
from tests.tui.stand_ins import SAE
from tui.widgets.field import CompletingField


@pytest.fixture
def open_features(open_on):
    return lambda size=(120, 40): open_on("2", "g", size=size)


async def test_enter_goes_on_to_the_next_without_a_name_and_alt_enter_stays(open_features):
    async with open_features() as pilot:
        annotations: Annotations = pilot.app.context.annotations
        ids = list(table(pilot).shown_ids[:4])
        annotations.set_concept(SAE, ids[1], "taken")
        pilot.app.context.features.refresh_concepts()
        await press(pilot, "t", *"rain #wet ~0.5", "enter")
        assert table(pilot).feature == ids[2]
        await press(pilot, *"fog", "alt+enter")
        assert table(pilot).feature == ids[2]
        found = {c.feature: (c.name, c.tags, c.confidence) for c in annotations.concepts(SAE)}
        assert found == {
            ids[0]: ("rain", ("wet",), 0.5),
            ids[1]: ("taken", (), 1.0),
            ids[2]: ("fog", (), 1.0),
        }
        await press(pilot, "t", *"+mist ~0.3", "ctrl+t")
        names = [c.name for c in annotations.concepts(SAE, ids[2])]
        assert names == ["fog", "mist"]
        row = table(pilot).row_at(table(pilot).cursor)
        assert row is not None
        assert row.concept == "fog"


async def test_a_line_that_is_wrong_stays_and_one_name_is_one_change(open_features):
    async with open_features(size=(80, 24)) as pilot:
        await press(pilot, "t", *"rain #wet ~1.5", "enter")
        assert "~1.5 is not a confidence" in screen_text(pilot)
        field = pilot.app.screen.query_one(CompletingField)
        assert field.value == "rain #wet ~1.5"
        await press(pilot, "ctrl+u", *"rain")
        assert "saves" in screen_text(pilot)
        await press(pilot, *"y days of a long autumn by the sea")
        assert "rainy days of a long autumn by the sea" in screen_text(pilot)  # the hint makes room
        await press(pilot, "ctrl+u", *"rain #wet ~0.5 -- hail", "enter")
        annotations: Annotations = pilot.app.context.annotations
        (change,) = annotations.past_changes()
        assert change.what.startswith("name “rain” of feature")


async def test_a_filters_result_is_named_with_tags_at_once(open_features):
    async with open_features() as pilot:
        await press(pilot, "slash", *"label:weather", "enter", "asterisk")
        marked = set(table(pilot).marks)
        assert len(marked) > 1
        await press(pilot, "t", *"weather #auto ~0.4 -- by label", "enter")
        annotations: Annotations = pilot.app.context.annotations
        found = annotations.concepts(SAE)
        assert {c.feature for c in found} == marked
        assert {(c.name, c.tags, c.confidence, c.note) for c in found} == {
            ("weather", ("auto",), 0.4, "by label")
        }
        await press(pilot, "u")
        assert annotations.concepts(SAE) == []


async def test_known_names_and_tags_complete_the_line(open_features):
    async with open_features() as pilot:
        annotations: Annotations = pilot.app.context.annotations
        annotations.set_concept(SAE, 3, "sails and masts", tags=("rigging",))
        pilot.app.context.features.refresh_concepts()
        await press(pilot, "t", "ctrl+u", *"sai")
        field = pilot.app.screen.query_one(CompletingField)
        assert field.has_ghost
        await press(pilot, "tab", *" #rig", "tab")
        assert field.value == "sails and masts #rigging"


async def test_who_tagged_what_elsewhere_is_said(open_features):
    async with open_features() as pilot:
        path = pilot.app.context.annotations.path
        pilot.app.context.annotations.set_concept(SAE, 7, "mine")
        pilot.app.look_now()
        await settle(pilot)
        Annotations(path, actor="ada").set_concept(SAE, 5, "sails")
        pilot.app.look_now()
        await settle(pilot)
        assert "ada, " in notices(pilot)
        assert "name “sails” of feature 5" in notices(pilot)
        assert "mine" not in notices(pilot)


async def test_a_name_that_came_while_one_was_typed_is_said(open_features):
    async with open_features() as pilot:
        annotations: Annotations = pilot.app.context.annotations
        feature = int(table(pilot).shown_ids[0])
        await press(pilot, "t", *"rain")
        Annotations(annotations.path, actor="ada").set_concept(SAE, feature, "fog")
        await press(pilot, "ctrl+t")
        assert f"#{feature} is also “rain”: meanwhile it was named “fog”" in notices(pilot)
        assert [c.name for c in annotations.concepts(SAE, feature)] == ["fog", "rain"]


async def test_what_a_name_did_besides_is_seen_while_the_next_is_typed(open_features):
    async with open_features(size=(80, 24)) as pilot:
        annotations: Annotations = pilot.app.context.annotations
        others = Annotations(annotations.path, actor="ada")
        first, second, third, fourth = (int(one) for one in table(pilot).shown_ids[:4])
        decoder = np.zeros((pilot.app.context.features.meta().n_features, 4), dtype=np.float32)
        decoder[[first, second]] = np.eye(4, dtype=np.float32)[:2]  # nothing in common
        folder = pilot.app.context.workspace.saes_dir / SAE
        folder.mkdir(parents=True, exist_ok=True)
        save_file({"W_dec": decoder}, folder / "sae_weights.safetensors")
        await press(pilot, "t", *"rain", "enter")
        assert notices(pilot) == ""
        await press(pilot, *"Rain", "enter")  # the line is open again
        conflict = f"#{second} is “Rain”; so is feature {first}, far apart (cosine 0.00)"
        assert notices(pilot) == conflict
        await press(pilot, *"rain", "enter")  # the conflict is there already
        assert notices(pilot) == conflict
        assert f"#{third} is “rain”; so are" in pilot.app.message_log.read()[0].sentence
        others.set_concept(SAE, fourth, "fog")
        await press(pilot, *"snow", "enter")
        assert f"#{fourth} is also “snow”: meanwhile it was named “fog”" in notices(pilot)


def test_a_plus_is_a_further_name_and_words_are_completed():
    assert parse_naming("+ rain #a").beside
    assert parse_naming("+ rain #a").name == "rain"
    assert not parse_naming("c++").beside
    assert complete_naming("+ra", ["rain"], []) == ["+rain"]
    assert complete_naming("rain #", ["rain"], ["wet"]) == []
    assert complete_naming("rain #W", ["rain"], ["wet"]) == ["rain #wet"]
