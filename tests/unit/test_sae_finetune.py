"""Finetuning an SAE on its model's predictions: the loss, the documents, the job and its resume."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from mi_crow.errors import CancelledError, UserError
from mi_crow.language_model.capture.job import capture_run
from mi_crow.language_model.config import CaptureConfig, DatasetSpec, ModelSpec
from mi_crow.mechanistic.sae import BatchTopKSae, SparseAutoencoder, TopKSae
from mi_crow.mechanistic.sae.base import LossContext
from mi_crow.mechanistic.sae.config import SaeTrainingConfig, TrainConfig
from mi_crow.mechanistic.sae.evaluation.documents import document_places, read_documents
from mi_crow.mechanistic.sae.evaluation.model_loss import TokenDocument
from mi_crow.mechanistic.sae.finetune.documents import DocumentBatches
from mi_crow.mechanistic.sae.finetune.job import finetune_run
from mi_crow.mechanistic.sae.finetune.kl import KlFeed
from mi_crow.mechanistic.sae.formats.load import load_sae
from mi_crow.mechanistic.sae.substitute import Substitution
from mi_crow.mechanistic.sae.train.plan import make_plan
from mi_crow.mechanistic.sae.train.run import train_run
from mi_crow.mechanistic.sae.train.state import TrainState
from mi_crow.progress import NullProgress
from mi_crow.store.runs.reader import RunReader
from mi_crow.store.workspace import Workspace
from tests.helpers.progress import Watched
from tests.helpers.tiny_models import TEXTS

if TYPE_CHECKING:
    from mi_crow.language_model import LanguageModel

LAYER = "resid_post.0"


@pytest.fixture
def captured(workspace: Workspace, tiny_model_dir: Path, tmp_path: Path) -> Workspace:
    """A run of a block's output, and an SAE trained on it."""
    many = TEXTS * 80
    rows = [{"text": f"{n}: {many[n]} {many[7 * n]}"} for n in range(80)]
    texts = tmp_path / "texts.jsonl"
    texts.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    model = ModelSpec(str(tiny_model_dir), device="cpu")
    capture_run(
        workspace, CaptureConfig(model, DatasetSpec(str(texts)), (LAYER,), dtype="fp32", name="run")
    )
    training = SaeTrainingConfig(steps=40, batch_size=256)
    train_run(
        workspace,
        TrainConfig("run", LAYER, k=4, expansion=2.0, training=training, device="cpu", name="sae"),
    )
    return workspace


def config(name: str | None = None, **fields: Any) -> TrainConfig:
    training = SaeTrainingConfig(steps=6, batch_size=256, log_every=1, checkpoint_every=2)
    plain = TrainConfig(
        "run", LAYER, init="sae", finetune="kl", training=training, device="cpu", name=name
    )
    return replace(plain, **fields)


@pytest.mark.slow
def test_a_finetune_lowers_what_the_sae_costs_and_goes_on_bit_for_bit(
    captured: Workspace,
) -> None:
    training = replace(config().training, lr=3e-3)
    asked = config("whole", training=training)
    result = finetune_run(captured, asked)
    assert result.ce_added is not None
    assert result.ce_added_before is not None
    assert result.ce_added < result.ce_added_before
    told = json.loads((captured.sae_dir("whole") / "training.json").read_text())["result"]
    assert told["ce_added_before"] == result.ce_added_before
    again = captured.make_sae_dir("again", "x")
    with pytest.raises(CancelledError):
        finetune_run(captured, asked, Watched(looks=4), again)
    assert list((again / "checkpoints").iterdir())
    resumed = finetune_run(captured, asked, None, again)
    assert replace(resumed, sae_id="", seconds=0) == replace(result, sae_id="", seconds=0)
    assert finetune_run(captured, asked, None, again) == resumed  # it is finished: nothing runs
    one, two = (load_sae(captured.sae_dir(name)).state_dict() for name in ("whole", "again"))
    assert all(torch.equal(tensor, two[name]) for name, tensor in one.items())


def feed_of(lm: "LanguageModel", workspace: Workspace, sae: SparseAutoencoder) -> KlFeed:
    reader = RunReader(workspace.run_dir("run"), reader_layer(workspace))
    documents = DocumentBatches(reader, 64, 0)
    point = lm.layers.resolve(LAYER)
    return KlFeed(
        Substitution(lm, sae, point, point),
        documents,
        next(documents.batches(0, 1))[:2],
        NullProgress(),
    )


def reader_layer(workspace: Workspace) -> str:
    from mi_crow.store.runs.manifest import RunManifest

    return RunManifest.load(workspace.run_dir("run")).layers[0].name


@pytest.mark.parametrize("kind", [TopKSae, BatchTopKSae])
def test_the_gradient_is_that_of_the_squared_error_and_the_kl_at_equal_weight(
    kind: type[Any], captured: Workspace, tiny_lm: "LanguageModel"
) -> None:
    reader = RunReader(captured.run_dir("run"), reader_layer(captured))
    sae = kind(24, reader.width, 3, seed=1)
    settings = SaeTrainingConfig(steps=4, batch_size=64, aux_alpha=0.0)
    state = TrainState(sae.train().requires_grad_(True), make_plan(sae, reader, settings))
    state.scale = state.target_scale = 1.7
    if isinstance(sae, BatchTopKSae):
        sae.threshold.fill_(0.05)
    feed = feed_of(tiny_lm, captured, sae)
    batch = next(feed.batches(state, 0))
    gradients: dict[str, Tensor] = {}

    class Kept:
        def begin_step(self, tokens: Tensor | None = None) -> None: ...
        def add_output(self, output: object, share: float) -> None: ...
        def add_loss(self, name: str, loss: Tensor) -> None: ...
        def add_firings(self, firings: Tensor) -> None: ...

    def keep() -> None:
        gradients.update(
            {n: p.grad.clone() for n, p in sae.named_parameters() if p.grad is not None}
        )
        raise CancelledError(resumable=False)

    state.reduce_gradients = keep
    before = sae.state_dict()
    before = {name: tensor.clone() for name, tensor in before.items()}
    with pytest.raises(CancelledError):
        feed.learn(state, batch, Kept())  # pyright: ignore[reportArgumentType]
    sae.load_state_dict(before)
    sae.zero_grad()
    plain_gradients(tiny_lm, state, batch)
    for name, parameter in sae.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-3, atol=1e-6)


def plain_gradients(lm: "LanguageModel", state: TrainState, batch: Sequence[TokenDocument]) -> None:
    """The same document by document, with nothing of ours in the model but a plain hook."""
    sae, limit = state.sae, state.plan.outlier_norm
    block = lm.model.get_submodule(lm.layers.resolve(LAYER).name)
    plain: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []

    def run(ids: Tensor, change: Any) -> Tensor:
        def hook(module: object, args: object, output: Any) -> Any:
            x = output[0] if isinstance(output, tuple) else output
            x = change(x)
            return (x, *output[1:]) if isinstance(output, tuple) else x

        handle = block.register_forward_hook(hook)
        try:
            return functional.log_softmax(lm.model(input_ids=ids).logits[:, :-1].float(), -1)
        finally:
            handle.remove()

    for document in batch:
        ids = torch.tensor([document.token_ids])
        seen: list[Tensor] = []
        with torch.no_grad():
            p = run(ids, lambda x, seen=seen: seen.append(x.clone()) or x)
        where = torch.zeros(ids.shape[1], dtype=torch.bool)
        where[document.kept] = True
        if limit is not None:
            where &= seen[0][0].norm(dim=-1) <= limit
        plain.append((ids, where, p, seen[0][0, where]))
    x = torch.cat([rows for *_, rows in plain]) * state.scale
    losses = sae.training_output(x, x, LossContext(variance=state.variance)).losses
    kls: list[Tensor] = []
    for ids, where, p, _ in plain:

        def rebuilt(x: Tensor, where: Tensor = where) -> Tensor:
            out = x.clone()
            out[0, where] = sae(x[0, where] * state.scale).reconstruction / state.scale
            return out

        q = run(ids, rebuilt)
        kls.append((p.exp() * (p - q)).sum())
    share = len(x) / state.plan.batch_size
    mse = losses["reconstruction"]
    kl = torch.stack(kls).sum() / sum(ids.shape[1] - 1 for ids, *_ in plain)
    (share * (mse + (mse / kl).detach() * kl) / 2).backward()


def test_batches_are_whole_documents_with_a_fixed_number_of_tokens(captured: Workspace) -> None:
    reader = RunReader(captured.run_dir("run"), reader_layer(captured))
    places = document_places(reader, heldout=False)
    texts = {tuple(one.token_ids) for one in read_documents(reader, places).values()}
    held = document_places(reader, heldout=True)
    assert not texts & {tuple(one.token_ids) for one in read_documents(reader, held).values()}
    found = list(DocumentBatches(reader, 100, 3).batches(0, 12))
    assert all(sum(len(one.kept) for one in batch) == 100 for batch in found)
    assert all(tuple(one.token_ids) in texts for batch in found for one in batch)
    assert list(DocumentBatches(reader, 100, 3).batches(5, 12)) == found[5:]
    assert list(DocumentBatches(reader, 100, 4).batches(0, 1)) != found[:1]


def test_what_cannot_be_finetuned_is_refused(captured: Workspace) -> None:
    with pytest.raises(UserError, match="an SAE that there is already"):
        config(init=None)
    with pytest.raises(UserError, match="takes no --shuffled"):
        config(training=SaeTrainingConfig(shuffled=True))
    with pytest.raises(UserError, match="takes no several --layer"):
        config(layers=("a", "b"))
    with pytest.raises(UserError, match="the finetune 'lora' is not known"):
        config(finetune="lora")
    with pytest.raises(UserError, match="one process"):
        finetune_run(captured, config(), ranks=cast(Any, SimpleNamespace(rank=0, world=2)))
