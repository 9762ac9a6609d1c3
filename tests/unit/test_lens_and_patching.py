"""The logit lens is the model's own output after the last block; patching brings back a prompt."""

import json
from typing import Any

import pytest
import torch

from mi_crow.cli import main
from mi_crow.errors import UserError
from mi_crow.language_model import LanguageModel
from mi_crow.language_model.capture_pass import run_to
from mi_crow.mechanistic.attribution.lens import logit_lens, text_lens
from mi_crow.mechanistic.attribution.passage import passages_of
from mi_crow.mechanistic.attribution.patching import patch_features, patch_modules
from mi_crow.mechanistic.attribution.site import SaeSite
from mi_crow.mechanistic.attribution.target import Target
from mi_crow.mechanistic.attribution.two_prompts import patch_prompts
from mi_crow.mechanistic.sae.substitute import substitute
from mi_crow.mechanistic.steering.loading import join
from tests.helpers.session_fixture import SAE_ID, add_tiny_sae
from tests.helpers.steering_fixture import TEXT, tiny_sae
from tests.helpers.tiny_models import build_model, build_tokenizer


def pair(lm: LanguageModel) -> tuple[Any, Any]:
    """Two texts that differ in their third token."""
    ids = lm.tokenize([TEXT])[0]
    other = [*ids[:3], (ids[3] + 7) % 200, *ids[4:]]
    return lm.padded([ids]), lm.padded([other])


@pytest.mark.parametrize(
    "architecture",
    ["gemma2", *(pytest.param(one, marks=pytest.mark.slow) for one in ("gpt2", "cohere"))],
)
def test_the_lens_after_the_last_block_is_the_output(architecture):
    tokenizer = build_tokenizer()
    lm = LanguageModel.from_local_torch(build_model(architecture, len(tokenizer)), tokenizer)
    encoding = lm.encode([TEXT])
    layers = logit_lens(lm, encoding, top=4)
    with torch.no_grad():
        shares = lm.model(**encoding.as_inputs()).logits[0].float().softmax(-1)
    assert [one.point for one in layers] == ["resid_post.0", "resid_post.1", "resid_post.2"]
    best = shares.topk(4, dim=-1)
    assert torch.equal(layers[-1].tokens, best.indices)
    assert torch.allclose(layers[-1].probabilities, best.values, atol=1e-5)
    assert torch.allclose(layers[-1].entropy, -(shares * shares.log()).sum(-1), atol=1e-4)
    assert float(layers[-1].divergence.max()) < 1e-5
    assert float(layers[0].divergence.min()) > 1e-4


def test_restoring_the_whole_stream_where_the_prompts_differ_brings_the_answer_back(tiny_lm):
    clean, corrupted = pair(tiny_lm)
    last = clean.input_ids.shape[1] - 1
    target = Target("difference", last, 80, 91)
    found = patch_modules(tiny_lm, clean, corrupted, target, "resid")
    assert found.points == ("resid_post.0", "resid_post.1", "resid_post.2")
    assert found.effects[-1][last] == pytest.approx(1, abs=1e-3)  # all that the output reads
    assert found.effects[-1][:last] == pytest.approx([0.0] * last, abs=1e-3)
    assert all(row[:3] == (0, 0, 0) for row in found.effects)  # nothing differs before it
    site = SaeSite.of(join("tiny", tiny_lm, tiny_sae()))
    every = patch_features(site, clean, corrupted, target)
    [row] = every.effects
    with torch.no_grad():
        decoded = []
        for encoding in (clean, corrupted):
            x = run_to(tiny_lm, [site.read], encoding.input_ids)[site.read][0]
            decoded.append(site.sae.decode_sparse(site.sae.encode_sparse(x)))
        change = torch.zeros_like(decoded[0])
        change[5] = (decoded[0] - decoded[1])[5]
        with substitute(tiny_lm, site.read, lambda x: x + change):
            logits = tiny_lm.model(**corrupted.as_inputs()).logits[0, last]
    value = float(logits[80] - logits[91])
    share = (value - every.corrupted) / (every.clean - every.corrupted)
    assert row[5] == pytest.approx(share, abs=1e-3)
    with pytest.raises(UserError, match="same on both prompts"):
        patch_modules(tiny_lm, clean, clean, target, "mlp")


def test_prompts_and_answers_that_cannot_be_compared_say_so(tiny_lm):
    with pytest.raises(UserError, match=r"the prompts have \d+ and \d+ tokens"):
        patch_prompts(tiny_lm, TEXT, "The")
    with pytest.raises(UserError, match="both prompts are the same"):
        patch_prompts(tiny_lm, TEXT, TEXT)
    long = TEXT * 40
    with pytest.raises(UserError, match="of which the model reads"):
        patch_prompts(tiny_lm, f"A{long}", f"E{long}")


def test_the_lens_of_windows_is_that_of_each(tiny_lm):
    passages = passages_of(tiny_lm, TEXT * 40, windows=True)
    found = text_lens(tiny_lm, passages, 2)
    assert len(found["tokens"]) == passages.places
    second = logit_lens(tiny_lm, passages.encodings[1], 2)
    start = passages.encodings[0].input_ids.shape[1]
    for layer, own in zip(found["layers"], second, strict=True):
        assert len(layer["top"]) == len(layer["kl"]) == passages.places
        assert layer["entropy"][start] == pytest.approx(float(own.entropy[0]), rel=1e-4)


def test_the_commands_print_tables_and_json(workspace, tiny_model_dir, capsys):
    add_tiny_sae(workspace, tiny_model_dir)
    place = ["--workspace", str(workspace.root), "--device", "cpu"]
    assert main(["lens", *place, TEXT, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["layers"]) == 3
    assert all(len(one["top"]) == len(found["tokens"]) for one in found["layers"])
    assert main(["lens", *place, "--model", str(tiny_model_dir), TEXT]) == 0
    assert "resid_post.2" in capsys.readouterr().out
    answers = ["--target", "e", "--against", "a"]
    for more in ([], ["--what", "sae"], ["--feature", "3"], ["--what", "mlp"]):
        assert main(["patch", *place, "abc", "abd", *answers, *more, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert len(found["effects"]) == (1 if "sae" in more or "--feature" in more else 3)
        assert len(found["effects"][0]) == len(found["tokens"])
    assert main(["patch", *place, "abc", "abd", *answers]) == 0
    assert "restored" in capsys.readouterr().out
    for command, words in (
        (["patch", *place, "abc", "abd", *answers, "--feature", "999"], "not in SAE"),
        (["patch", *place, "abc", "abd", "--what", "mlp", "--feature", "3"], "--what mlp"),
        (["lens", *place, " "], "the text is empty"),
        (["patch", *place, "abc", "abd", "--target", "e", "--against", "e"], "minus itself is 0"),
        (["lens", *place, TEXT * 40], "read it in windows (--windows)"),
        (["lens", *place, "--sae", "gone", TEXT], "'gone' not found"),
        (["lens", *place, "--sae", SAE_ID, "--model", "sample", TEXT], "were both given"),
        (["patch", *place, "--sae", SAE_ID, "--model", "sample", "a", "b"], "were both given"),
        (["lens", *place, "--revision", "main", TEXT], "--revision is for --model"),
        (["patch", *place, "--model-dtype", "auto", "a", "b"], "--model-dtype is for --model"),
    ):
        assert main(command) == 2
        assert words in capsys.readouterr().err
