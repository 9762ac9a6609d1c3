"""The Features screen: find a feature, read it, name it, send it on."""

import sys
from dataclasses import replace

import pytest
from textual.pilot import Pilot

from mi_crow.mechanistic.explain.config import ExplainConfig
from mi_crow.mechanistic.explain.job import explain_features
from mi_crow.mechanistic.features.beside.explanations import explanations_path, write_explanations
from mi_crow.mechanistic.features.queries import FeatureStore
from mi_crow.mechanistic.features.records import Example, Explanation
from tests.tui.driving import press, screen_text, settle, table
from tests.tui.stand_ins import DEAD, N_FEATURES, give_index
from tui import messages
from tui.screens.features.content import _explained, side_content
from tui.screens.features.detail import FeatureDetailPane
from tui.screens.features.screen import FeaturesScreen
from tui.widgets.prompt_line import PromptLine, fitted_hint, fitted_ways


def pane(pilot: Pilot) -> FeatureDetailPane:
    return pilot.app.screen.query_one(FeatureDetailPane)


async def type_in(pilot: Pilot, text: str) -> None:
    await press(pilot, *(" " if c == " " else c for c in text))


@pytest.mark.slow
async def test_without_an_sae_it_says_what_to_do(run_app, empty_workspace):
    async with run_app(empty_workspace) as pilot:
        await press(pilot, "2")
        assert "No SAE yet" in screen_text(pilot)
        await press(pilot, "j", "enter", "slash", "t", "s", "i", "y", "b", "o")  # nothing breaks
        assert isinstance(pilot.app.screen, FeaturesScreen)


@pytest.mark.slow
async def test_without_an_index_it_says_what_to_do(run_app, app_workspace):
    async with run_app(app_workspace, sae_id="demo-topk") as pilot:
        await press(pilot, "2")
        assert "no feature index yet" in screen_text(pilot)


async def test_the_densest_firing_feature_comes_first(open_features):
    async with open_features() as pilot:
        index = pilot.app.context.features
        rows = index.rows(range(N_FEATURES))
        assert table(pilot).feature == max(rows, key=lambda row: row.density).feature
        assert table(pilot).row_count == sum(row.fires > 0 for row in rows)


async def test_narrow_terminals_show_the_table_or_the_feature(open_features):
    async with open_features() as pilot:
        assert not pane(pilot).display
        await press(pilot, "j", "enter")
        assert pane(pilot).display
        assert not pilot.app.screen.query_one("#features-left").display
        assert f"#{table(pilot).feature}" in screen_text(pilot)
        assert "Top activations" in screen_text(pilot)
        await press(pilot, "escape")
        assert not pane(pilot).display
        assert table(pilot).has_focus


@pytest.mark.slow
async def test_wide_terminals_show_both_and_the_feature_follows_the_cursor(open_features):
    async with open_features(size=(120, 40)) as pilot:
        await press(pilot, "j", "j")
        assert table(pilot).display
        assert pane(pilot).feature == table(pilot).feature
        assert table(pilot).has_focus


@pytest.mark.slow
async def test_the_peak_of_an_example_is_written_out(open_features):
    async with open_features() as pilot:
        await press(pilot, "enter")
        example = pilot.app.context.features.examples(table(pilot).feature or 0)[0]
        peak = example.tokens[example.position - example.window_start].strip()
        assert f"{example.activation:.2f} “{peak}”" in screen_text(pilot)


async def test_typing_filters_and_escape_clears(open_features):
    async with open_features() as pilot:
        everything = table(pilot).row_count
        await press(pilot, "slash")
        await type_in(pilot, "sail")
        found = table(pilot).row_count
        assert 0 < found < everything
        assert "“sail”" in screen_text(pilot)
        await press(pilot, "enter")
        assert table(pilot).has_focus
        assert table(pilot).row_count == found
        await press(pilot, "escape")
        assert table(pilot).row_count == everything


async def test_a_search_begins_at_its_best_match_and_giving_it_up_leads_back(open_features):
    async with open_features() as pilot:
        await press(pilot, "slash", *"sail", "enter", "G", "escape")
        place, last = table(pilot).cursor, table(pilot).feature  # it matches, but not best
        assert place != 0
        await press(pilot, "slash")
        await type_in(pilot, "sail")
        assert last in table(pilot).shown_ids
        assert table(pilot).cursor == 0
        await press(pilot, "escape")
        assert (table(pilot).cursor, table(pilot).feature) == (place, last)
        await press(pilot, "slash")
        await type_in(pilot, "sail")
        best = table(pilot).feature
        await press(pilot, "enter", "escape")  # kept, then cleared: it was gone to
        assert table(pilot).feature == best


async def test_a_search_that_follows_before_the_table_is_back_begins_at_its_best_match(
    open_features,
):
    async with open_features() as pilot:
        await press(pilot, "slash", *"sail", "enter", "G", "escape", "slash")
        await type_in(pilot, "sail")
        for text in ("", "sail"):  # quicker than the table is read
            pilot.app.screen.search_while_typed(text)
        await settle(pilot)
        assert table(pilot).cursor == 0


async def test_a_filter_says_that_what_it_finds_is_not_among_those_that_are_shown(open_features):
    async with open_features() as pilot:
        await press(pilot, "slash")
        await type_in(pilot, "fires=0")
        assert not table(pilot).row_count
        shown = " ".join(screen_text(pilot).split())
        assert "No firing features match, 12 others do; f shows others" in shown
        await press(pilot, "enter", "f", "f", "f")
        assert DEAD in table(pilot).shown_ids


async def test_what_may_come_next_is_told_and_what_is_begun_is_no_mistake_yet(open_features):
    async with open_features(size=(120, 24)) as pilot:
        labels = pilot.app.context.features.meta().labels
        await press(pilot, "slash", *"label", "tab")
        shown = screen_text(pilot).splitlines()[-2]
        assert "  ".join(labels[:2]) in shown
        assert "needs a value" not in screen_text(pilot)
        await press(pilot, "enter")
        assert "label: needs a value" in screen_text(pilot)
        await press(pilot, *labels[1][:3])
        assert "not in the index" not in screen_text(pilot)
        await press(pilot, *"zz")
        assert "not in the index" in screen_text(pilot)


async def test_a_whole_text_and_a_way_that_comes_twice_are_no_ways_on(open_features):
    async with open_features(size=(120, 24)) as pilot:
        prompt = pilot.app.screen.query_one(PromptLine)
        prompt.ask("x", "x", "sea", hint="hint", suggestions=lambda _: ["sea", "seal", "seal"])
        await settle(pilot)
        assert "hint" in screen_text(pilot).splitlines()[-2]
        prompt.ask("x", "x", "sea", suggestions=lambda _: ["sea", "seal", "seal", "season"])
        await settle(pilot)
        assert "  seal  season" in screen_text(pilot).splitlines()[-2]


async def test_tab_completes_and_never_leaves_the_filter(open_features):
    async with open_features() as pilot:
        await press(pilot, "slash", *"den", "tab", "tab", *"1", "tab", "shift+tab", *"%")
        prompt = pilot.app.screen.query_one(PromptLine)
        assert prompt.is_open
        assert prompt.field.value == "density<1%"
        assert pilot.app.current_mode == "features"


async def test_a_mistake_in_a_filter_is_told_whole_in_a_narrow_terminal(open_features):
    async with open_features() as pilot:  # 80 columns
        await press(pilot, "slash", *"density<abc")
        shown = screen_text(pilot)
        assert "'abc' is not a number; for example density<0.01" in " ".join(shown.split())
        await press(pilot, "ctrl+u", *"zzzz")
        assert "is not a number" not in screen_text(pilot)
        assert "No features match; esc clears the filter" in screen_text(pilot)


@pytest.mark.slow
async def test_keys_of_the_screen_are_typed_into_the_filter(open_features):
    async with open_features() as pilot:
        await press(pilot, "slash")
        await type_in(pilot, "2 toys/q")
        assert pilot.app.screen.query_one(PromptLine).field.value == "2 toys/q"
        assert "No features match" in screen_text(pilot)


@pytest.mark.slow
async def test_a_number_jumps_even_to_a_feature_that_the_filter_hides(open_features):
    async with open_features() as pilot:
        await press(pilot, "number_sign")
        await type_in(pilot, str(DEAD))  # it never fires, so the table does not show it
        await press(pilot, "enter")
        assert pane(pilot).feature == DEAD
        assert "never fires" in screen_text(pilot)
        assert table(pilot).row_count == N_FEATURES


@pytest.mark.slow
async def test_a_number_that_is_no_feature_is_told(open_features):
    async with open_features() as pilot:
        await press(pilot, "number_sign")
        await type_in(pilot, "99999")
        await press(pilot, "enter")
        assert pilot.app.screen.query_one(PromptLine).is_open
        assert "feature 99999 not found" in screen_text(pilot)


@pytest.mark.slow
async def test_an_order_by_what_no_feature_has_is_told_once(open_features):
    async with open_features() as pilot:
        await press(pilot, "slash")
        await type_in(pilot, "sort:output")
        await press(pilot, "enter")
        told = "In no order: no feature has a value of output: mi-crow steer scores measures it"
        assert [one.sentence for one in pilot.app.message_log.read()] == [told]
        assert table(pilot).row_count


@pytest.mark.slow
async def test_sorting_keeps_the_open_feature(open_features):
    async with open_features() as pilot:
        feature = table(pilot).feature
        await press(pilot, "o")
        assert table(pilot).feature == feature
        await press(pilot, "g")
        first = table(pilot).feature
        await press(pilot, "O", "g")
        assert table(pilot).feature != first


@pytest.mark.slow
async def test_bands_go_round(open_features):
    async with open_features() as pilot:
        await press(pilot, "enter")
        await pilot.pause(0.5)  # what is far below comes at rest, and its scrollbar
        strongest = screen_text(pilot)
        await press(pilot, "b")
        assert "Band 1" in screen_text(pilot)
        await press(pilot, "b", "b", "b", "b")
        await pilot.pause(0.5)
        assert screen_text(pilot) == strongest


@pytest.mark.slow
async def test_a_neighbour_opens_with_enter(open_features):
    async with open_features(size=(120, 40)) as pilot:
        await press(pilot, "enter", "tab")
        neighbour, _ = pilot.app.context.features.detail(table(pilot).feature or 0).neighbours[0]
        await press(pilot, "enter")
        assert pane(pilot).feature == neighbour


async def test_a_name_is_offered_saved_shown_and_undone(open_features):
    async with open_features(size=(120, 40)) as pilot:
        feature = table(pilot).feature or 0
        await press(pilot, "t")
        label = pilot.app.context.features.rows([feature])[0].top_label or ""
        assert pilot.app.screen.query_one(PromptLine).field.value == label
        await type_in(pilot, "boats")  # typing replaces what was offered
        await press(pilot, "enter")
        assert [c.name for c in pilot.app.context.annotations.concepts("demo-topk")] == ["boats"]
        assert screen_text(pilot).count("boats") >= 1  # in the table; the next feature is open
        await press(pilot, "escape", "u")
        assert pilot.app.context.annotations.concepts("demo-topk") == []


async def test_a_message_leaves_the_line_that_is_typed_free(open_features):
    async with open_features(size=(80, 24)) as pilot:
        pilot.app.notify("a message")
        await settle(pilot)
        await press(pilot, "t", *"rain ~2")
        assert "a message" in screen_text(pilot)
        told = " ".join(" ".join(screen_text(pilot).splitlines()[-5:]).split())
        assert "~2 is not a confidence; write ~0 to ~1" in told, told


@pytest.mark.slow
async def test_another_name_replaces_the_first_and_an_empty_one_removes_it(open_features):
    async with open_features(size=(120, 40)) as pilot:
        annotations = pilot.app.context.annotations
        annotations.set_concept("demo-topk", table(pilot).feature, "boats")
        pilot.app.look_now()
        await settle(pilot)
        await press(pilot, "t")
        await type_in(pilot, "ships")
        await press(pilot, "ctrl+t")  # stays on the feature
        assert [concept.name for concept in annotations.concepts("demo-topk")] == ["ships"]
        await press(pilot, "t", "backspace", "enter")
        assert annotations.concepts("demo-topk") == []


@pytest.mark.slow
async def test_an_opened_feature_leads_back_to_where_it_was_opened(open_features):
    async with open_features() as pilot:
        await press(pilot, "5")
        await pilot.app.go("features", messages.OpenFeature(120))
        await settle(pilot)
        assert pane(pilot).feature == 120
        await press(pilot, "backspace")
        assert pilot.app.current_mode == "concepts"


@pytest.mark.slow
async def test_a_feature_opened_before_the_index_is_there_shows_later(run_app, app_workspace):
    async with run_app(app_workspace, sae_id="demo-topk") as pilot:
        await pilot.app.go("features", messages.OpenFeature(3))
        await settle(pilot)
        give_index(pilot.app)
        await settle(pilot)
        assert pane(pilot).feature == 3


@pytest.mark.slow
async def test_y_copies_the_number_or_the_selected_example(open_features, monkeypatch):
    monkeypatch.delenv("TMUX", raising=False)
    async with open_features() as pilot:
        await press(pilot, "y")
        feature = table(pilot).feature or 0
        assert pilot.app.clipboard.startswith(f"{feature}")
        await press(pilot, "enter", "j", "y")
        assert pilot.app.clipboard == pilot.app.context.features.examples(feature)[1].text


@pytest.mark.slow
async def test_text_of_a_data_set_is_never_markup(open_features, monkeypatch):
    hostile = Example(
        1, 5, 9.0, 4, ["[red]", " [/]", "\x1b[31m", "\n"], [0.0, 9.0, 0.0, 0.0], "", "[b]x[/b]"
    )
    monkeypatch.setattr(FeatureStore, "examples", lambda *_, **__: [hostile])
    async with open_features() as pilot:
        await press(pilot, "enter")
        text = screen_text(pilot)
        assert "[red] [/]␛[31m⏎" in text
        assert "[b]x[/b]" in text


@pytest.mark.slow
async def test_a_proposed_name_shows_and_right_takes_it(open_features):
    async with open_features(size=(120, 40)) as pilot:
        context = pilot.app.context
        explain_features(context.workspace, ExplainConfig("demo-topk"))
        pilot.app.look_now()
        await settle(pilot)
        assert "name scores" in screen_text(pilot)
        feature = table(pilot).feature or 0
        proposed = context.features.rows([feature])[0].proposed
        assert screen_text(pilot).count(proposed[:12]) >= 2  # in the table and over the feature
        await press(pilot, "t")
        field = pilot.app.screen.query_one(PromptLine).field
        assert (field.value, field.placeholder) == ("", proposed)
        await press(pilot, "right", "space", "number_sign", "x", "enter")
        [concept] = context.annotations.concepts("demo-topk")
        assert (concept.name, concept.tags) == (proposed, ("x",))


async def test_an_open_feature_loads_the_screen_that_enter_leads_to(open_features, monkeypatch):
    loaded = []
    monkeypatch.setattr("tui.screens.features.opening.import_module", loaded.append)
    monkeypatch.delitem(sys.modules, "tui.screens.inspect.screen", raising=False)
    async with open_features() as pilot:
        assert loaded == []
        await press(pilot, "enter")
        assert loaded == ["tui.screens.inspect.screen"]


@pytest.mark.slow
async def test_a_chat_model_s_name_has_its_own_score(open_features):
    async with open_features(size=(220, 40)) as pilot:
        context = pilot.app.context
        explain_features(context.workspace, ExplainConfig("demo-topk"))
        feature = table(pilot).feature or 0
        said = Explanation(feature, "utter nonsense", "llm", 0, True, detection=0.31)
        path = explanations_path(context.workspace, "demo-topk")
        write_explanations(path, [said], context.features.meta().built_at)
        pilot.app.look_now()
        await settle(pilot)
        assert any("utter" in x and "d 0.31" in x for x in screen_text(pilot).splitlines())
        await press(pilot, "t", "right", "enter")
        [concept] = context.annotations.concepts("demo-topk")
        assert (concept.name, concept.confidence) == ("utter nonsense", 0.31)


async def test_each_score_of_an_explanation_has_its_interval_where_one_was_measured(open_features):
    async with open_features(size=(120, 40)) as pilot:
        read = pane(pilot).shown
        assert read is not None
        assert read.detail is not None
        said = Explanation(
            *(3, "boats", "llm", 0, True), detection=0.75, fuzzing=0.5, fuzzing_interval=0.125
        )
        [_, (facts, _)] = _explained(replace(read.detail, explanation=said))
        assert "by llm, detection 0.75, fuzzing 0.50 ± 0.12" in facts


async def test_a_large_terminal_shows_all_promoted_and_suppressed_tokens(open_features):
    async with open_features(size=(200, 60)) as pilot:
        read = pane(pilot).shown
        assert read is not None
        assert read.detail is not None
        detail = read.detail
        twenty = [(f" word{n}", 20.0 - n) for n in range(20)]
        content = side_content(replace(detail, promoted=twenty, suppressed=twenty), 38, 56)
        assert all(content.plain.count(f"word{n} ") == 2 for n in range(20))
        assert "Positive logits     Negative logits" in content.plain
        shown = screen_text(pilot)
        for token, value in (*detail.promoted, *detail.suppressed):
            assert f"{value:+.2f}" in shown, token


@pytest.mark.parametrize(
    ("room", "said"),
    [
        (60, "words of a name · enter keeps them · esc shows all"),
        (40, "words of a name · esc shows all"),
        (31, "words of a name · esc shows all"),
        (20, "esc shows all"),
        (12, ""),
    ],
)
def test_a_hint_that_is_too_long_says_how_to_leave(room: int, said: str):
    assert fitted_hint("words of a name · enter keeps them · esc shows all", room) == said
    assert fitted_hint("enter reads it", 14) == "enter reads it"


def test_ways_to_go_on_are_whole():
    ways = ["label:", "like:", "layer:"]
    told = [fitted_ways(ways, room) for room in (21, 20, 15, 8)]
    assert told == ["label:  like:  layer:", "label:  like:  …", "label:  …", ""]


async def test_what_is_said_beside_a_query_is_whole_in_forty_columns(open_index):
    async with open_index((40, 10)) as pilot:
        await press(pilot, "slash")
        assert "esc clears" in screen_text(pilot).splitlines()[-2]
        await press(pilot, "l")
        assert screen_text(pilot).splitlines()[-2].rstrip().endswith("label:  like:  …")
        assert "esc" in screen_text(pilot).splitlines()[-1]
        await press(pilot, *"abel:w")
        assert screen_text(pilot).splitlines()[-2].rstrip().endswith("esc clears")
