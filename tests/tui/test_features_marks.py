"""Marked features: they outlive orders and filters, and are changed, sent and written together."""

import json

import pytest

from tests.tui.driving import notices, press, screen_text, settle, table
from tests.tui.test_features_index import SAE
from tui.screens.steer.screen import SteerScreen
from tui.widgets.area import Area
from tui.widgets.lists.feature_marks import FeatureMarks


def names(pilot) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for one in pilot.app.context.annotations.concepts(SAE):
        found.setdefault(one.feature, []).append(one.name)
    return found


@pytest.mark.slow
async def test_marks_outlive_orders_and_filters(open_index):
    async with open_index((80, 24)) as pilot:
        await press(pilot, "space", "j", "space")
        marked = list(table(pilot).marks)
        assert len(marked) == 2
        assert "2 marked" in screen_text(pilot)
        await press(pilot, "o", "slash", *"mast", "escape", "O")
        assert list(table(pilot).marks) == marked
        await press(pilot, "slash", *"max>0 sort:density", "enter", "g")
        assert sum("•" in line[:3] for line in screen_text(pilot).splitlines()) == 2


@pytest.mark.slow
async def test_marks_that_a_filter_leaves_out_are_told_of(open_index):
    async with open_index((80, 24)) as pilot:
        await press(pilot, "*")
        total = len(table(pilot).shown_ids)
        assert f"{total} marked" in screen_text(pilot)
        assert "not shown" not in screen_text(pilot)
        await press(pilot, "slash", *"mast", "enter")
        hidden = total - len(table(pilot).shown_ids)
        assert 0 < hidden < total
        assert f"{total} marked, {hidden} not shown" in screen_text(pilot)


@pytest.mark.slow
async def test_a_range_goes_from_the_last_mark(open_index):
    async with open_index((80, 24)) as pilot:
        ids = list(table(pilot).shown_ids)
        await press(pilot, "j", "space", "j", "j", "v")
        assert list(table(pilot).marks) == sorted(ids[1:5])


@pytest.mark.slow
async def test_all_shown_are_marked_and_unmarked(open_index):
    async with open_index((80, 24)) as pilot:
        await press(pilot, "slash", *"label:sailing", "enter")
        some = table(pilot).row_count
        await press(pilot, "asterisk", "escape")
        assert len(table(pilot).marks) == some < table(pilot).row_count
        await press(pilot, "asterisk", "asterisk")
        assert not table(pilot).marks


async def test_one_name_for_all_is_one_change(open_index):
    async with open_index((80, 24)) as pilot:
        await press(pilot, "space", "space", "space", "t", *"boats", "enter")
        marked = list(table(pilot).marks)
        assert names(pilot) == {feature: ["boats"] for feature in marked}
        await press(pilot, "T", *"todo, seen", "enter", "e", *"look", "enter")
        found = pilot.app.context.annotations.concepts(SAE)
        assert {(one.tags, one.note) for one in found} == {(("todo", "seen"), "look")}
        await press(pilot, "e", "enter")  # it is there to be changed, and stays
        found = pilot.app.context.annotations.concepts(SAE)
        assert {one.note for one in found} == {"look"}
        await press(pilot, "e", "end", *" again", "enter")
        found = pilot.app.context.annotations.concepts(SAE)
        assert {one.note for one in found} == {"look again"}
        await press(pilot, "T", *"-todo", "enter")
        found = pilot.app.context.annotations.concepts(SAE)
        assert {one.tags for one in found} == {("seen",)}
        await press(pilot, "x")
        assert names(pilot) == {}
        await press(pilot, "u")
        assert set(names(pilot)) == set(marked)
        await press(pilot, "u", "u", "u", "u", "u")
        assert names(pilot) == {}


async def test_names_and_tags_are_completed_for_the_marked_too(open_index):
    async with open_index((80, 24)) as pilot:
        annotations = pilot.app.context.annotations
        known = int(table(pilot).shown_ids[-1])
        annotations.set_concept(SAE, known, "boats", tags=("harbour",))
        pilot.app.look_now()
        await settle(pilot)
        await press(pilot, "space", "space", "t", *"boa", "right", "space", "#", *"har", "right")
        await press(pilot, "enter")
        marked = set(table(pilot).marks)
        found = {one.feature: one for one in annotations.concepts(SAE)}
        assert {(found[one].name, found[one].tags) for one in marked} == {("boats", ("harbour",))}
        await press(pilot, "T", *"seen, -har", "right", "enter")
        found = {one.feature: one.tags for one in annotations.concepts(SAE)}
        assert {found[one] for one in marked} == {("seen",)}
        assert found[known] == ("harbour",)


@pytest.mark.slow
async def test_tags_need_a_name_and_say_so(open_index):
    async with open_index((80, 24)) as pilot:
        await press(pilot, "space", "T", *"todo", "enter")
        assert "has a name yet" in notices(pilot)
        assert names(pilot) == {}


async def test_tags_bring_proposed_names_which_is_said_before(open_index, monkeypatch):
    async with open_index((80, 24)) as pilot:
        marked = int(table(pilot).shown_ids[0])
        monkeypatch.setattr(
            "tui.screens.features.marking.proposed_by", lambda *_: {marked: ("sails", 0.9)}
        )
        await press(pilot, "space", "space", "T")
        assert "1 gets its proposed name" in screen_text(pilot)
        await press(pilot, *"todo", "enter")
        assert "1 without a name left out" in notices(pilot)
        assert names(pilot) == {marked: ["sails"]}
        await press(pilot, "u")
        assert names(pilot) == {}


async def test_the_marked_become_one_stack(open_index):
    async with open_index((80, 24)) as pilot:
        await press(pilot, "space", "space", "space")
        marked = list(table(pilot).marks)
        await press(pilot, "s")
        screen = pilot.app.screen
        assert isinstance(screen, SteerScreen)
        assert [one.feature for one in screen._stack] == marked


@pytest.mark.slow
async def test_too_many_for_a_stack_are_refused(open_index, monkeypatch):
    monkeypatch.setattr("tui.screens.features.marking.MOST_STEERED", 2)
    async with open_index((80, 24)) as pilot:
        await press(pilot, "asterisk", "s")
        assert "at most 2" in notices(pilot)
        assert not isinstance(pilot.app.screen, SteerScreen)


@pytest.mark.slow
async def test_the_strongest_texts_of_the_marked_go_to_inspect(open_index, monkeypatch):
    monkeypatch.setattr("tui.screens.inspect.screen.InspectScreen.action_run", lambda self: None)
    async with open_index((80, 24)) as pilot:
        await press(pilot, "space", "space")
        store, marked = pilot.app.context.features, list(table(pilot).marks)
        await press(pilot, "i")
        text = pilot.app.screen.query_one(Area).text
        for feature in marked:
            example = store.examples(feature, limit=1)[0]
            assert "".join(example.tokens).strip() in text


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["html", pytest.param("json", marks=pytest.mark.slow)])
async def test_the_marked_are_written_to_a_file(open_index, tmp_path, ending):
    path = tmp_path / f"out.{ending}"
    async with open_index((80, 24)) as pilot:
        await press(pilot, "space", "space", "w")
        pilot.app.screen.prompt.field.value = str(path)
        await press(pilot, "enter")
        assert "Wrote 2 features" in notices(pilot)
        written = path.read_text()
        if ending == "json":
            found = [one["feature"] for one in json.loads(written)["features"]]
            assert sorted(found) == list(table(pilot).marks)
        else:
            assert written.count("<article ") == 2
        before = path.stat().st_mtime_ns
        await press(pilot, "w")
        pilot.app.screen.prompt.field.value = str(path)
        await press(pilot, "enter")
        assert "Replace" in screen_text(pilot)
        await press(pilot, "n")
        await settle(pilot)
        assert path.stat().st_mtime_ns == before


async def test_the_line_stays_open_for_a_place_where_nothing_can_be_written(open_index, tmp_path):
    async with open_index((80, 24)) as pilot:
        await press(pilot, "w")
        prompt = pilot.app.screen.prompt
        for name, says in (
            ("out.pdf", "does not end in .html or .json"),
            ("mistyped/out.html", "does not exist; name one that does"),
            (".", "is a folder; name a file in it"),
        ):
            prompt.field.value = str(tmp_path / name)
            await press(pilot, "enter")
            assert prompt.is_open
            assert says in " ".join(screen_text(pilot).split())
            assert prompt.field.value == str(tmp_path / name)
        assert not list(tmp_path.glob("mistyped"))
        prompt.field.value = str(tmp_path / "out.html")
        await press(pilot, "enter")
        assert not prompt.is_open
        assert (tmp_path / "out.html").is_file()


async def test_a_line_that_is_refused_stays_open_with_the_reason(open_index):
    async with open_index((80, 24)) as pilot:
        prompt = pilot.app.screen.prompt
        await press(pilot, "t", *"#walk", "enter")  # one feature without a name
        assert prompt.is_open
        assert "the line has no name" in screen_text(pilot)
        await press(pilot, "escape", "space", "space", "t", *"#walk", "enter")
        assert prompt.is_open
        assert prompt.field.value == "#walk"
        assert "the line has no name" in screen_text(pilot)
        await press(pilot, "home", *"to ", "enter", "T")
        prompt.field.value = long = "x" * 20_000
        await press(pilot, "enter")
        assert prompt.is_open
        assert prompt.field.value == long
        assert "has 20,000 characters" in screen_text(pilot)
        await press(pilot, "ctrl+u", *"far", "enter")
        assert not prompt.is_open
        assert {one.tags for one in pilot.app.context.annotations.concepts(SAE)} == {
            ("walk", "far")
        }


def test_marks_are_saved_as_runs():
    marks = FeatureMarks([1, 2, 3, 7, 131_071])
    assert marks.as_json() == [[1, 3], [7, 7], [131_071, 131_071]]
    assert list(FeatureMarks.from_json(marks.as_json())) == list(marks)
