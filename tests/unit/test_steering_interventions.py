"""Interventions as data: what the command line's forms mean, what is refused, JSON both ways."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mi_crow.errors import UserError
from mi_crow.mechanistic.steering.interventions import Intervention, parse_intervention


@pytest.mark.parametrize(
    ("text", "op", "value", "unit"),
    [
        ("42=+8", "add", 8.0, "latent"),
        ("42=-8", "add", -8.0, "latent"),
        ("42=+0.8max", "add", 0.8, "max"),
        ("42=-.5max", "add", -0.5, "max"),
        ("42=x0", "scale", 0.0, "latent"),
        ("42=x1.5", "scale", 1.5, "latent"),
        ("42=x-1", "scale", -1.0, "latent"),
        ("42=4", "clamp", 4.0, "latent"),
        ("42=0.5max", "clamp", 0.5, "max"),
        (" 42 = +1e1 ", "add", 10.0, "latent"),
    ],
)
def test_every_form_of_the_command_line_is_read(text, op, value, unit):
    assert parse_intervention(text) == Intervention("feature:42", op, value, unit, "all")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "42",
        "42=",
        "=4",
        "42=max",
        "42=x",
        "42=+",
        "a=4",
        "-1=4",
        "42=4 5",
        "42=x1max",
    ],
)
def test_anything_else_is_refused_with_examples(text):
    with pytest.raises(UserError) as caught:
        parse_intervention(text)
    assert "42=+0.8max" in caught.value.hint


@pytest.mark.parametrize("text", ["42=+nan", "42=-inf", "42=xinf", "42=floor nannorm", "42=+1e400"])
def test_a_strength_that_is_not_finite_is_named(text):
    with pytest.raises(UserError, match="the value of an intervention must be a finite number"):
        parse_intervention(text)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("feature:", "add", 1.0), "is not a valid target"),
        (("feature:x", "add", 1.0), "is not a valid target"),
        (("42", "add", 1.0), "is not a valid target"),
        (("layer:", "scale", 1.0), "is not a valid target"),
        (("feature:1", "double", 1.0), "'double' is not known"),
        (("feature:1", "add", 1.0, "volts"), "'volts' is not known"),
        (("feature:1", "add", 1.0, "max", "later"), "'later' is not known"),
        (("feature:1", "add", float("nan")), "finite"),
        (("feature:1", "scale", float("inf")), "finite"),
        (("layer:model.layers.1", "add", 1.0), "a raw layer can be scaled"),
        (("layer:model.layers.1", "clamp", 1.0, "max"), "no known maximum"),
        (("layer:model.layers.1", "clamp", -1.0), "a norm cannot be -1"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments, sentence):
    with pytest.raises(UserError, match=sentence):
        Intervention(*arguments)


def test_the_unit_of_a_change_without_units_does_not_matter():
    assert Intervention("layer:model.layers.1", "scale", 0.5, "max").value == 0.5
    assert Intervention("layer:model.layers.1", "ablate", 0.0, "max").layer == "model.layers.1"


interventions = st.builds(
    Intervention,
    st.integers(0, 10**6).map(lambda feature: f"feature:{feature}"),
    st.sampled_from(["scale", "add", "clamp", "ablate"]),
    # Not st.floats: models turn denormals off for the whole process, which it refuses to run with.
    st.fractions().map(float),
    st.sampled_from(["latent", "max", "norm"]),
    st.sampled_from(["all", "prompt", "generated"]),
)


@given(interventions)
def test_json_brings_the_same_intervention_back(intervention):
    text = json.dumps(intervention.as_json())
    assert Intervention.from_json(json.loads(text)) == intervention


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"target": "feature:1"},
        {"target": "feature:1", "op": "add", "value": "much"},
        {"op": []},
    ],
)
def test_json_that_is_no_intervention_is_refused(data):
    with pytest.raises(UserError):
        Intervention.from_json(data)


@pytest.mark.parametrize(
    ("intervention", "phrase"),
    [
        (Intervention("feature:42", "add", 0.8, "max"), "feature 42 +0.8 max"),
        (Intervention("feature:42", "scale", 0), "feature 42 x 0"),
        (Intervention("feature:42", "clamp", 4, scope="prompt"), "feature 42 = 4 on prompt tokens"),
        (Intervention("layer:h.1", "ablate", 0), "layer h.1 ablated"),
    ],
)
def test_an_intervention_describes_itself(intervention, phrase):
    assert intervention.describe() == phrase


def test_only_scale_by_one_and_adding_nothing_change_nothing():
    assert Intervention("feature:1", "scale", 1).changes_nothing
    assert Intervention("feature:1", "add", 0).changes_nothing
    for change in ("x0", "0", "1", "+1"):
        assert not parse_intervention(f"1={change}").changes_nothing
    assert not Intervention("feature:1", "ablate", 1).changes_nothing


def test_interventions_cost_no_torch():
    code = (
        "import sys, mi_crow.mechanistic.steering.interventions, mi_crow.session.client;"
        "assert not {'torch', 'transformers', 'duckdb', 'polars'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_feature_says_its_sae_in_its_target_or_beside_it() -> None:
    one = Intervention("feature:my-sae/42", "add", 8.0)
    assert (one.sae, one.feature, one.layer) == ("my-sae", 42, None)
    beside = one.as_json(within="my-sae")
    assert (beside["target"], beside["sae"]) == ("feature:42", "my-sae")
    assert Intervention.from_json(beside) == Intervention.from_json(one.as_json()) == one
    plain = Intervention("feature:42", "add", 8.0)
    assert plain.sae is None
    assert Intervention.from_json(plain.as_json()) == plain
    assert plain.in_sae("my-sae", "hash") == replace(one, weights="hash")
    assert one.in_sae("other") == one
    layer = Intervention("layer:h.3", "scale", 2.0)
    assert layer.in_sae("my-sae") == layer


@pytest.mark.parametrize("target", ["feature:/42", "feature:a/b/42", "feature:../42", "feature:a/"])
def test_a_target_names_one_sae(target: str) -> None:
    with pytest.raises(UserError, match="is not a valid target"):
        Intervention(target, "add", 1.0)


def test_two_saes_for_one_feature_are_refused() -> None:
    with pytest.raises(UserError, match="not a feature of SAE 'b'"):
        Intervention.from_json({"target": "feature:a/42", "op": "add", "value": 1, "sae": "b"})
