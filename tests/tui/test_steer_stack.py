"""The stack of interventions as the screen shows and edits it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mi_crow.errors import UserError
from mi_crow.mechanistic.steering.interventions import Intervention, parse_intervention
from tui.screens.steer.stack import (
    change_text,
    default_intervention,
    form_fields,
    from_form,
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
    ],
)
def test_a_change_reads_like_what_it_does(intervention: Intervention, text: str):
    assert change_text(intervention) == text


def test_the_stack_on_one_line():
    assert stack_text([ADD, LAYER]) == "#42 +0.8 max, model.layers.3 × 2"
    assert stack_text([]) == ""


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


def test_an_empty_form_adds_to_a_feature_in_maxima():
    values = {field.name: field.text for field in form_fields(None)} | {"target": "#42"}
    assert from_form(values) == default_intervention(42)


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
