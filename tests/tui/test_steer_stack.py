"""The stack of interventions as the screen shows and edits it."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mi_crow.errors import UserError
from mi_crow.mechanistic.features.records import FeatureRow
from mi_crow.mechanistic.steering.interventions import Intervention, parse_intervention
from mi_crow.store.workspace import SaeSummary
from tui.screens.steer.measured.results import Measured, arm_chart
from tui.screens.steer.stack import (
    change_text,
    first_on,
    form_fields,
    from_form,
    named_target,
    nudged,
    stack_rows,
    stack_text,
    strengths,
)

ADD = Intervention("feature:42", "add", 0.8, "max")
LAYER = Intervention("layer:model.layers.3", "scale", 2.0)


@pytest.mark.parametrize(
    ("intervention", "text"),
    [
        (ADD, "+0.8 max"),
        (Intervention("feature:1", "add", -3), "-3"),
        (Intervention("feature:1", "clamp", 4), "= 4"),
        (LAYER, "× 2"),
        (Intervention("feature:1", "ablate", 0), "ablate"),
        (Intervention("feature:1", "add", 0.5, "norm"), "+0.5 norm"),
        (Intervention("feature:1", "floor", 0.5, "norm"), "≥ 0.5 norm"),
        (Intervention("feature:1", "cap", 2.0), "≤ 2"),
        (Intervention("feature:1", "project", 0.0), "direction × 0"),
        (parse_intervention("1=+2@decay 8?7>3"), "+2, decay 8, where 7>3"),
        (parse_intervention("42=swap 0.3norm against 7+9"), "⇄ 0.3 norm against 7+9"),
        (parse_intervention("42=+3 on prompt"), "+3 on prompt tokens"),
        (parse_intervention("1=+2 on generated@decay 8"), "+2 on generated tokens, decay 8"),
    ],
)
def test_a_change_reads_like_what_it_does(intervention: Intervention, text: str):
    assert change_text(intervention) == text


def test_the_stack_on_one_line():
    assert stack_text([ADD, LAYER]) == "#42 +0.8 max, model.layers.3 × 2"
    assert stack_text([]) == ""
    other = parse_intervention("feature:other/5=+3")
    assert stack_text([other], "open") == "#5 of other +3"
    assert stack_text([other], "other") == "#5 +3"
    both = [other, parse_intervention("feature:open/6=+3")]
    assert stack_text(both) == "#5 of other +3, #6 of open +3"


def test_saes_of_one_model_are_told_apart_beside_their_features():
    stack = [ADD, ADD]
    saes = {0: "SAE sae-resid_post.15", 1: "SAE tcoder"}
    more = [row.cells[0].more[0][0] for row in stack_rows(stack, {}, saes)]
    assert more == ["  SAE …post.15", "  SAE tcoder"]


def test_a_swap_has_what_it_takes_away_beside_its_target():
    swap = parse_intervention("42=swap 0.3norm against 7+9")
    [row] = stack_rows([swap], {42: "boats"})
    assert row.cells[0].more == (("  boats", "$accent"), ("  against 7+9", "$muted"))
    assert row.cells[1].text == "⇄ 0.3 norm"


def test_rows_name_the_feature_and_say_where_only_when_not_everywhere():
    rows = stack_rows([ADD, Intervention("feature:7", "ablate", 0, scope="prompt")], {42: "boats"})
    assert rows[0].cells[0].more == (("  boats", "$accent"),)
    assert rows[0].cells[3].text == ""
    assert rows[1].cells[3].text == "prompt"


@given(
    st.builds(
        Intervention,
        st.integers(0, 10**6).map(lambda n: f"feature:{n}"),
        st.sampled_from(["add", "scale", "clamp"]),
        st.integers(-10_000, 10_000).map(lambda n: n / 100),
        st.sampled_from(["latent", "max", "norm"]),
        st.sampled_from(["all", "prompt", "generated"]),
    )
)
def test_a_form_filled_from_an_intervention_gives_it_back(intervention: Intervention):
    values = {field.name: field.text for field in form_fields(intervention)}
    assert from_form(values) == intervention


def test_an_empty_form_raises_a_feature_to_a_part_of_the_norm():
    values = {field.name: field.text for field in form_fields(None)} | {"target": "#42"}
    assert from_form(values) == first_on("feature:42")
    assert first_on("feature:42").describe() == parse_intervention("42=floor 0.3norm").describe()


def test_features_that_two_models_have_are_added():
    models = (("base", "a", "run"), ("tuned", "b", "other"))
    two = SaeSummary(
        "two", Path(), "crosscoder", 8, 16, 4, "b", "resid_post.0", None, False, None, 0
    )
    first = first_on("feature:42", replace(two, models=models))
    assert first.describe() == parse_intervention("42=+0.3norm").describe()
    assert first_on("feature:42", two) == first_on("feature:42")
    values = {field.name: field.text for field in form_fields(None, adds=True)}
    assert from_form(values | {"target": "#42"}) == first


def row(feature: int, name: str) -> FeatureRow:
    return FeatureRow(feature, 10, 0.01, 2.0, 1.0, name, None, None)


def test_a_name_is_the_feature_that_is_called_so():
    found = [row(7, "rain"), row(3, "Weather"), row(9, "weather report")]
    assert named_target("weather", found, ()) == "3"
    assert named_target("weather", [*found, row(11, "weather")], ()) == "3+11"
    assert named_target("resid_pre.2", found, ()) == "resid_pre.2"
    assert named_target("weather", found, ("weather",)) == "weather"
    with pytest.raises(UserError, match="no feature or layer is called 'snow'") as caught:
        named_target("snow", found, ())
    assert "#7 rain" in caught.value.hint


def test_a_form_takes_names_and_a_swap_with_what_it_takes_away():
    values = {field.name: field.text for field in form_fields(None)} | {"target": "rain"}
    assert from_form(values, lambda _: "7").feature == 7
    swap = values | {"target": "7", "op": "swap"}
    with pytest.raises(UserError, match="takes other features away"):
        from_form(swap)
    swapped = from_form(swap | {"rivals": "8+9"})
    assert swapped.rivals == "group:8+9"
    assert from_form({field.name: field.text for field in form_fields(swapped)}) == swapped


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"target": ""}, "the target is empty"),
        ({"value": "lots"}, "not a number"),
        ({"value": "inf"}, "finite"),
        ({"op": "explode"}, "explode"),
        ({"scope": "never"}, "never"),
        ({"target": "model.layers.3"}, "raw layer"),
        ({"schedule": "sometimes"}, "not a valid schedule"),
        ({"condition": "seven"}, "not a valid condition"),
    ],
)
def test_a_wrong_form_says_what_is_wrong(values: dict, sentence: str):
    good = {field.name: field.text for field in form_fields(ADD)}
    with pytest.raises(UserError, match=sentence):
        from_form(good | values)


def test_nudging_there_and_back_changes_nothing():
    for one in (ADD, LAYER, Intervention("feature:1", "clamp", 0.5, "max")):
        assert nudged(one, 1).value > one.value
        assert nudged(nudged(one, 1), -1) == one


@pytest.mark.parametrize("text", ["0, 0.5, 1.5", "0 0.5 1.5", " 0,.5,1.5 "])
def test_a_sweep_is_a_list_of_numbers(text: str):
    assert strengths(text) == [0, 0.5, 1.5]


@pytest.mark.parametrize("text", ["", "much", "1, two", "nan, 1"])
def test_a_sweep_of_anything_else_is_refused(text: str):
    with pytest.raises(UserError):
        strengths(text)


def test_a_chart_holds_settings_that_are_less_perplexing_than_the_baseline():
    arms = [{"name": f"arm {n}", "share": n / 4, "perplexity_ratio": 0.7 + 0.2 * n} for n in (1, 2)]
    lines = arm_chart(Measured("m", "sweep", 0.0, {"arms": arms}), None, 60, 8)
    assert sum(line.plain.count("·") for line in lines[1:]) == 2
