"""Training on the running model: the same tokens as a captured run, from any batch on."""

from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mi_crow.datasets import TextDataset, split_of
from mi_crow.errors import CancelledError, UserError
from mi_crow.language_model import LanguageModel
from mi_crow.language_model.capture.live_layer import LiveLayer
from mi_crow.language_model.capture.run import Capture
from mi_crow.language_model.config import CaptureConfig, DatasetSpec, ModelSpec
from mi_crow.mechanistic.sae import TopKSae, load_sae
from mi_crow.mechanistic.sae.config import SaeTrainingConfig, TrainConfig
from mi_crow.mechanistic.sae.train import live as live_module
from mi_crow.mechanistic.sae.train.live import LiveSource
from mi_crow.mechanistic.sae.train.run import SaeTrainer, train_run
from mi_crow.progress import NullProgress
from mi_crow.store import Workspace
from mi_crow.store.runs.reader import RunReader
from tests.helpers.progress import Watched
from tests.helpers.tiny_models import TEXTS

MANY = [f"{number}: {text}" for number in range(8) for text in TEXTS]
CONFIG = CaptureConfig(
    ModelSpec("tiny"), DatasetSpec("list"), ("resid_post.1",), dtype="fp32", batch_size=8
)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_module, "_LEAST_BLOCK_TOKENS", 700)


def source_of(lm: LanguageModel, texts: list[str] = MANY, tokens: int = 0) -> LiveSource:
    return LiveSource(LiveLayer(lm, CONFIG, NullProgress()), TextDataset(texts), tokens)


def matches(row: Tensor, rows: Tensor) -> bool:
    return bool((torch.linalg.vector_norm(rows - row, dim=1) < 1e-3).any())


def test_batches_hold_the_training_tokens_of_a_captured_run(
    tiny_lm: LanguageModel, workspace: Workspace
) -> None:
    result = Capture(tiny_lm, TextDataset(MANY), CONFIG).run(workspace, NullProgress())
    reader = RunReader(workspace.run_dir(result.run_id), "resid_post.1")
    stored = {split: reader.sample(10**6, 0, split) for split in ("train", "heldout")}
    source = source_of(tiny_lm)
    found = torch.cat(list(islice(source.batches(64, 0), 40)))
    assert len(found) == 40 * 64
    for row in found[::37]:
        assert matches(row, stored["train"])
    heldout = source.sample(50, 0, "heldout")
    assert 0 < len(heldout) <= 50
    for row in heldout[::7]:
        assert matches(row, stored["heldout"])
    # Texts may begin alike; most of what they hold is their own.
    assert sum(matches(row, stored["train"]) for row in heldout) < len(heldout) / 2
    # Several passes' worth of batches hold every training token.
    n = -(-len(stored["train"]) * 2 // 64)
    seen = torch.cat(list(islice(source.batches(64, 0), n)))
    for row in stored["train"][::29]:
        assert matches(row, seen)


@pytest.mark.slow
@pytest.mark.parametrize("start", [1, 9, 10, 11, 25])
def test_any_batch_can_be_started_from(tiny_lm: LanguageModel, start: int) -> None:
    source = source_of(tiny_lm)
    whole = list(islice(source.batches(64, 3, max_norm=source.median_norm() * 10), start + 2))
    again = source_of(tiny_lm)
    part = islice(again.batches(64, 3, max_norm=again.median_norm() * 10, start=start), 2)
    for mine, yours in zip(whole[start:], part, strict=True):
        assert torch.equal(mine, yours)


def test_a_block_is_shuffled_by_the_seed(tiny_lm: LanguageModel) -> None:
    source = source_of(tiny_lm)
    first, same, other = (next(iter(source.batches(64, seed))) for seed in (0, 0, 1))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_tokens_above_the_norm_are_left_out(tiny_lm: LanguageModel) -> None:
    source = source_of(tiny_lm)
    limit = source.median_norm()
    batches = torch.cat(list(islice(source.batches(64, 0, max_norm=limit), 20)))
    assert float(batches.norm(dim=1).max()) <= limit * 1.0001
    assert source.count(max_norm=limit) < source.count()


def test_texts_without_training_tokens_are_refused(tiny_lm: LanguageModel) -> None:
    held = [text for text in MANY if split_of(text) == "heldout"]
    with pytest.raises(UserError, match="gives no train tokens"):
        next(iter(source_of(tiny_lm, held).batches(8, 0)))


def test_a_stopped_training_goes_on_to_the_same_weights(
    tiny_lm: LanguageModel, tmp_path: Path
) -> None:
    config = SaeTrainingConfig(steps=24, batch_size=64, checkpoint_every=8)

    def trained(folder: Path, *stops: int) -> TopKSae:
        sae = TopKSae(48, 32, 4)
        for stop in stops:
            with pytest.raises(CancelledError):
                SaeTrainer(TopKSae(48, 32, 4)).train_on(
                    source_of(tiny_lm), config, Watched(looks=stop), folder
                )
        SaeTrainer(sae).train_on(source_of(tiny_lm), config, folder=folder)
        return sae

    straight, stopped = trained(tmp_path / "a"), trained(tmp_path / "b", 5, 9)
    for name, weight in straight.state_dict().items():
        assert torch.equal(weight, stopped.state_dict()[name]), name


def test_the_job_trains_without_a_run(tiny_model_dir: Path, workspace: Workspace, tmp_path: Path):
    texts = tmp_path / "texts.txt"
    texts.write_text("\n\n".join(MANY))
    stream = CaptureConfig(ModelSpec(str(tiny_model_dir)), DatasetSpec(str(texts)), ("1",))
    config = TrainConfig(
        "",
        "1",
        n_latents=48,
        k=4,
        stream=stream,
        training=SaeTrainingConfig(steps=20, batch_size=128),
        device="cpu",
        name="live",
    )
    result = train_run(workspace, config)
    assert result.tokens == 20 * 128
    assert list(workspace.activations_dir.glob("*")) == []
    sae = load_sae(workspace.sae_dir("live"))
    assert (sae.metadata.layer, sae.metadata.point) == ("model.layers.1", "resid_post.1")
    assert sae.metadata.run_id is None


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"training": SaeTrainingConfig()}, "a stream never ends"),
        ({"stream": replace(CONFIG, layers=("0", "1"))}, "reads other layers than the training"),
        ({"arch": "transcoder", "target_layer": "1"}, "a transcoder cannot be trained on a stream"),
    ],
)
def test_what_a_stream_cannot_do_is_refused(changes: dict, sentence: str) -> None:
    settings = {"stream": CONFIG, "training": SaeTrainingConfig(steps=5)} | changes
    with pytest.raises(UserError, match=sentence):
        TrainConfig("", "1", **settings)
