"""Steering changes what it says and nothing else: against the formula, written out."""

import pytest
import torch
from torch import Tensor

from mi_crow.errors import NotFoundError, UserError
from mi_crow.hooks import LayerActivationDetector
from mi_crow.language_model import LanguageModel
from mi_crow.mechanistic.steering.interventions import Intervention
from mi_crow.mechanistic.steering.steer import steering
from tests.helpers.steering_fixture import (
    LATENTS,
    LAYER,
    TEXT,
    activations,
    logits,
    steered_logits,
    tiny_sae,
)


def after(lm: LanguageModel, sae, *stack: Intervention, **options) -> Tensor:
    """What the layer [length, d] gives under some interventions."""
    with steering(lm, sae, LAYER, stack, **options):
        detector = LayerActivationDetector(LAYER)
        with detector.on(lm):
            logits(lm)
    return captured(detector)[0]


def captured(detector: LayerActivationDetector) -> Tensor:
    found = detector.get_captured()
    assert found is not None
    return found


def active_feature(lm: LanguageModel, sae) -> int:
    """A feature that fires on some ordinary tokens of the text and not on others."""
    x, special = activations(lm)
    fires = (sae.encode(x[~special]) > 0).float().mean(0)
    return int((fires - 0.5).abs().argmin())


@pytest.mark.parametrize("input_norm", ["none", "constant_norm_rescale", "layer_norm"])
@pytest.mark.parametrize(
    ("op", "value", "unit"),
    [
        ("add", 3.0, "latent"),
        ("add", -0.7, "max"),
        ("add", 0.5, "norm"),
        ("clamp", 2.5, "latent"),
        ("clamp", 0.8, "max"),
        ("scale", 3.0, "latent"),
        ("ablate", 0.0, "latent"),
    ],
)
def test_the_layer_moves_by_the_difference_of_two_decodings(tiny_lm, op, value, unit, input_norm):
    sae = tiny_sae()
    sae.input_norm = input_norm
    feature, maximum = active_feature(tiny_lm, sae), 7.0
    x, special = activations(tiny_lm)
    z = sae.encode(x)
    changed = z.clone()
    size = {"latent": 1.0, "max": maximum, "norm": x.norm(dim=1) / sae.W_dec[feature].norm()}[unit]
    if unit == "norm" and input_norm != "none":
        size = size / torch.as_tensor(sae.latent_units(x))[:, 0]
    column = changed[:, feature]
    changed[:, feature] = {
        "add": column + value * size,
        "clamp": torch.zeros_like(column) + value * size,
        "scale": column * value,
        "ablate": torch.zeros_like(column),
    }[op]
    expected = x + sae.decode(changed, x) - sae.decode(z, x)
    expected[special] = x[special]
    intervention = Intervention(f"feature:{feature}", op, value, unit)
    got = after(tiny_lm, sae, intervention, max_acts={feature: maximum})
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)
    assert not torch.equal(got, x)


def test_interventions_on_one_feature_act_one_after_the_other(tiny_lm):
    sae = tiny_sae()
    feature = f"feature:{active_feature(tiny_lm, sae)}"
    clamp, double = Intervention(feature, "clamp", 2.0), Intervention(feature, "scale", 2.0)
    four = after(tiny_lm, sae, Intervention(feature, "clamp", 4.0))
    torch.testing.assert_close(after(tiny_lm, sae, clamp, double), four)
    torch.testing.assert_close(
        after(tiny_lm, sae, double, clamp), after(tiny_lm, sae, clamp), atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize(
    "stack",
    [
        (),
        (Intervention("feature:3", "scale", 1.0),),
        (Intervention("feature:3", "add", 0.0, "latent"),),
        (Intervention(f"layer:{LAYER}", "scale", 1.0),),
        (Intervention("feature:3", "add", 9.0, scope="generated"),),
    ],
)
def test_what_changes_nothing_changes_no_logit(tiny_lm, stack):
    assert torch.equal(steered_logits(tiny_lm, tiny_sae(), *stack), logits(tiny_lm))


def test_a_feature_that_is_silent_everywhere_can_be_removed_without_a_trace(tiny_lm):
    sae = tiny_sae()
    x, special = activations(tiny_lm)
    silent = int(sae.encode(x[~special]).amax(0).argmin())
    removed = steered_logits(tiny_lm, sae, Intervention(f"feature:{silent}", "ablate", 0))
    assert torch.equal(removed, logits(tiny_lm))


def test_tokens_where_the_feature_is_silent_stay_bit_for_bit(tiny_lm):
    sae = tiny_sae()
    feature = active_feature(tiny_lm, sae)
    x, special = activations(tiny_lm)
    got = after(tiny_lm, sae, Intervention(f"feature:{feature}", "scale", 5.0))
    fires = (sae.encode(x)[:, feature] > 0) & ~special
    assert torch.equal(got[~fires], x[~fires])
    assert not torch.isclose(got[fires], x[fires]).all(dim=1).any()


def test_special_and_outlier_tokens_pass_unchanged(tiny_lm):
    x, special = activations(tiny_lm)
    assert special[0]  # the start token
    limit = float(x.norm(dim=1).median())
    got = after(tiny_lm, tiny_sae(outlier_norm=limit), Intervention("feature:3", "add", 5.0))
    passed = special | (x.norm(dim=1) > limit)
    assert torch.equal(got[passed], x[passed])
    assert not torch.isclose(got[~passed], x[~passed]).all(dim=1).any()


def test_padding_passes_unchanged(tiny_lm):
    detector = LayerActivationDetector(LAYER)
    with detector.on(tiny_lm):
        _, encodings = tiny_lm.inference.execute_inference([TEXT, "Granite"])
        plain = captured(detector)
    change = Intervention("feature:3", "add", 5.0)
    with steering(tiny_lm, tiny_sae(), LAYER, [change]), detector.on(tiny_lm):
        tiny_lm.inference.execute_inference([TEXT, "Granite"])
    padding = encodings["attention_mask"] == 0
    assert padding.any()
    assert torch.equal(captured(detector)[padding], plain[padding])


def test_the_input_of_a_block_is_steered_as_its_output_is(tiny_lm):
    sae = tiny_sae()
    intervention = Intervention("feature:3", "add", 5.0)
    with steering(tiny_lm, sae, "resid_post.0", [intervention]):
        behind = logits(tiny_lm)
    with steering(tiny_lm, sae, "resid_pre.1", [intervention]):
        before = logits(tiny_lm)
    assert torch.equal(before, behind)
    assert not torch.equal(before, logits(tiny_lm))


def test_the_model_is_plain_again_after_the_block_even_after_an_error(tiny_lm):
    plain = logits(tiny_lm)

    def fail() -> None:
        with steering(tiny_lm, tiny_sae(), LAYER, [Intervention("feature:3", "add", 5.0)]):
            assert not torch.equal(logits(tiny_lm), plain)
            assert torch.equal(logits(tiny_lm, with_controllers=False), plain)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert torch.equal(logits(tiny_lm), plain)
    assert tiny_lm.layers.get_hooks() == []


# Generation.


@pytest.mark.parametrize("scope", ["all", "prompt", "generated"])
def test_cached_and_uncached_generation_agree(tiny_lm, scope):
    sae = tiny_sae()
    stack = [
        Intervention(f"feature:{active_feature(tiny_lm, sae)}", "scale", 4.0, scope=scope),
        Intervention("feature:3", "add", 3.0, scope=scope),
    ]
    seen: dict[bool, list[Tensor]] = {True: [], False: []}
    texts = {}
    for cached, rows in seen.items():
        head = tiny_lm.model.get_output_embeddings()
        handle = head.register_forward_hook(lambda _, __, out, rows=rows: rows.append(out[0, -1]))
        try:
            with steering(tiny_lm, sae, LAYER, stack):
                texts[cached] = tiny_lm.generate(
                    TEXT, max_new_tokens=12, temperature=0, use_cache=cached
                ).token_ids
        finally:
            handle.remove()
    assert texts[True] == texts[False]
    torch.testing.assert_close(
        torch.stack(seen[True]), torch.stack(seen[False]), atol=1e-4, rtol=1e-4
    )


def last_logits(lm: LanguageModel, *stack: Intervention) -> Tensor:
    """What a short generation chose its tokens from: [tokens, vocabulary]."""
    rows: list[Tensor] = []
    head = lm.model.get_output_embeddings()
    handle = head.register_forward_hook(lambda _, __, out: rows.append(out[0, -1].clone()))
    try:
        with steering(lm, tiny_sae(), LAYER, stack):
            lm.generate(TEXT, max_new_tokens=3, temperature=0)
    finally:
        handle.remove()
    return torch.stack(rows)


def test_a_scope_reaches_only_its_tokens(tiny_lm):
    plain = last_logits(tiny_lm)
    everywhere, prompt, generated = (
        last_logits(tiny_lm, Intervention("feature:3", "add", 6.0, scope=scope))
        for scope in ("all", "prompt", "generated")
    )
    # The first new token sees the prompt alone.
    assert torch.equal(generated[0], plain[0])
    assert torch.equal(prompt[0], everywhere[0])
    assert not torch.allclose(prompt[0], plain[0], atol=1e-2)
    assert not torch.allclose(generated[1], plain[1], atol=1e-2)


def test_scale_by_one_writes_the_same_text(tiny_lm):
    plain = tiny_lm.generate(TEXT, max_new_tokens=12, seed=4)
    with steering(tiny_lm, tiny_sae(), LAYER, [Intervention("feature:3", "scale", 1.0)]):
        assert tiny_lm.generate(TEXT, max_new_tokens=12, seed=4) == plain
    with steering(tiny_lm, tiny_sae(), LAYER, [Intervention("feature:3", "add", 20.0)]):
        assert tiny_lm.generate(TEXT, max_new_tokens=12, seed=4).text != plain.text


# Raw layers.


@pytest.mark.parametrize(
    ("op", "value", "unit"),
    [
        ("scale", 0.5, "latent"),
        ("clamp", 3.0, "latent"),
        ("clamp", 0.5, "norm"),
        ("ablate", 0, "max"),
    ],
)
def test_a_raw_layer_changes_its_length(tiny_lm, op, value, unit):
    x, special = activations(tiny_lm)
    length = {"scale": 0.5, "ablate": 0.0}.get(op, value / (1 if unit == "norm" else x.norm(dim=1)))
    expected = torch.where(special[:, None], x, x * torch.as_tensor(length).reshape(-1, 1))
    got = after(tiny_lm, tiny_sae(), Intervention(f"layer:{LAYER}", op, value, unit))
    torch.testing.assert_close(got, expected)


def test_the_outlier_limit_holds_for_a_raw_change_of_the_saes_own_layer(tiny_lm):
    x, special = activations(tiny_lm)
    limit = float(x.norm(dim=1).median())
    got = after(tiny_lm, tiny_sae(limit), Intervention("layer:resid_post.1", "ablate", 0))
    passed = special | (x.norm(dim=1) > limit)
    assert torch.equal(got[passed], x[passed])
    assert (got[~passed] == 0).all()


# What is refused.


def test_unknown_features_layers_and_maxima_are_refused_before_anything_runs(tiny_lm):
    sae = tiny_sae()
    with pytest.raises(UserError, match="not a feature of this SAE") as caught:
        steered_logits(tiny_lm, sae, Intervention(f"feature:{LATENTS}", "add", 1.0))
    assert f"0 to {LATENTS - 1}" in caught.value.hint
    with pytest.raises(UserError, match="no known maximum") as caught:
        steered_logits(tiny_lm, sae, Intervention("feature:3", "add", 1.0, "max"))
    assert "mi-crow index" in caught.value.hint
    with pytest.raises(NotFoundError, match=r"layer 'h\.99' not found"):
        steered_logits(tiny_lm, sae, Intervention("layer:h.99", "ablate", 0))
    assert tiny_lm.layers.get_hooks() == []


@pytest.mark.gpu
def test_steering_on_the_gpu_in_bf16_leaves_untouched_tokens_alone(tiny_model_dir):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    lm = LanguageModel.from_huggingface(tiny_model_dir, device="cuda")
    plain = logits(lm)
    assert plain.dtype == torch.bfloat16
    assert torch.equal(steered_logits(lm, tiny_sae(), Intervention("feature:3", "scale", 1)), plain)
    assert not torch.equal(
        steered_logits(lm, tiny_sae(), Intervention("feature:3", "add", 9)), plain
    )
