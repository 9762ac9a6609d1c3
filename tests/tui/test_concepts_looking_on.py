"""What Concepts opens: coverage, conflicts, the next to name, groups to Steer, histories."""

import time
from functools import partial

import pytest
from textual.events import Paste
from textual.pilot import Pilot

from mi_crow.mechanistic.concepts.conflicts import Conflict
from mi_crow.mechanistic.explain.check_result import Check, Place
from tests.tui.conftest import NOW
from tests.tui.driving import notices, press, screen_text, settle
from tests.tui.stand_ins import NAMES, SAE, ScriptedSession, give_index
from tui.app import MiCrowApp
from tui.screens.concepts.conflicts import ConflictsPopup
from tui.widgets.lists.feature_table import FeatureTable
from tui.widgets.lists.row_list import RowList


def _name_some(app) -> None:
    for feature, name in NAMES.items():
        tags = ("sea",) if feature in (3, 120) else ()
        app.context.annotations.set_concept(SAE, feature, name, tags=tags)


@pytest.fixture
def open_concepts(open_on):
    return partial(open_on, "5", "g", before=_name_some)


async def test_coverage_is_on_the_screen_and_opens_as_a_curve(open_concepts):
    async with open_concepts() as pilot:
        assert "of firings" in screen_text(pilot)
        await press(pilot, "percent_sign")
        text = screen_text(pilot)
        assert "of all firings are theirs" in text
        assert "names, those that fire most first" in text
        await press(pilot, "escape")


CONFLICTS = [
    Conflict("alike", ("harbours", "ports"), (120, 7), 0.97),
    Conflict("apart", ("numbers in recipes",), (101, 14, 63, 90), 0.08),
]


@pytest.mark.parametrize(
    "size", [(80, 24), pytest.param((200, 60), marks=pytest.mark.slow)], ids=["small", "large"]
)
@pytest.mark.parametrize("what", ["coverage", pytest.param("conflicts", marks=pytest.mark.slow)])
def test_picture_of_what_opens(snap_compare, app_workspace, monkeypatch, what, size):
    app = MiCrowApp(app_workspace, SAE)

    async def drive(pilot: Pilot) -> None:
        await settle(pilot)
        with monkeypatch.context() as patch:
            patch.setattr(time, "time", lambda: NOW)
            _name_some(app)
        give_index(app)
        await settle(pilot)
        await press(pilot, "5", "g")
        if what == "coverage":
            await press(pilot, "percent_sign")
        else:
            await app.push_screen(ConflictsPopup(CONFLICTS))
        await settle(pilot)
        app.clear_notifications()
        await settle(pilot)

    assert snap_compare(app, terminal_size=size, run_before=drive)


async def test_the_next_to_name_are_listed_on_features(open_concepts):
    async with open_concepts() as pilot:
        await press(pilot, "n")
        assert pilot.app.current_mode == "features"
        shown = set(pilot.app.screen.query_one(FeatureTable).shown_ids)
        assert shown
        assert not shown & set(NAMES)


async def test_features_that_tell_two_sets_apart_are_asked_for_on_inspect(open_concepts):
    async with open_concepts() as pilot:
        await press(pilot, "equals_sign")
        await settle(pilot)
        assert pilot.app.current_mode == "inspect"
        assert "label:sea, documents:3,7-12, others" in screen_text(pilot)


async def test_marked_concepts_and_whole_tags_are_steered_as_one(open_concepts):
    async with open_concepts() as pilot:
        await press(pilot, "slash", *"#sea", "enter", "asterisk", "s")
        assert pilot.app.current_mode == "steer"
        [one] = pilot.app.context.steered or pilot.app.screen._stack
        assert one.target == f"group:{SAE}/3+120"
        await press(pilot, "5", "escape", "escape", "g", "S")
        assert "steer by the tag" in screen_text(pilot)
        await press(pilot, "ctrl+u", *"#law", "enter")
        assert "no concept has the tag “#law”" in screen_text(pilot)
        await press(pilot, "ctrl+u", *"#sea", "enter")
        assert pilot.app.current_mode == "steer"
        assert pilot.app.screen._stack[-1].target == f"tag:{SAE}/sea"


async def test_the_tag_to_steer_by_is_that_of_the_filter_and_none_is_said(open_concepts):
    async with open_concepts() as pilot:
        await press(pilot, "slash", *"#sea", "enter", "S")
        assert pilot.app.focused.value == "sea"
        await press(pilot, "escape")
        annotations = pilot.app.context.annotations
        for one in annotations.concepts(SAE):
            annotations.set_concept(SAE, one.feature, one.name, tags=())
        pilot.app.look_now()
        await settle(pilot)
        await press(pilot, "S")
        assert "no concept has a tag; T tags the marked ones" in notices(pilot)


async def test_near_identical_features_get_one_name(open_concepts):
    async with open_concepts() as pilot:
        context = pilot.app.context
        [(one, other)] = context.features.connection.rows(
            "SELECT feature, other FROM idx.neighbours WHERE cosine >= 0.9 "
            "AND feature != other LIMIT 1"
        ) or [(None, None)]
        if one is None:
            await press(pilot, "X")
            assert "no name contradicts another" in screen_text(pilot)
            return
        context.annotations.set_concept(SAE, one, "tide", 1.0)
        context.annotations.set_concept(SAE, other, "flood", 0.5)
        context.features.refresh_concepts()
        await press(pilot, "X")
        assert "alike" in screen_text(pilot)
        await press(pilot, "m")
        names = {c.name for c in context.annotations.concepts(SAE) if c.feature in (one, other)}
        assert len(names) == 1


async def test_the_history_is_of_the_sae_of_everything_or_of_the_feature(open_concepts):
    async with open_concepts() as pilot:
        pilot.app.context.annotations.set_concept("other", 1, "elsewhere")
        await press(pilot, "H")
        assert f"History of {SAE}" in screen_text(pilot)
        assert "elsewhere" not in screen_text(pilot)
        await press(pilot, "f")
        assert "elsewhere" in screen_text(pilot)
        await press(pilot, "f")
        rows = pilot.app.screen.query_one(RowList)
        assert "History of feature" in screen_text(pilot)
        assert rows.row_count == 1


async def test_a_check_shows_where_it_fires(open_concepts):
    async with open_concepts() as pilot:
        session = ScriptedSession()
        wanted = tuple(Place(0, "", word, "", 0.0, True) for word in ("mast", "keel", "a", "b"))
        fired = (
            Place(0, "the ", "mast", " fell", 2.0, True, hits=(0,)),
            Place(0, "a ", "gull", " cries", 0.5, False, alarm=0),
        )
        session.answers["check"] = Check(3, 1, 0, wanted, fired).as_json()
        pilot.app.context._session = session
        await press(pilot, "i", *"the [[mast]] fell", "enter")
        text = screen_text(pilot)
        assert "precision 50%" in text
        assert "recall 25%" in text
        assert "silent" in text
        asked = [params for op, params in session.asked if op == "check"]
        assert asked[0]["words"] == ["the [[mast]] fell"]
        await press(pilot, "l")
        text = screen_text(pilot)
        assert "above 0.5" in text
        assert "precision 100%" in text
        assert "gull" not in text
        await press(pilot, "h", "h")
        assert "1 false alarm" in screen_text(pilot)
        # What is pasted has all its lines: texts, as those of a file.
        await press(pilot, "escape", "i")
        pilot.app.post_message(Paste("the mast fell\n\na [[keel]]\nof oak\n"))
        await press(pilot, "enter", "escape", "i")
        pilot.app.post_message(Paste("\nthe mast fell\r\na keel\r\n"))
        await press(pilot, "enter")
        asked = [params["words"] for op, params in session.asked if op == "check"]
        assert asked[1:] == [
            ["the mast fell", "a [[keel]]\nof oak"],
            ["the mast fell", "a keel"],
        ]
