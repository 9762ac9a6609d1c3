"""The second workflow, as a user's script: train an SAE on saved activations, keep it."""

from pathlib import Path

import pytest
import torch

from mi_crow.datasets import TextDataset
from mi_crow.errors import NotFoundError, UserError
from mi_crow.language_model import LanguageModel
from mi_crow.mechanistic.sae import TopKSae, load_sae
from mi_crow.mechanistic.sae.train import SaeTrainer, SaeTrainingConfig
from mi_crow.store import LocalStore
from mi_crow.store.runs.reader import RunReader
from sample_data import corpus_path

LAYER = "model.layers.2"


def test_an_sae_is_trained_saved_and_loaded(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    lm = LanguageModel.from_huggingface("sample", store=store, device="cpu")
    dataset = TextDataset.from_local(corpus_path()).random_sample(300, seed=2)
    run_id = lm.activations.save(layer_signature=LAYER, dataset=dataset)

    width = lm.layers.width(LAYER)
    sae = TopKSae(n_latents=4 * width, n_inputs=width, k=16, device="cpu")
    config = SaeTrainingConfig(steps=250, batch_size=512, seed=0)
    history = SaeTrainer(sae).train(store, run_id, LAYER, config)

    assert {"loss", "r2", "l0", "dead_features"} <= set(history)
    assert all(0 <= dead <= sae.n_latents for dead in history["dead_features"])
    assert len({len(values) for values in history.values()}) == 1
    assert history["loss"][-1] < 0.5 * history["loss"][0]
    assert history["r2"][-1] > 0.5
    assert 0 < history["l0"][-1] <= 16

    # It reconstructs tokens of texts that it never saw.
    held_out = RunReader(store.workspace.run_dir(run_id), LAYER).sample(500, 0, split="heldout")
    x = held_out.float()
    error = (x - sae(x).reconstruction).square().sum()
    assert float(error / (x - x.mean(0)).square().sum()) < 0.5

    folder = sae.save(tmp_path / "sae")
    again = load_sae(folder)
    assert torch.equal(again.encode(x), sae.encode(x))
    assert torch.equal(again(x).reconstruction, sae(x).reconstruction)
    assert again.metadata.layer == LAYER
    assert torch.equal(load_sae(folder / "sae_weights.safetensors").W_dec, sae.W_dec)


@pytest.mark.slow
def test_epochs_count_the_same_as_steps(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    lm = LanguageModel.from_huggingface("sample", store=store, device="cpu")
    dataset = TextDataset.from_local(corpus_path()).random_sample(60, seed=3)
    run_id = lm.activations.save(layer_signature=LAYER, dataset=dataset)
    width = lm.layers.width(LAYER)
    histories = []
    for config in (
        SaeTrainingConfig(epochs=2, batch_size=256, log_every=1),
        SaeTrainingConfig(epochs=1, batch_size=256, log_every=1),
    ):
        sae = TopKSae(n_latents=2 * width, n_inputs=width, k=8)
        histories.append(SaeTrainer(sae).train(store, run_id, LAYER, config))
    assert len(histories[0]["loss"]) == pytest.approx(2 * len(histories[1]["loss"]), abs=1)


@pytest.mark.slow
def test_the_same_seed_trains_the_same_sae_and_what_does_not_fit_is_told(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    lm = LanguageModel.from_huggingface("sample", store=store, device="cpu")
    dataset = TextDataset.from_local(corpus_path()).random_sample(40, seed=6)
    run_id = lm.activations.save(layer_signature=LAYER, dataset=dataset)
    width = lm.layers.width(LAYER)
    saes = [TopKSae(n_latents=2 * width, n_inputs=width, k=8) for _ in range(2)]
    short = SaeTrainingConfig(steps=10, batch_size=128)
    first, second = (SaeTrainer(sae).train(store, run_id, LAYER, short) for sae in saes)
    assert first["loss"] == second["loss"]
    assert torch.equal(saes[0].W_dec, saes[1].W_dec)

    untouched = TopKSae(n_latents=2 * width, n_inputs=width, k=8)
    for run, layer, config, kind, sentence in (
        ("no-such-run", LAYER, short, NotFoundError, "no-such-run"),
        (run_id, "model.layers.0", short, NotFoundError, "not in run"),
        (run_id, LAYER, SaeTrainingConfig(steps=1, batch_size=10**6), UserError, "too few"),
    ):
        with pytest.raises(kind, match=sentence):
            SaeTrainer(untouched).train(store, run, layer, config)
    with pytest.raises(UserError, match="width"):
        SaeTrainer(TopKSae(n_latents=16, n_inputs=7, k=2)).train(store, run_id, LAYER, short)
    assert torch.equal(untouched.W_dec, TopKSae(2 * width, width, 8).W_dec)
