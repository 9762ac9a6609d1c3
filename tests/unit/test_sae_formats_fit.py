"""The check of an import: what fits is left in peace, what does not is told, with what would."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor

from mi_crow.cli import main
from mi_crow.errors import NotFoundError, UserError
from mi_crow.mechanistic.sae import (
    L1Sae,
    SaeMetadata,
    SparseAutoencoder,
    TopKSae,
    Transcoder,
    load_sae,
)
from mi_crow.mechanistic.sae.evaluation.standing import standing_of
from mi_crow.mechanistic.sae.formats.fit import OUTLIER_FACTOR, check_fit
from mi_crow.store.workspace import Workspace
from tests.helpers.architectures import tiny
from tests.helpers.jobs_fixture import own_queues

if TYPE_CHECKING:
    from mi_crow.language_model import LanguageModel

TEXTS = [
    f"The {n} ships leave the harbour of town {n * 7} at dawn, and rain falls." for n in range(40)
]


def activations(lm: "LanguageModel", layer: str, special: bool = False) -> Tensor:
    from mi_crow.language_model.capture_pass import run_to
    from mi_crow.language_model.tokenize import encode_batch

    point = lm.layers.resolve(layer)
    encoding = encode_batch(lm.tokenizer, TEXTS, 128)
    found = run_to(lm, [point], encoding.input_ids, encoding.attention_mask)[point].float()
    keep = encoding.attention_mask.bool() if special else ~encoding.special
    return found[keep]


def fitting_sae(x: Tensor, layer: str, scale: float = 1.0, **metadata: Any) -> L1Sae:
    """An SAE without learning: a pair of latents for each principal direction of scale * x, of
    which some are left out, so that it fits these activations well and others badly."""
    x = scale * x
    mean = x.mean(0)
    directions = torch.linalg.svd(x - mean, full_matrices=False).Vh[: x.shape[1] // 2]
    rows = torch.cat([directions, -directions])
    sae = L1Sae(len(rows), x.shape[1])
    with torch.no_grad():
        sae.encoder_rows.copy_(rows)
        sae.W_dec.copy_(rows)
        sae.b_dec.copy_(mean)
        sae.b_enc.zero_()
    sae.metadata = SaeMetadata(point=layer, **metadata)
    return sae


@pytest.mark.slow
def test_an_sae_at_its_place_raises_no_warning(sample_lm: "LanguageModel") -> None:
    x = activations(sample_lm, "resid_post.2")
    fit = check_fit(sample_lm, fitting_sae(x, "resid_post.2"), TEXTS)
    assert fit.warnings == ()
    assert fit.fvu < 0.2
    assert fit.tokens == len(x)
    median = float(x.norm(dim=1).median())
    assert fit.outlier_norm == pytest.approx(OUTLIER_FACTOR * median, rel=1e-3)
    assert fit.alternatives.keys() >= {"--layer resid_pre.2", "--layer mlp_out.2"}
    assert fit.layer.name == "model.layers.2"


def test_another_hook_point_is_named(sample_lm: "LanguageModel") -> None:
    sae = fitting_sae(activations(sample_lm, "mlp_out.2"), "resid_post.2")
    fit = check_fit(sample_lm, sae, TEXTS)
    assert "--layer mlp_out.2" in fit.warnings[-1]
    assert fit.alternatives["--layer mlp_out.2"] < 0.1 < fit.fvu


def test_an_sae_that_fits_nowhere_is_said_to(sample_lm: "LanguageModel") -> None:
    sae = fitting_sae(activations(sample_lm, "resid_post.2"), "resid_post.2")
    with torch.no_grad():
        sae.W_dec.mul_(-2)
    fit = check_fit(sample_lm, sae, TEXTS)
    assert fit.fvu > 0.9
    assert len(fit.warnings) == 1
    assert "resid_post.2: the SAE does not fit" in fit.warnings[0]


def test_another_scale_is_named_with_its_factor(sample_lm: "LanguageModel") -> None:
    x = activations(sample_lm, "resid_pre.0")
    scale = x.shape[1] ** 0.5 / float(x.norm(dim=1).mean())
    assert scale > 3  # plain activations are far too small for the SAE of scaled ones
    sae = fitting_sae(x, "resid_pre.0", scale)
    fit = check_fit(sample_lm, sae, TEXTS)
    assert f"--scale {scale:.4g}" in fit.warnings[-1]
    sae.fold_scale(scale)
    assert check_fit(sample_lm, sae, TEXTS).warnings == ()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "says"),
    [("constant_norm_rescale", "norm sqrt(d)"), ("layer_norm", "LayerNorm")],
)
def test_another_normalisation_is_named(sample_lm: "LanguageModel", kind: str, says: str) -> None:
    from mi_crow.mechanistic.sae.input_norm import normalised

    taken, _ = normalised(activations(sample_lm, "resid_post.2"), kind)
    sae = fitting_sae(taken, "resid_post.2")
    with torch.no_grad():
        sae.b_enc.sub_(0.3)  # small inputs are now cut off: the scale matters
    wrong = check_fit(sample_lm, sae, TEXTS)
    assert any(says in name for name in wrong.alternatives)
    sae.input_norm = kind
    right = check_fit(sample_lm, sae, TEXTS)
    name = next(name for name in wrong.alternatives if says in name)
    assert wrong.alternatives[name] == pytest.approx(right.fvu, rel=0.05)


def test_a_bos_rule_that_differs_is_tried(tiny_lm: "LanguageModel") -> None:
    assert tiny_lm.tokenizer.bos_token_id is not None
    sae = fitting_sae(activations(tiny_lm, "resid_post.1"), "resid_post.1")
    tried = check_fit(tiny_lm, sae, TEXTS).alternatives
    assert any("BOS" in name for name in tried)


@pytest.mark.slow
def test_a_transcoder_is_measured_against_what_it_predicts(tiny_lm: "LanguageModel") -> None:

    width = tiny_lm.layers.width("resid_pre.1")
    sae = Transcoder(16, width, width, 4)
    sae.metadata = SaeMetadata(point="resid_pre.1", other={"target_layer": "mlp_out.1"})
    with torch.no_grad():
        sae.W_dec.zero_()
        sae.b_dec.copy_(activations(tiny_lm, "mlp_out.1").mean(0))
    assert check_fit(tiny_lm, sae, TEXTS).fvu == pytest.approx(1.0, abs=1e-3)  # the mean alone
    sae.metadata = SaeMetadata(point="resid_pre.1")
    with pytest.raises(UserError, match="the layer that it predicts"):
        check_fit(tiny_lm, sae, TEXTS)


def test_what_cannot_be_checked_is_said(tiny_lm: "LanguageModel") -> None:
    sae: SparseAutoencoder = TopKSae(8, 5, 2)
    sae.metadata = SaeMetadata(point="resid_post.1")
    with pytest.raises(UserError, match="reads 5 inputs"):
        check_fit(tiny_lm, sae, TEXTS)
    sae.metadata = SaeMetadata(point="resid_post.99")
    with pytest.raises(NotFoundError, match=r"resid_post\.99"):
        check_fit(tiny_lm, sae, TEXTS)
    sae = TopKSae(8, tiny_lm.layers.width("resid_post.1"), 2)
    sae.metadata = SaeMetadata(point="resid_post.1")
    with pytest.raises(UserError, match="no text"):
        check_fit(tiny_lm, sae, [])


def test_the_command_checks_and_takes_over_what_the_model_says(
    sample_lm: "LanguageModel",
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    own_queues(tmp_path, monkeypatch)
    monkeypatch.setenv("MI_CROW_WORKSPACE", str(tmp_path / "w"))
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS))
    sae = fitting_sae(activations(sample_lm, "resid_post.2"), "resid_post.2")
    sae.save(tmp_path / "in")
    arguments = ["import", str(tmp_path / "in"), "--check", "--model", "sample", "--documents", "8"]
    arguments += ["--dataset", str(tmp_path / "texts.txt"), "--device", "cpu"]
    assert main([*arguments, "--name", "good", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["layer"], found["model"], found["warnings"]) == ("model.layers.2", "sample", [])
    assert 0 < found["fvu"] < 0.3
    assert found["l0"] > 0
    metadata = load_sae(tmp_path / "w/saes/good").metadata
    assert (metadata.point, metadata.layer) == ("resid_post.2", "model.layers.2")
    assert metadata.tokenizer_hash == sample_lm.tokenizer_hash
    assert metadata.outlier_norm is not None
    (kept,) = Workspace(tmp_path / "w").scan_saes()[0]
    standing = standing_of(kept)
    assert (standing.measured, standing.fvu) == ("as checked", found["fvu"])
    assert main([*arguments, "--name", "bad", "--layer", "mlp_out.1"]) == 0
    said = capsys.readouterr().out
    assert "warning: the file says resid_post.2" in said
    assert "fits better with --layer resid_post.2" in said
    assert "mi-crow index --sae bad --dataset" in " ".join(said.split())
    lines = tmp_path / "texts.jsonl"
    lines.write_text("\n".join(json.dumps({"text": text}) for text in TEXTS))
    more = ["--name", "some", "--dataset", str(lines), "--tokens", "300", "--json"]
    assert main([*arguments, *more]) == 0  # 8 of these documents have 160 tokens
    assert 300 <= json.loads(capsys.readouterr().out)["tokens"] < 330


@pytest.mark.slow
@pytest.mark.parametrize(
    ("made_at", "said"),
    [
        ("mlp_out.1", "mlp_raw.1"),
        ("mlp_raw.1", "mlp_out.1"),
        ("blocks.1.ln2.hook_normalized", "mlp_in.1"),
        ("z.1", "attn_out.1"),
        ("resid_mid.1", "resid_post.1"),
    ],
)
def test_the_hook_point_that_an_sae_was_made_at_is_named(made_at: str, said: str) -> None:
    lm = tiny("gemma2")
    sae = fitting_sae(activations(lm, made_at), said)
    fit = check_fit(lm, sae, TEXTS)
    best = min(fit.alternatives, key=lambda name: fit.alternatives[name])
    assert best == f"--layer {made_at}"
    assert best in fit.warnings[-1]


@pytest.mark.slow
def test_both_ends_of_a_transcoder_are_tried() -> None:
    lm = tiny("gemma2")
    x, y = activations(lm, "blocks.1.ln2.hook_normalized"), activations(lm, "mlp_out.1")
    sae = Transcoder(64, 32, 32, 32)
    linear = torch.linalg.lstsq(x, y - y.mean(0)).solution
    with torch.no_grad():
        sae.encoder_rows.copy_(torch.cat([torch.eye(32), -torch.eye(32)]))
        sae.W_dec.copy_(torch.cat([linear, -linear]))
        sae.b_enc.zero_()
        sae.b_dec.copy_(y.mean(0))
    sae.metadata = SaeMetadata(point="mlp_in.1", other={"target_layer": "mlp_raw.1"})
    fit = check_fit(lm, sae, TEXTS)
    best = min(fit.alternatives, key=lambda name: fit.alternatives[name])
    assert best == "--layer blocks.1.ln2.hook_normalized --target-layer mlp_out.1"
