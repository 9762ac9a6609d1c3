"""Floors, caps, projections, schedules, conditions and constraints, against their formulas."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mi_crow.errors import UserError
from mi_crow.language_model.decoding.constraints import budgeted_logits, plausible_logits
from mi_crow.mechanistic.steering.interventions import Intervention, parse_intervention
from mi_crow.mechanistic.steering.schedules import (
    Condition,
    Schedule,
    parse_condition,
    parse_schedule,
)
from mi_crow.mechanistic.steering.steer import steering
from tests.helpers.steering_fixture import LAYER, activations, logits, tiny_sae
from tests.unit.test_steering_steer import active_feature, after

FLOATS = st.floats(0.001, 100).map(lambda x: round(x, 3))
SCHEDULES = st.one_of(
    st.just(Schedule()),
    st.builds(lambda n: Schedule("decay", n), FLOATS),
    st.builds(
        lambda keep, target: Schedule("feedback", keep=keep, target=target),
        st.floats(0, 1).map(lambda x: round(x, 3)),
        FLOATS,
    ),
)
CONDITIONS = st.one_of(
    st.none(),
    st.builds(
        Condition,
        st.integers(0, 2**31 - 1),
        st.sampled_from(["above", "below"]),
        FLOATS,
        st.sampled_from(["latent", "max"]),
    ),
)


@given(SCHEDULES, CONDITIONS)
def test_words_and_json_give_the_same_back(schedule: Schedule, condition: Condition | None) -> None:
    assert parse_schedule(schedule.describe()) == schedule
    if condition is not None:
        assert parse_condition(condition.describe()) == condition
    one = Intervention("feature:s/4", "floor", 0.5, "norm", schedule=schedule, condition=condition)
    assert Intervention.from_json(one.as_json()) == one


def test_what_an_older_version_wrote_reads_and_is_written_the_same() -> None:
    old = {
        "target": "feature:42",
        "op": "add",
        "value": 0.8,
        "unit": "max",
        "scope": "all",
        "sae": None,
    }
    assert Intervention.from_json(old).as_json() == old


@pytest.mark.parametrize(
    ("text", "op", "value", "unit", "schedule", "condition"),
    [
        ("4=floor 0.5norm", "floor", 0.5, "norm", "constant", None),
        ("4=floor0.5max@feedback", "floor", 0.5, "max", "feedback 0.95 0.5", None),
        ("4=cap 2@decay8?7>2", "cap", 2.0, "latent", "decay 8", "7>2"),
        ("4=project 0 ? 7<0.2max", "project", 0.0, "latent", "constant", "7<0.2max"),
        ("4=ablate@feedback 0.9 0.4", "ablate", 0.0, "latent", "feedback 0.9 0.4", None),
        ("4=+0.4norm", "add", 0.4, "norm", "constant", None),
        ("4=x0@decay", "scale", 0.0, "latent", "decay 16", None),
    ],
)
def test_the_command_line_s_words(text, op, value, unit, schedule, condition) -> None:
    found = parse_intervention(text)
    assert (found.op, found.value, found.unit) == (op, value, unit)
    assert found.schedule.describe() == schedule
    assert (found.condition.describe() if found.condition else None) == condition


@pytest.mark.parametrize(
    "text",
    [
        "4=floor",
        "4=cap x",
        "4=project 1max",
        "4=4@often",
        "4=4@decay 0",
        "4=4@decay 1 2",
        "4=4@feedback 2",
        "4=4@feedback 0.9 0.5 3",
        "4=4@feedback 0.9 0",
        "4=4@constant 3",
        "4=4?",
        "4=4?x>2",
        "4=4?7=2",
        "4=4?99999999999>1",
        "4=4@decay nan",
        "4=floor 1e99max",
    ],
)
def test_what_means_nothing_is_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_intervention(text)
    assert "\n" not in caught.value.sentence


@pytest.mark.parametrize(
    "change",
    [
        {"schedule": "decay"},
        {"schedule": {"kind": "never"}},
        {"schedule": {"kind": "decay", "tokens": "x"}},
        {"schedule": {"kind": "decay", "tokens": float("nan")}},
        {"condition": 3},
        {"condition": {"feature": 1.5, "side": "above", "value": 1}},
        {"condition": {"feature": 1, "side": "beside", "value": 1}},
        {"condition": {"side": "above", "value": 1}},
    ],
)
def test_wrong_json_is_refused_in_a_sentence(change: dict) -> None:
    with pytest.raises(UserError) as caught:
        Intervention.from_json({"target": "feature:1", "op": "add", "value": 1, **change})
    assert "\n" not in caught.value.sentence


def test_a_raw_layer_takes_no_feedback() -> None:
    for more in (
        {"op": "floor"},
        {"op": "project"},
        {"op": "scale", "schedule": Schedule("feedback")},
    ):
        with pytest.raises(UserError):
            Intervention(f"layer:{LAYER}", **{"value": 2.0, **more})  # type: ignore[arg-type]


@pytest.mark.parametrize("op", ["floor", "cap"])
def test_a_floor_and_a_cap_change_only_what_is_beyond(tiny_lm, op: str) -> None:
    sae = tiny_sae()
    feature = active_feature(tiny_lm, sae)
    x, special = activations(tiny_lm)
    z = sae.encode(x)[:, feature]
    value = float(z[~special].max() / 2)
    got = after(tiny_lm, sae, Intervention(f"feature:{feature}", op, value))  # type: ignore[arg-type]
    wanted = z.clamp_min(value) if op == "floor" else z.clamp_max(value)
    expected = x + (wanted - z)[:, None] * sae.W_dec[feature]
    moved = (wanted != z) & ~special
    torch.testing.assert_close(got[moved], expected[moved], atol=1e-4, rtol=1e-4)
    assert torch.equal(got[~moved], x[~moved])
    assert moved.any()
    assert not moved[~special].all() or op == "floor"


def test_a_projection_takes_the_direction_away(tiny_lm) -> None:
    sae = tiny_sae()
    x, special = activations(tiny_lm)
    direction = sae.W_dec[3] / sae.W_dec[3].norm()
    for value in (0.0, 2.0):
        got = after(tiny_lm, sae, Intervention("feature:3", "project", value))
        torch.testing.assert_close(
            (got @ direction)[~special], value * (x @ direction)[~special], atol=1e-4, rtol=1e-4
        )
        across, before = (
            got - torch.outer(got @ direction, direction),
            x - torch.outer(x @ direction, direction),
        )
        torch.testing.assert_close(across[~special], before[~special], atol=1e-4, rtol=1e-4)
        assert torch.equal(got[special], x[special])


def test_a_condition_chooses_the_tokens(tiny_lm) -> None:
    sae = tiny_sae()
    x, special = activations(tiny_lm)
    feature = active_feature(tiny_lm, sae)
    own = sae.encode(x)[:, feature]
    for side, where in (("above", own > 0), ("below", own < 0.5)):
        condition = Condition(feature, side, 0.0 if side == "above" else 0.5)  # type: ignore[arg-type]
        got = after(tiny_lm, sae, Intervention("feature:3", "add", 4.0, condition=condition))
        acts = where & ~special
        assert torch.equal(got[~acts], x[~acts])
        torch.testing.assert_close(got[acts], x[acts] + 4 * sae.W_dec[3], atol=1e-4, rtol=1e-4)
        assert acts.any()
    with pytest.raises(UserError, match="is not a feature of this SAE"):
        after(
            tiny_lm,
            sae,
            Intervention("feature:3", "add", 4.0, condition=Condition(10**6, "above", 0.0)),
        )


def test_a_pass_outside_generation_is_all_prompt(tiny_lm) -> None:
    """The schedule has not begun there."""
    sae = tiny_sae()
    plain = after(tiny_lm, sae, Intervention("feature:3", "add", 4.0))
    for schedule in (Schedule("decay", 2.0), Schedule("feedback")):
        one = Intervention("feature:3", "add", 4.0, schedule=schedule)
        torch.testing.assert_close(after(tiny_lm, sae, one, max_acts={3: 5.0}), plain)


@pytest.mark.parametrize("text", ["3=+6@decay 3", "3=+6@feedback 0.9 0.3", "3=floor 6@feedback"])
def test_a_schedule_writes_the_same_with_and_without_a_cache(tiny_lm, text: str) -> None:
    sae, one = tiny_sae(), parse_intervention(text)
    with steering(tiny_lm, sae, LAYER, [one], {3: 8.0}):
        texts = [
            tiny_lm.generate("Granite", 12, 0.8, seed=3, n=3, use_cache=cached).token_ids
            for cached in (True, False, True)
        ]
    assert texts[0] == texts[1] == texts[2]


def test_a_decay_ends_near_the_plain_text_and_starts_at_full_strength(tiny_lm) -> None:
    """Teacher forced: the change of each token is the strength times exp(-g / n)."""
    from mi_crow.language_model.context import ForwardContext

    sae, n = tiny_sae(), 2.0
    encoding = tiny_lm.padded([tiny_lm.tokenize(["Granite rises above the harbour"])[0]])
    prompt = 3
    context = ForwardContext(
        encoding.input_ids, encoding.attention_mask, encoding.special, 0, prompt
    )

    def layer(*stack: Intervention) -> Tensor:
        from mi_crow.hooks import LayerActivationDetector

        detector = LayerActivationDetector(LAYER)
        with steering(tiny_lm, sae, LAYER, stack), detector.on(tiny_lm), tiny_lm.running(context):
            tiny_lm.model(**encoding.as_inputs(), use_cache=False)
        found = detector.get_captured()
        assert found is not None
        return found[0]

    x = layer()
    got = layer(Intervention("feature:3", "add", 4.0, schedule=Schedule("decay", n)))
    for place in range(len(x)):
        factor = math.exp(-max(place - prompt + 1, 0) / n)
        expected = x[place] + (0 if encoding.special[0, place] else 4 * factor) * sae.W_dec[3]
        torch.testing.assert_close(got[place], expected, atol=1e-4, rtol=1e-4)


@given(st.integers(0, 10_000), st.floats(0.01, 1.0))
def test_the_plausible_set_follows_its_definition(seed: int, beta: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    steered, plain = torch.randn(2, 3, 40, generator=generator) * 3
    got = plausible_logits(steered, plain, beta)
    p = plain.softmax(-1)
    share = p / p.amax(-1, keepdim=True)
    sure = (share - beta).abs() > 1e-5
    assert torch.equal(got.isinf()[sure], (share < beta)[sure])
    assert torch.equal(got[~got.isinf()], steered[~got.isinf()])
    assert (~got.isinf()).any(-1).all()


@given(st.integers(0, 10_000), st.floats(0.01, 3.0))
def test_the_budget_is_spent_and_not_exceeded(seed: int, nats: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    steered, plain = torch.randn(2, 3, 40, generator=generator) * 3
    log_q, log_p = (x.log_softmax(-1) for x in (budgeted_logits(steered, plain, nats), plain))
    log_s = steered.log_softmax(-1)
    kl = (log_q.exp() * (log_q - log_p)).sum(-1)
    whole = (log_s.exp() * (log_s - log_p)).sum(-1)
    assert (kl <= nats + 1e-4).all()
    torch.testing.assert_close(kl, whole.clamp_max(nats), atol=2e-3, rtol=2e-3)


def test_a_constrained_text_is_within_its_constraint_and_plain_without_steering(tiny_lm) -> None:
    sae, one = tiny_sae(), Intervention("feature:3", "add", 30.0)
    free = tiny_lm.generate("Granite", 10, 0.0)
    with steering(tiny_lm, sae, LAYER, [one]):
        # A share of 1 leaves only the plain model's likeliest token.
        bound = tiny_lm.generate("Granite", 10, 1.0, seed=5, plausible=1.0)
        pushed = tiny_lm.generate("Granite", 10, 0.0)
        none = tiny_lm.generate("Granite", 10, 0.0, kl_budget=1e-9)
    assert bound.token_ids == free.token_ids == none.token_ids
    assert pushed.token_ids != free.token_ids
    again = tiny_lm.generate("Granite", 10, 0.0, plausible=0.3, kl_budget=0.2)
    assert again.token_ids == free.token_ids
    for wrong in ({"plausible": 0.0}, {"plausible": 1.1}, {"kl_budget": 0.0}):
        with pytest.raises(UserError):
            tiny_lm.generate("Granite", 4, **wrong)


def test_an_unknown_maximum_is_told(tiny_lm) -> None:
    sae = tiny_sae()
    for text in ("3=+6@feedback", "3=+6?4>0.5max", "3=floor 1max"):
        with (
            pytest.raises(UserError, match="has no known maximum"),
            steering(tiny_lm, sae, LAYER, [parse_intervention(text)]),
        ):
            logits(tiny_lm)
