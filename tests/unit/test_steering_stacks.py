"""Stacks of any targets: groups, several SAEs, vectors, neurons, positions; and what is refused."""

import json

import pytest
import torch
from torch import Tensor

from mi_crow.errors import MiCrowError, UserError
from mi_crow.hooks import LayerActivationDetector
from mi_crow.language_model.capture_pass import run_to
from mi_crow.language_model.chat import ChatPrompt, chat_prompt, token_roles
from mi_crow.language_model.context import ForwardContext
from mi_crow.mechanistic.sae import ReluTranscoder
from mi_crow.mechanistic.steering.fits import check_stack, looked_up
from mi_crow.mechanistic.steering.interventions import Intervention, parse_intervention
from mi_crow.mechanistic.steering.steer import SaeAt, SteeringParts, steering_with
from mi_crow.mechanistic.vectors.stored import SteeringVector, load_vector, save_vector
from tests.helpers.steering_fixture import (
    LATENTS,
    LAYER,
    TEXT,
    WIDTH,
    activations,
    logits,
    steered_logits,
    tiny_sae,
)
from tests.unit.test_steering_steer import active_feature, after

VECTOR = torch.linspace(-1, 2, WIDTH)


def layer_under(lm, parts: SteeringParts, *texts: str, layer: str = LAYER) -> Tensor:
    """What `layer` [length, d] gives under interventions given in words."""
    stack = [parse_intervention(text) for text in texts]
    detector = LayerActivationDetector(layer)
    with steering_with(lm, parts, stack), detector.on(lm):
        logits(lm)
    found = detector.get_captured()
    assert found is not None
    return found[0]


def vector_parts(**made) -> SteeringParts:
    vector = SteeringVector("calm", {"resid_post.1": VECTOR}, {"layers": {"resid_post.1": made}})
    return SteeringParts(vectors={"calm": vector})


@pytest.mark.parametrize(
    "text",
    [
        "3+0.5*7-2*12=+0.3norm",
        "my-sae/3+7=swap 0.3norm against 9+1.5*11 on generated@feedback 0.9 0.4?b/7>2",
        "group:-2*3+7=+1",
        "tag:cold weather=floor 1max on role user",
        "vector:calm=+0.3norm on last 3?vector:calm<1.5",
        "neuron:mlp_in.3/17=cap 0.5 on window 3:",
        "layer:model.layers.1=x2 on tokens 3,44?7>0.2max",
    ],
)
def test_words_and_json_carry_every_target(text: str) -> None:
    one = parse_intervention(text)
    assert parse_intervention(one.words) == one
    assert Intervention.from_json(json.loads(json.dumps(one.as_json()))) == one
    assert Intervention.from_json(one.as_json("my-sae")) == one.in_sae("my-sae")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("3+3=+1", "feature 3 is twice"),
        ("3+0*7=+1", "feature 7 has weight 0"),
        ("3-7=floor 1", "a weight below 0"),
        ("3=swap 1", "swap needs rivals"),
        ("3=4 against 7", "clamp takes no rivals"),
        ("3+7=swap 1 against 7", "feature 7 is target and rival"),
        ("vector:a=+1 against 7", "rivals are features"),
        ("vector:../a=+1", "is not a valid target"),
        ("neuron:h.1=+1", "is not a valid target"),
        ("neuron:h.1/3=+1max", "a neuron has no known maximum"),
        ("3=+1 on Tuesday", "scope 'Tuesday' is not known"),
        ("3=+1 on window 9:3", "has no tokens"),
        ("3=+1 on last x", "is not a whole number"),
        ("3+99999999999=+1", "at most 2,147,483,647"),
    ],
)
def test_what_means_nothing_is_said_in_a_sentence(text: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as caught:
        parse_intervention(text)
    assert "\n" not in caught.value.sentence


def test_a_group_moves_by_the_sum_of_its_features(tiny_lm) -> None:
    sae = tiny_sae()
    x, special = activations(tiny_lm)
    got = after(tiny_lm, sae, parse_intervention("3+0.5*7=+4")) - x
    expected = 4 * sae.W_dec[3] + 2 * sae.W_dec[7]
    torch.testing.assert_close(got[~special], expected.expand_as(x)[~special], atol=1e-4, rtol=1e-4)
    # In norms the group has one length, whatever its features and weights.
    for text in ("3+0.5*7-12=+0.3norm", "3=+0.3norm"):
        moved = after(tiny_lm, sae, parse_intervention(text)) - x
        shares = moved.norm(dim=1)[~special] / x.norm(dim=1)[~special]
        torch.testing.assert_close(shares, torch.full_like(shares, 0.3), atol=1e-4, rtol=1e-4)


def test_a_swap_raises_the_target_and_takes_its_rivals_away(tiny_lm) -> None:
    sae = tiny_sae()
    rival = active_feature(tiny_lm, sae)
    x, special = activations(tiny_lm)
    z = sae.encode(x)
    got = after(tiny_lm, sae, parse_intervention(f"3=swap 5 against {rival}"))
    expected = x + (5 - z[:, 3]).clamp_min(0)[:, None] * sae.W_dec[3]
    expected = expected - z[:, rival, None] * sae.W_dec[rival]
    assert z[~special, rival].any()
    torch.testing.assert_close(got[~special], expected[~special], atol=1e-4, rtol=1e-4)


def test_saes_on_several_layers_act_at_once_and_one_sets_the_condition_of_another(tiny_lm) -> None:
    first, second = tiny_sae(), tiny_sae()
    parts = SteeringParts(
        SaeAt(first, tiny_lm.layers.resolve("resid_post.0")),
        "first",
        {"second": SaeAt(second, tiny_lm.layers.resolve(LAYER))},
    )
    below = layer_under(tiny_lm, parts, "3=+4")
    both = layer_under(tiny_lm, parts, "3=+4", "second/5=+6")
    moved = (both - below).norm(dim=1) > 1e-6
    torch.testing.assert_close(
        both[moved], (below + 6 * second.W_dec[5])[moved], atol=1e-4, rtol=1e-4
    )
    assert moved[1:].all()
    plain = layer_under(tiny_lm, parts)
    gate = active_feature(tiny_lm, second)
    x = layer_under(tiny_lm, parts, layer="resid_post.0")
    where = first.encode(x)[:, gate] > 0
    gated = layer_under(tiny_lm, parts, f"second/5=+6?first/{gate}>0")
    changed = (gated != plain).any(dim=1)
    _, special = activations(tiny_lm)
    assert torch.equal(changed, where & ~special)
    with pytest.raises(UserError, match="reaches after the layer that is changed"):
        layer_under(tiny_lm, parts, "3=+4?second/5>0")
    assert tiny_lm.layers.get_hooks() == []


def test_a_transcoder_is_steered_where_it_writes(tiny_lm) -> None:
    coder = ReluTranscoder(24, WIDTH, n_outputs=WIDTH, seed=2).requires_grad_(False)
    points = [tiny_lm.layers.resolve(f"mlp_{end}.1") for end in ("in", "out")]
    parts = SteeringParts(SaeAt(coder, *points))
    encoding = tiny_lm.encode([TEXT])
    plain = run_to(tiny_lm, points, encoding.input_ids, encoding.attention_mask)
    x, y = (plain[point][0] for point in points)
    z = coder.encode(x)
    number = int((z > 0).float().mean(0).sub(0.5).abs().argmin())
    got = layer_under(tiny_lm, parts, f"{number}=ablate", layer="mlp_out.1")
    expected = y - z[:, number, None] * coder.W_dec[number]
    own = ~encoding.special[0]
    torch.testing.assert_close(got[own], expected[own], atol=1e-4, rtol=1e-4)
    assert (z[own, number] > 0).any()


def test_a_vector_acts_by_its_length_its_norm_and_its_projection(tiny_lm) -> None:
    x, special = activations(tiny_lm)
    unit = VECTOR / VECTOR.norm()
    own = ~special
    for text, expected in (
        ("vector:calm=+2", x + 2 * VECTOR),
        ("vector:calm=+0.3norm", x + 0.3 * x.norm(dim=1, keepdim=True) * unit),
        ("vector:calm=ablate", x - (x @ unit)[:, None] * unit),
        ("vector:calm=project 0", x - (x @ unit)[:, None] * unit),
        (
            "vector:calm=cap 0.5max",
            x - ((x @ unit - VECTOR.norm()).clamp_min(0))[:, None] * unit,
        ),
    ):
        got = layer_under(tiny_lm, vector_parts(max=2.0), text)
        torch.testing.assert_close(got[own], expected[own], atol=1e-4, rtol=1e-4)
        assert torch.equal(got[special], x[special])
    middle = float((x @ unit / VECTOR.norm()).median())
    got = layer_under(tiny_lm, vector_parts(), f"vector:calm=+2?vector:calm>{middle:.6g}")
    assert 0 < int((got != x).any(dim=1).sum()) < len(x)
    with pytest.raises(UserError, match="vector 'calm' has no known maximum"):
        layer_under(tiny_lm, vector_parts(), "vector:calm=+1@feedback")


def test_one_neuron_is_changed_alone(tiny_lm) -> None:
    x, special = activations(tiny_lm)
    got = layer_under(tiny_lm, SteeringParts(), f"neuron:{LAYER}/5=-3")
    expected = x.clone()
    expected[~special, 5] = x[~special, 5] - 3
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("scope", "places"),
    [
        ("last 2", [5, 6]),
        ("window 2:4", [2, 3]),
        ("window 6:", [6, 7, 8, 9]),
        ("prompt", [1, 2, 3, 4, 5, 6]),
        ("generated", [7, 8, 9]),
        ("role user", [1, 2, 3]),
        ("role assistant", [4, 5, 6, 7, 8, 9]),
    ],
)
def test_positions_reach_their_tokens_wherever_the_padding_is(tiny_lm, scope, places) -> None:
    """Teacher forced: ten tokens, of which the first seven are the prompt."""
    ids = tiny_lm.tokenize(["Granite rises above the harbour before dawn, gulls"])[0][:10]
    one = parse_intervention(f"3=+5 on {scope}")
    for padding in (0, 3):
        row = torch.tensor([[0] * padding + ids])
        mask = torch.tensor([[0] * padding + [1] * len(ids)])
        special = (mask == 0) | (row == ids[0])
        context = ForwardContext(row, mask, special, 0, padding + 7)
        detector = LayerActivationDetector(LAYER)

        def run(*stack: Intervention, context=context, detector=detector) -> Tensor:
            with (
                steering_with(
                    tiny_lm, SteeringParts(SaeAt(tiny_sae(), tiny_lm.layers.resolve(LAYER))), stack
                ),
                tiny_lm.spoken(["user"] * 4 + ["assistant"] * 3),
                tiny_lm.running(context),
                detector.on(tiny_lm),
            ):
                tiny_lm.model(input_ids=context.input_ids, attention_mask=context.attention_mask)
            found = detector.get_captured()
            assert found is not None
            return found[0]

        moved = ((run(one) - run()).abs() > 1e-6).any(dim=1)[padding:]
        assert moved.nonzero()[:, 0].tolist() == places


def test_tokens_are_chosen_by_their_ids(tiny_lm) -> None:
    ids = tiny_lm.tokenize(["The ferry left the harbour before dawn."])[0]
    one = parse_intervention(f"3=+5 on tokens {ids[4]},{ids[6]}")
    x, _ = activations(tiny_lm)
    moved = (after(tiny_lm, tiny_sae(), one) != x).any(dim=1)
    assert moved.tolist() == [token in (ids[4], ids[6]) for token in ids]
    with pytest.raises(UserError, match="the prompt is not a chat"):
        steered_logits(tiny_lm, tiny_sae(), parse_intervention("3=+5 on role user"))


def test_ids_that_are_no_tokens_of_the_model_are_refused(tiny_lm) -> None:
    with pytest.raises(UserError, match="999999 is not the id of a token of the model") as caught:
        layer_under(tiny_lm, SteeringParts(), "layer:resid_post.1=x0 on tokens 3,999999")
    assert f"0 to {tiny_lm.embedding_rows - 1}" in caught.value.hint


def test_a_group_that_is_refused_says_what_to_do() -> None:
    for text, hint in (("3+3=+1", "give it one weight"), ("3+0*7=+1", "leave it out")):
        with pytest.raises(UserError) as caught:
            parse_intervention(text)
        assert caught.value.hint == hint
        assert "group:" not in str(caught.value)
    with pytest.raises(UserError) as caught:
        parse_intervention("vector:../a=+1")
    assert "42=+8" in caught.value.hint


def test_the_tokens_of_a_chat_have_their_speaker(tiny_lm) -> None:
    tokenizer = tiny_lm.tokenizer
    before = tokenizer.chat_template
    tokenizer.chat_template = (
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    try:
        prompt = chat_prompt(
            tokenizer,
            [{"role": "system", "content": "Short."}, {"role": "user", "content": "A ferry?"}],
        )
    finally:
        tokenizer.chat_template = before
    assert prompt.text == "<system>Short.\n<user>A ferry?\n<assistant>"
    assert prompt == ChatPrompt(prompt.text, ((15, "system"), (30, "user")))
    ids = tiny_lm.tokenize([prompt.text])[0]
    roles = token_roles(tokenizer, prompt, ids)
    assert len(roles) == len(ids)
    assert list(dict.fromkeys(roles)) == ["system", "user", "assistant"]
    with pytest.raises(UserError, match="no chat template"):
        chat_prompt(tokenizer, [{"role": "user", "content": "A ferry?"}])


def test_a_rested_intervention_changes_nothing_and_is_not_looked_at(tiny_lm, workspace) -> None:
    one = Intervention(f"feature:{LATENTS}", "add", 4.0, enabled=False)
    assert Intervention.from_json(one.as_json()) == one
    assert torch.equal(steered_logits(tiny_lm, tiny_sae(), one), logits(tiny_lm))
    check_stack(workspace, [one], None)


def test_what_does_not_fit_the_workspace_is_said_in_one_sentence(workspace) -> None:
    from mi_crow.mechanistic.concepts.annotations import Annotations

    for name, model in (("own", "m"), ("other", "another-model")):
        tiny_sae(model=model).save(workspace.make_sae_dir(name, name))
    save_vector(workspace, SteeringVector("calm", {"resid_post.1": VECTOR}, {"model_id": "m"}))
    assert torch.equal(load_vector(workspace, "calm").directions["resid_post.1"], VECTOR)
    for text, sentence in (
        (f"{LATENTS}=+1", f"'feature:{LATENTS}' is not a feature of SAE 'own'"),
        (f"3=swap 1 against {LATENTS}", "is not a feature of SAE 'own'"),
        (f"3=+1?{LATENTS}>1", "is not a feature of SAE 'own'"),
        ("3=+1?missing/3>1", "SAE 'missing' not found"),
        ("other/3=+1", "SAE 'other' is of model 'another-model', this runs on 'm'"),
        ("vector:loud=+1", "vector 'loud' not found; there is calm"),
        ("tag:sea=+1", "no feature of SAE 'own' has tag 'sea'"),
    ):
        with pytest.raises(MiCrowError) as refused:
            check_stack(workspace, [parse_intervention(text)], "own")
        assert sentence in refused.value.sentence
    check_stack(workspace, [parse_intervention("vector:calm=+1?own/3>0")], "own")
    annotations = Annotations(workspace.annotations_path)
    for feature, name, tags in ((3, "sea", ()), (9, "gulls", ("sea",)), (4, "bread", ())):
        annotations.set_concept("own", feature, name, tags=tags)
    annotations.close()
    found = looked_up(workspace, [parse_intervention("tag:bread=swap 1 against tag:sea")], "own")
    assert [one.words for one in found] == ["4=swap 1 against 3+9"]


def test_a_vector_of_another_width_is_refused(tiny_lm) -> None:
    vector = SteeringVector("calm", {LAYER: torch.ones(8)})
    with pytest.raises(UserError, match=f"vector 'calm' has width 8, layer '{LAYER}' has {WIDTH}"):
        layer_under(tiny_lm, SteeringParts(vectors={"calm": vector}), "vector:calm=+1")
    with pytest.raises(UserError, match="vector 'loud' is not loaded"):
        layer_under(tiny_lm, SteeringParts(vectors={"calm": vector}), "vector:loud=+1")


def test_a_function_of_the_user_runs_only_where_that_is_allowed(tiny_lm, tmp_path) -> None:
    path = tmp_path / "own.py"
    path.write_text("def double(x):\n    return 2 * x\n\ndef bad(x):\n    return x[0, 0]\n")
    one = parse_intervention(f"layer:{LAYER}=call {path}:double on window 2:4")
    assert Intervention.from_json(one.as_json()) == parse_intervention(one.words) == one
    x, _ = activations(tiny_lm)
    detector = LayerActivationDetector(LAYER)
    with steering_with(tiny_lm, SteeringParts(), [one], allow_code=True), detector.on(tiny_lm):
        logits(tiny_lm)
    got = detector.get_captured()
    assert got is not None
    expected = x.clone()
    expected[2:4] *= 2
    torch.testing.assert_close(got[0], expected)

    def refusal(one: Intervention, *, allow_code: bool = True) -> str:
        stacked = steering_with(tiny_lm, SteeringParts(), [one], allow_code=allow_code)
        with pytest.raises(UserError) as caught, stacked:
            logits(tiny_lm)
        assert tiny_lm.layers.get_hooks() == []
        return caught.value.sentence

    assert "--allow-code" in refusal(one, allow_code=False)
    bad = parse_intervention(f"layer:{LAYER}=call {path}:bad")
    assert "it must return a tensor of shape" in refusal(bad)
    path.write_text("def double(x):\n    raise ValueError('too\\nmuch')\n")
    assert "has changed since" in refusal(one)
    again = parse_intervention(f"layer:{LAYER}=call {path}:double")
    assert "double raised ValueError: too much" in refusal(again)
    path.write_text("def double(x):\n    raise SystemExit\n")
    ends = parse_intervention(f"layer:{LAYER}=call {path}:double")
    assert "double raised SystemExit; it gets" in refusal(ends)  # and the session goes on
    path.write_text("def double(x):\n    raise MemoryError\n")
    full = parse_intervention(f"layer:{LAYER}=call {path}:double")
    stacked = steering_with(tiny_lm, SteeringParts(), [full], allow_code=True)
    with pytest.raises(MemoryError), stacked:
        logits(tiny_lm)
    with pytest.raises(UserError, match="not found"):
        parse_intervention(f"layer:{LAYER}=call {tmp_path}/none.py:double")
    with pytest.raises(UserError, match="is not a function of a file"):
        parse_intervention(f"layer:{LAYER}=call {tmp_path}:double")
    with pytest.raises(UserError, match="call needs a layer"):
        parse_intervention(f"3=call {path}:double")
