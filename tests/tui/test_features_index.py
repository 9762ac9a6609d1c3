"""The feature screens on a real index and real annotations: what a reader does with them."""

import re

import pytest
from textual.pilot import Pilot

from mi_crow.mechanistic.features.records import FeatureFilter
from tests.helpers.index_fixture import TOPICS, make_index
from tests.tui.driving import jump, press, screen_text, settle, table
from tui.screens.features.detail import FeatureDetailPane
from tui.screens.features.heading import TableHeading
from tui.widgets.lists.row_list import RowList
from tui.widgets.prompt_line import PromptLine

SAE = "fixture-sae"
MAST = [word for words in TOPICS.values() for word in words].index("mast")


def listed(pilot: Pilot) -> list[int]:
    shown = table(pilot)
    rows = [shown.row_at(place) for place in range(shown.row_count)]
    return [row.feature for row in rows if row is not None]


async def test_a_feature_shows_what_the_index_holds(open_index):
    async with open_index() as pilot:
        await jump(pilot, MAST)
        detail = pilot.app.context.features.detail(MAST)
        best = pilot.app.context.features.examples(MAST, limit=1)[0]
        text = screen_text(pilot)
        assert f"#{MAST}" in text
        assert f"{best.activation:.2f} “mast”" in text
        assert f"AUROC {detail.labels[0].label} " in text
        assert detail.promoted[0][0].strip() in text


@pytest.mark.slow
async def test_a_named_feature_is_found_again_by_its_name(open_index):
    async with open_index() as pilot:
        await jump(pilot, MAST)
        await press(pilot, "escape", "t", *"rigging", "enter", "escape")
        await press(pilot, "g", "slash", *"riggi")
        assert table(pilot).row_count == 1
        assert table(pilot).feature == MAST
        assert "rigging" in screen_text(pilot)
        await press(pilot, "enter", "5")
        assert "rigging" in screen_text(pilot)
        assert pilot.app.screen.query_one(RowList).key == f"{MAST}:rigging"


async def test_the_filter_searches_the_texts(open_index):
    async with open_index() as pilot:
        await press(pilot, "slash", *"anchor", "enter")
        assert 0 < table(pilot).row_count < pilot.app.context.features.meta().n_features
        assert table(pilot).row_at(0) is not None


def marked_in_field(pilot: Pilot) -> str:
    """The part of the field's text that is underlined."""
    strip = pilot.app.screen.query_one(PromptLine).field.render_line(0)
    return "".join(one.text for one in strip if one.style is not None and one.style.underline)


async def test_the_wrong_part_of_a_filter_is_marked_where_it_stands(open_index):
    async with open_index() as pilot:
        await press(pilot, "slash", *"  density<abc max>2")
        assert marked_in_field(pilot) == "density<abc"
        await press(pilot, "ctrl+u", *" like:7777 max>2")
        assert marked_in_field(pilot) == "like:7777"
        await press(pilot, "ctrl+u", *"max>2")
        assert marked_in_field(pilot) == ""


async def test_a_filter_that_the_index_refuses_keeps_its_line_open(open_index):
    async with open_index() as pilot:
        await press(pilot, "slash")
        await pilot.press(*"like:7777", "enter")  # before the index has answered
        await settle(pilot)
        prompt = pilot.app.screen.query_one(PromptLine)
        assert prompt.is_open
        assert prompt.field.value == "like:7777"
        assert "feature 7777 is not in this SAE" in screen_text(pilot)
        await press(pilot, "escape")
        assert not prompt.is_open
        assert "all features" not in screen_text(pilot)


@pytest.mark.slow
async def test_under_a_filter_the_arrow_tells_the_order(open_index):
    async with open_index() as pilot:
        store = pilot.app.context.features
        await press(pilot, "slash", *"harbour", "enter")
        assert "by relevance↓" in screen_text(pilot)
        found = store.ids(search="harbour", flt=FeatureFilter(alive=True)).tolist()
        assert listed(pilot) == found
        while "max↓" not in screen_text(pilot):
            await press(pilot, "o")
        strengths = [row.max_act for row in store.rows(listed(pilot))]
        assert len(strengths) == len(found)
        assert strengths == sorted(strengths, reverse=True)
        await press(pilot, "escape")
        assert "max↓" in screen_text(pilot)


@pytest.mark.slow
async def test_a_label_at_chance_level_is_never_a_name(open_index, monkeypatch):
    monkeypatch.delenv("TMUX", raising=False)
    async with open_index() as pilot:
        feature = 1  # tells cooking perfectly on training documents, 0.67 on held-out ones
        await jump(pilot, feature)
        assert "no label reaches 0.7" in screen_text(pilot)
        await press(pilot, "escape", "y")
        assert pilot.app.clipboard == str(feature)
        await press(pilot, "t")
        assert pilot.app.screen.query_one(PromptLine).field.value == ""


@pytest.mark.slow
async def test_what_is_shown_goes_from_firing_to_named_to_unnamed_to_all(open_index):
    async with open_index() as pilot:
        total = pilot.app.context.features.meta().n_features
        firing = table(pilot).row_count
        pilot.app.context.annotations.set_concept(SAE, MAST, "masts")
        pilot.app.look_now()
        await settle(pilot)
        counts = []
        for _ in range(4):
            await press(pilot, "f")
            counts.append(table(pilot).row_count)
        assert counts == [1, firing - 1, total, firing]


@pytest.mark.slow
async def test_the_order_is_always_told(open_index):
    async with open_index() as pilot:
        count = table(pilot).row_count
        told = set()
        for _ in range(8):
            await press(pilot, "o")
            told.update(re.findall(r"\S+[↓↑]", screen_text(pilot)))
            assert table(pilot).row_count == count
        assert {mark[:3] for mark in told} >= {"fea", "den", "fir", "max", "mea", "AUR"}


@pytest.mark.slow
async def test_a_change_by_another_process_shows_by_itself(open_index, empty_workspace):
    from mi_crow.mechanistic.concepts.annotations import Annotations

    async with open_index() as pilot:
        await jump(pilot, MAST)
        Annotations(empty_workspace.annotations_path).set_concept(SAE, MAST, "elsewhere")
        pilot.app.look_now()
        await settle(pilot)
        assert "elsewhere" in screen_text(pilot)


@pytest.mark.slow
async def test_a_rebuilt_index_is_shown_without_a_restart(open_index, empty_workspace):
    async with open_index() as pilot:
        before = pilot.app.context.features.meta().n_features
        make_index(empty_workspace, SAE, n_features=before + 16, seed=1)
        pilot.app.look_now()
        await settle(pilot)
        await press(pilot, "f", "f", "f")  # all
        assert table(pilot).row_count == before + 16
        assert f"{before + 16}" in pilot.app.screen.query_one(TableHeading).render().plain


@pytest.mark.slow
async def test_awkward_texts_are_shown_as_they_are(open_index):
    async with open_index(size=(200, 60)) as pilot:
        for feature in range(12, 24):  # the words of sailing and weather
            await jump(pilot, feature)
            text = screen_text(pilot)
            assert "\x1b" not in text
            assert "\u202e" not in text
        pane = pilot.app.screen.query_one(FeatureDetailPane)
        assert pane.feature == 23


@pytest.mark.slow
async def test_the_coverage_of_the_index_is_told(open_index):
    async with open_index() as pilot:
        firing = table(pilot).row_count
        pilot.app.context.annotations.set_concept(SAE, MAST, "masts")
        await press(pilot, "5")
        assert f"1 of {firing} firing features named" in screen_text(pilot)
        label = pilot.app.context.features.detail(MAST).labels[0]
        shown = "–" if label.auroc_heldout is None else f"{label.auroc_heldout:.2f}"
        assert re.search(rf" {shown} .* {label.label} ", screen_text(pilot))


@pytest.mark.slow
async def test_i_in_the_table_takes_the_strongest_text_along(open_index):
    async with open_index(size=(80, 24)) as pilot:
        await press(pilot, "enter", "escape", "j", "j")  # the hidden pane is a feature behind
        feature = table(pilot).feature
        strongest = pilot.app.context.features.examples(feature, limit=1)[0]
        sent = []
        go = pilot.app.go

        async def noted(name, message=None):
            sent.append(message)
            await go(name, None)

        pilot.app.go = noted
        await press(pilot, "i")
        assert (sent[0].feature, sent[0].text) == (feature, strongest.text)


@pytest.mark.slow
async def test_another_sae_starts_at_its_own_first_feature(open_index, empty_workspace):
    async with open_index() as pilot:
        await jump(pilot, 60)
        make_index(empty_workspace, "smaller", n_features=30, seed=3)
        pilot.app.open_sae("smaller")
        await settle(pilot)
        assert table(pilot).row_count <= 30
        assert pilot.app.screen.query_one(FeatureDetailPane).feature == table(pilot).feature


async def test_the_filter_takes_conditions_and_an_order(open_index):
    async with open_index() as pilot:
        store = pilot.app.context.features
        firing = store.ids("max_act", flt=FeatureFilter(alive=True)).tolist()
        wanted = [n for n in firing if store.rows([n])[0].density > 0.03]
        assert 0 < len(wanted) < len(firing)
        await press(pilot, "slash", *"density>3% sort:max", "enter")
        assert table(pilot).row_count == len(wanted)
        assert listed(pilot) == wanted[: len(listed(pilot))]
        heading = str(pilot.app.screen.query_one(TableHeading).render())
        assert "“density>3%" in heading
        assert "max↓" in heading
        await press(pilot, "escape")
        assert table(pilot).row_count == len(firing)


@pytest.mark.slow
async def test_half_a_condition_is_explained_while_it_is_typed_and_finds_what_was_found(
    open_index,
):
    async with open_index() as pilot:
        await press(pilot, "slash", *"mast")
        found = listed(pilot)
        await press(pilot, *" max>")
        assert listed(pilot) == found
        assert "max> needs a number" in screen_text(pilot)
        await press(pilot, "enter")
        assert pilot.app.screen.query_one(PromptLine).is_open
        await press(pilot, *"0 label:sailin")
        assert "not in the index" not in screen_text(pilot)  # it can still become one
        await press(pilot, "enter")
        assert "label 'sailin' is not in the index" in screen_text(pilot)
        await press(pilot, "g")
        assert "not in the index" not in screen_text(pilot)
        assert MAST in listed(pilot)
        await press(pilot, "enter")
        assert not pilot.app._notifications


@pytest.mark.slow
async def test_conditions_and_their_values_are_completed(open_index):
    async with open_index() as pilot:
        await press(pilot, "slash", *"lab", "right", *"sai", "right")
        assert pilot.app.screen.query_one(PromptLine).field.value == "label:sailing"
        store = pilot.app.context.features
        wanted = FeatureFilter(alive=True, label="sailing")
        assert sorted(listed(pilot)) == sorted(store.ids(flt=wanted).tolist())


async def test_d_draws_the_examples_in_other_ways_and_n_skips_named_features(open_index):
    async with open_index() as pilot:
        pane = pilot.app.screen.query_one(FeatureDetailPane)
        await press(pilot, "enter", "d", "d")
        assert pane.examples.look == "aligned"
        assert "aligned" in screen_text(pilot)
        await press(pilot, "d", "d", "escape", "j")
        await press(pilot, "t", *"x", "enter", "escape", "k", "n")
        assert table(pilot).cursor == 2
        await press(pilot, "N")
        assert table(pilot).cursor == 0


@pytest.mark.slow
async def test_every_name_and_tag_of_a_feature_shows(open_index):
    async with open_index() as pilot:
        annotations = pilot.app.context.annotations
        annotations.set_concept(SAE, MAST, "rigging", 0.9, "", ("ship",), "user")
        annotations.set_concept(SAE, MAST, "spars", 0.5)
        pilot.app.look_now()
        await settle(pilot)
        await jump(pilot, MAST)
        assert "rigging 0.90 · spars 0.50  #ship" in screen_text(pilot)


@pytest.mark.slow
async def test_enter_is_offered_only_where_there_is_an_example(open_index):
    async with open_index((250, 40)) as pilot:
        await jump(pilot, MAST)
        assert "enter open" in screen_text(pilot)
        await jump(pilot, 33)  # it never fires
        assert "It never fires" in screen_text(pilot)
        assert "enter open" not in screen_text(pilot)
