"""Evaluating SAEs and transcoders on a captured run of a real small model, and what is refused."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from safetensors.torch import save_file as save_tensors

from mi_crow.errors import CorruptDataError, NotFoundError, UserError
from mi_crow.jobs.checks import check_evaluate
from mi_crow.language_model.capture.job import capture_run
from mi_crow.language_model.config import CaptureConfig, DatasetSpec, LiveTexts, ModelSpec
from mi_crow.mechanistic.features.config import IndexConfig
from mi_crow.mechanistic.features.index.build import build_index
from mi_crow.mechanistic.features.queries import FeatureStore
from mi_crow.mechanistic.sae import TopKSae
from mi_crow.mechanistic.sae.config import SaeTrainingConfig, TrainConfig
from mi_crow.mechanistic.sae.evaluation.config import EvaluateConfig
from mi_crow.mechanistic.sae.evaluation.evaluate import evaluate_sae
from mi_crow.mechanistic.sae.train.run import train_run
from mi_crow.store.atomic import temporary_name
from mi_crow.store.checksums import sum_of
from mi_crow.store.runs.manifest import RunManifest
from mi_crow.store.workspace import Workspace
from tests.helpers.index_runs import identity_sae, save_sae
from tests.helpers.progress import Watched
from tests.helpers.tiny_models import TEXTS

if TYPE_CHECKING:
    from mi_crow.language_model import LanguageModel

NEW_KEYS = {"cosine", "ce_mean", "loss_recovered_mean", "model_id"}


@pytest.fixture
def captured(workspace: Workspace, tiny_model_dir: Path, tmp_path: Path) -> Workspace:
    """A run of a block's input and of its MLP's output, with labels."""
    many = TEXTS * 80
    rows = [{"text": f"{n}: {many[n]} {many[7 * n]}", "label": "ab"[n % 2]} for n in range(80)]
    texts = tmp_path / "texts.jsonl"
    texts.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    config = CaptureConfig(
        ModelSpec(str(tiny_model_dir), device="cpu"),
        DatasetSpec(str(texts)),
        ("resid_post.0", "mlp_out.1"),
        dtype="fp32",
        name="run",
    )
    capture_run(workspace, config)
    return workspace


def train(workspace: Workspace, name: str, layer: str, **fields: Any) -> None:
    training = SaeTrainingConfig(steps=60, batch_size=256)
    config = TrainConfig(
        "run", layer, name=name, k=4, expansion=2.0, training=training, device="cpu"
    )
    train_run(workspace, replace(config, **fields))


def at_block(tokenizer_hash: str | None, n: int = 32, **metadata: str) -> TopKSae:
    """An SAE of the block that was captured."""
    sae = identity_sae(tokenizer_hash, n=n)
    there = {"layer": "model.layers.0", "point": "resid_post.0"}
    sae.metadata = replace(sae.metadata, **{**there, **metadata})
    return sae


def test_a_transcoder_is_evaluated_by_what_it_predicts(
    captured: Workspace, tiny_lm: "LanguageModel"
) -> None:
    train(captured, "coder", "resid_post.0", arch="transcoder", target_layer="mlp_out.1")
    found = evaluate_sae(captured, EvaluateConfig("coder", device="cpu"), lm=tiny_lm)
    assert found.keys() >= NEW_KEYS
    trained = json.loads((captured.sae_dir("coder") / "training.json").read_text())["result"]
    assert found["fvu"] == pytest.approx(trained["fvu"])
    # The block's MLP is replaced, not the layer that was read: losses stay near the model's own.
    train(captured, "plain", "mlp_out.1")
    same = evaluate_sae(captured, EvaluateConfig("plain", device="cpu"), lm=tiny_lm)
    for key in ("ce_original", "ce_zero", "ce_mean"):
        assert found[key] == pytest.approx(same[key], rel=1e-5), "the same layer is ablated"
    assert found["ce_reconstructed"] != pytest.approx(same["ce_reconstructed"], rel=1e-7)


@pytest.mark.parametrize("coder", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_texts_are_measured_as_a_run_of_them_is(
    captured: Workspace, tiny_lm: "LanguageModel", coder: bool
) -> None:
    more = {"arch": "transcoder", "target_layer": "mlp_out.1"} if coder else {}
    train(captured, "sae", "resid_post.0", **more)
    folder, progress = captured.sae_dir("sae"), Watched()
    before = {path.relative_to(captured.root) for path in captured.root.rglob("*")}
    wanted = evaluate_sae(captured, EvaluateConfig("sae", device="cpu"), lm=tiny_lm)
    dataset = RunManifest.load(captured.run_dir("run")).dataset
    texts = LiveTexts(DatasetSpec(**dataset))
    config = EvaluateConfig("sae", live=texts, device="cpu")
    ours = temporary_name(folder / "evaluation").name
    killed = folder / ours.replace(f"-{os.getpid()}-", "-999999999-")  # an evaluation like it
    killed.mkdir()
    found = evaluate_sae(captured, config, progress, lm=tiny_lm)
    assert found == wanted | {"run_id": None, "dataset": dataset}
    assert found["probes"]
    assert json.loads((folder / "evaluation.json").read_text()) == found
    after = {path.relative_to(captured.root) for path in captured.root.rglob("*")}
    assert {str(path.name) for path in after - before} == {"evaluation.json"}
    # Fewer texts are other figures, and none that is held out is a mistake.
    some = replace(config, live=replace(texts, dataset=replace(texts.dataset, limit=60)))
    assert evaluate_sae(captured, some, lm=tiny_lm)["fvu"] != found["fvu"]
    none = replace(config, live=replace(texts, dataset=replace(texts.dataset, limit=1)))
    with pytest.raises(UserError, match="contains no held-out documents"):
        evaluate_sae(captured, none, lm=tiny_lm)
    assert not list(folder.glob(".tmp-*"))


def test_texts_that_do_not_go_with_an_evaluation_are_refused(
    captured: Workspace, tiny_lm: "LanguageModel"
) -> None:
    dataset = RunManifest.load(captured.run_dir("run")).dataset
    texts = LiveTexts(DatasetSpec(**dataset))
    others: tuple[dict[str, Any], ...] = (
        {"run_id": "run"},
        {"tuned_run": "run"},
        {"model": "sample"},
    )
    for other in others:
        with pytest.raises(UserError, match="given") as caught:
            EvaluateConfig("sae", live=texts, **other)
        assert caught.value.hint
    save_sae(captured, at_block("another tokenizer"), "sae")
    with pytest.raises(UserError, match=r"SAE 'sae' is of model .*, not of"):
        evaluate_sae(captured, EvaluateConfig("sae", live=texts, device="cpu"), lm=tiny_lm)
    save_sae(captured, at_block(tiny_lm.tokenizer_hash, n=40), "wide")
    with pytest.raises(UserError, match=r"SAE 'wide' reads 40 inputs, layer .* has width 32"):
        evaluate_sae(captured, EvaluateConfig("wide", live=texts, device="cpu"), lm=tiny_lm)
    streamed = at_block(tiny_lm.tokenizer_hash)
    streamed.metadata = replace(streamed.metadata, run_id=None)
    save_sae(captured, streamed, "streamed")
    check_evaluate(captured, EvaluateConfig("streamed", live=texts))
    with pytest.raises(UserError, match="does not say which run") as caught:
        check_evaluate(captured, EvaluateConfig("streamed"))
    assert "texts with --dataset" in caught.value.hint
    missing = replace(texts, dataset=DatasetSpec("/nowhere/texts.jsonl"))
    with pytest.raises(NotFoundError, match="not found"):
        check_evaluate(captured, EvaluateConfig("wide", live=missing))
    assert not list(captured.saes_dir.glob("*/.tmp-*"))


def test_a_transcoder_has_an_index(captured: Workspace, tiny_lm: "LanguageModel") -> None:
    train(captured, "coder", "resid_post.0", arch="transcoder", target_layer="mlp_out.1")
    build_index(captured, IndexConfig("coder", device="cpu"), lm=tiny_lm)
    store = FeatureStore.open(captured, "coder")
    assert store.meta().layer == "model.layers.0"
    detail = store.detail(int(store.ids()[0]))
    assert detail.encoder_decoder_cosine is None
    assert detail.promoted
    assert detail.neighbours


def test_figures_of_an_sae_are_all_there(captured: Workspace, tiny_lm: "LanguageModel") -> None:
    train(captured, "sae", "resid_post.0")
    found = evaluate_sae(captured, EvaluateConfig("sae", device="cpu"), lm=tiny_lm)
    assert found.keys() >= NEW_KEYS
    assert 0.3 < found["cosine"] <= 1
    original, mean = found["ce_original"], found["ce_mean"]
    assert (found["loss_recovered_mean"] is None) == (mean <= original)
    probes = found["probes"]
    for side in ("latents_accuracy", "residual_accuracy"):
        assert probes[side].keys() == {"1", "2", "5"}
        assert all(0 <= value <= 1 for value in probes[side].values())
    assert probes["raw"].keys() == {"auroc", "accuracy"}
    written = json.loads((captured.sae_dir("sae") / "evaluation.json").read_text())
    assert written == found
    rounded = evaluate_sae(
        captured, EvaluateConfig("sae", device="cpu", precision="bf16"), lm=tiny_lm
    )
    assert rounded["other_sets"] <= 0.001
    assert rounded["fvu"] == pytest.approx(found["fvu"], rel=1e-3)
    assert rounded["ce_reconstructed"] == pytest.approx(found["ce_reconstructed"], rel=1e-3)


def test_documents_in_small_batches_give_the_same_losses(
    captured: Workspace, tiny_lm: "LanguageModel"
) -> None:
    save_sae(captured, at_block(tiny_lm.tokenizer_hash))
    config = EvaluateConfig("sae", device="cpu")
    found = evaluate_sae(captured, config, lm=tiny_lm)
    again = evaluate_sae(captured, replace(config, batch_size=1), lm=tiny_lm)
    for key in ("ce_original", "ce_reconstructed", "kl"):
        assert again[key] == pytest.approx(found[key], rel=1e-4)


def relabel(run: Path, label: str | None) -> None:
    """Gives every document of a run this label, and the manifest the sums of the changed files."""
    manifest = RunManifest.load(run)
    for part in manifest.parts:
        path = run / "tokens" / f"{part.stem}.parquet"
        table = pq.read_table(path)
        column = pa.array([label] * len(table), table.schema.field("label").type)
        place = table.schema.get_field_index("label")
        pq.write_table(table.set_column(place, "label", column), path)
        part.files["tokens"] = sum_of(path)
    manifest.save(run)


def test_labels_that_no_probe_can_be_fitted_for_are_told(
    captured: Workspace, tiny_lm: "LanguageModel"
) -> None:
    save_sae(captured, at_block(tiny_lm.tokenizer_hash))
    for label, says in (("all", "each label needs documents"), (None, "have no labels")):
        relabel(captured.run_dir("run"), label)
        progress = Watched()
        found = evaluate_sae(captured, EvaluateConfig("sae", device="cpu"), progress, lm=tiny_lm)
        assert found["probes"] == {}
        [told] = [line for line in progress.lines if "no probes" in line]
        assert says in told


class TestInputThatDoesNotFit:
    """One sentence, and nothing written."""

    def refuse(
        self, workspace: Workspace, lm: "LanguageModel", says: str, config: EvaluateConfig
    ) -> None:
        with pytest.raises(UserError, match=says):
            evaluate_sae(workspace, config, lm=lm)
        assert not (workspace.sae_dir(config.sae_id) / "evaluation.json").exists()

    def put(
        self, workspace: Workspace, tokenizer_hash: str | None, n: int = 32, **metadata: str
    ) -> EvaluateConfig:
        save_sae(workspace, at_block(tokenizer_hash, n, **metadata))
        return EvaluateConfig("sae", device="cpu")

    def test_another_width(self, captured: Workspace, tiny_lm: "LanguageModel") -> None:
        config = self.put(captured, tiny_lm.tokenizer_hash, n=16)
        self.refuse(captured, tiny_lm, "reads 16 inputs.*has width 32", config)

    def test_another_layer(self, captured: Workspace, tiny_lm: "LanguageModel") -> None:
        config = self.put(
            captured, tiny_lm.tokenizer_hash, layer="model.layers.2", point="resid_post.2"
        )
        with pytest.raises(NotFoundError, match=r"layer 'model\.layers\.2' is not in run"):
            evaluate_sae(captured, config, lm=tiny_lm)

    def test_a_run_of_another_model(self, captured: Workspace, tiny_lm: "LanguageModel") -> None:
        config = self.put(captured, "f" * 16)
        self.refuse(captured, tiny_lm, "run 'run' is of model.*SAE 'sae' of 'tiny'", config)

    def test_a_model_with_another_tokenizer(
        self, captured: Workspace, tiny_lm: "LanguageModel"
    ) -> None:
        folder = captured.run_dir("run")
        manifest = RunManifest.load(folder)
        manifest.tokenizer_hash = "e" * 16
        manifest.save(folder)
        self.refuse(captured, tiny_lm, "another tokenizer", self.put(captured, None))

    def test_a_run_that_is_not_complete(
        self, captured: Workspace, tiny_lm: "LanguageModel"
    ) -> None:
        folder = captured.run_dir("run")
        manifest = RunManifest.load(folder)
        manifest.status = "running"
        manifest.save(folder)
        self.refuse(captured, tiny_lm, "not complete", self.put(captured, None))

    def test_memory_that_runs_out(
        self, captured: Workspace, tiny_lm: "LanguageModel", monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: Any) -> Any:
            raise torch.OutOfMemoryError("CUDA out of memory")

        monkeypatch.setattr("mi_crow.mechanistic.sae.evaluation.evaluate.model_loss", fail)
        config = self.put(captured, tiny_lm.tokenizer_hash)
        self.refuse(captured, tiny_lm, "out of memory while evaluating 'sae' on cpu", config)

    def test_an_sae_of_another_width_to_train_on_from(
        self, captured: Workspace, tiny_lm: "LanguageModel"
    ) -> None:
        self.put(captured, tiny_lm.tokenizer_hash, n=16)
        with pytest.raises(UserError, match=r"SAE 'sae' reads 16 inputs, layer .* has width 32"):
            train(captured, "next", "resid_post.0", init="sae")

    def test_a_transcoder_whose_target_was_not_captured(
        self, captured: Workspace, tiny_lm: "LanguageModel"
    ) -> None:
        train(captured, "sae", "resid_post.0", arch="transcoder", target_layer="mlp_out.1")
        path = captured.sae_dir("sae") / "cfg.json"
        path.write_text(path.read_text().replace("model.layers.1.mlp", "model.layers.2.mlp"))
        config = EvaluateConfig("sae", device="cpu")
        self.refuse(captured, tiny_lm, "'model.layers.2.mlp' is not in run", config)


def test_activations_that_are_not_finite_are_refused(
    captured: Workspace, tiny_lm: "LanguageModel"
) -> None:
    train(captured, "plain", "mlp_out.1")
    for part in captured.run_dir("run").rglob("*.safetensors"):
        with safe_open(part, "pt") as file:
            notes = file.metadata()
        tensors = load_file(part)
        tensors["activations"][-3, 1] = float("nan")
        save_tensors(tensors, part, metadata=notes)
    with pytest.raises(CorruptDataError, match="not finite"):
        build_index(captured, IndexConfig("plain", device="cpu"), lm=tiny_lm)
    assert not captured.index_path("plain").exists()
    with pytest.raises(CorruptDataError, match="not finite"):
        evaluate_sae(captured, EvaluateConfig("plain", device="cpu"), lm=tiny_lm)
    with pytest.raises(CorruptDataError, match="not finite"):
        train(captured, "other", "mlp_out.1")
