"""What replacing a layer does to a model, on a model small enough to check by hand."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
import torch
from torch import Tensor, nn

from mi_crow.errors import CancelledError, UserError
from mi_crow.language_model import HookPoint
from mi_crow.mechanistic.sae import SaeMetadata, TopKSae, Transcoder
from mi_crow.mechanistic.sae.base import SparseAutoencoder
from mi_crow.mechanistic.sae.evaluation.document_pooling import pooled_documents
from mi_crow.mechanistic.sae.evaluation.model_loss import ModelLoss, TokenDocument, model_loss
from mi_crow.mechanistic.sae.substitute import Substitution, substitute, zeros
from mi_crow.progress import NullProgress, Progress

VOCABULARY, WIDTH = 11, 6
MEAN = torch.linspace(-1, 1, WIDTH)


class RunningMean(nn.Module):
    """A causal block: each position sees the mean of itself and all before it. Gives a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(WIDTH, WIDTH)

    def forward(self, hidden_states: Tensor) -> tuple[Tensor, str]:
        steps = torch.arange(1, hidden_states.shape[1] + 1)[:, None]
        return hidden_states + torch.tanh(self.mix(hidden_states.cumsum(1) / steps)), "cache"


class TinyModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, WIDTH)
        self.blocks = nn.ModuleList([RunningMean(), RunningMean()])
        self.head = nn.Linear(WIDTH, VOCABULARY)

    def forward(self, input_ids: Tensor, **_: Any) -> SimpleNamespace:
        x = self.embed(input_ids)
        for block in self.blocks:
            x = block(hidden_states=x)[0]
        return SimpleNamespace(logits=3 * self.head(x))


@pytest.fixture
def lm() -> Any:
    torch.manual_seed(0)
    return SimpleNamespace(
        model=TinyModel(),
        device=torch.device("cpu"),
        layers=SimpleNamespace(
            resolve=lambda name: HookPoint(
                name.removeprefix("in:"), name, "input" if name.startswith("in:") else "output"
            ),
            known_layout=lambda _: "rows",
        ),
    )


@pytest.fixture
def documents() -> list[TokenDocument]:
    generator = torch.Generator().manual_seed(1)
    lengths = torch.randint(3, 15, (13,), generator=generator).tolist()
    return [
        TokenDocument(
            torch.randint(0, VOCABULARY, (n,), generator=generator).tolist(), list(range(1, n))
        )
        for n in lengths
    ]


def exact_sae() -> TopKSae:
    """z = (relu(x), relu(-x)): reconstructs everything exactly."""
    sae = TopKSae(2 * WIDTH, WIDTH, k=2 * WIDTH)
    with torch.no_grad():
        rows = torch.cat([torch.eye(WIDTH), -torch.eye(WIDTH)])
        sae.W_dec.copy_(rows)
        sae.encoder_rows.copy_(rows)
    return sae


def blind_sae(outlier_norm: float | None = None) -> TopKSae:
    """Reconstructs everything as the same vector."""
    sae = TopKSae(8, WIDTH, k=1)
    with torch.no_grad():
        sae.encoder_rows.zero_()
        sae.b_dec.fill_(1.5)
    sae.metadata = SaeMetadata(outlier_norm=outlier_norm)
    return sae


def loss_at(
    lm: Any,
    sae: SparseAutoencoder,
    documents: list[TokenDocument],
    read: str = "blocks.0",
    write: str = "blocks.0",
    mean: Tensor = MEAN,
    progress: Progress | None = None,
) -> ModelLoss:
    return model_loss(
        Substitution(lm, sae, read, write), mean, documents, progress or NullProgress()
    )


@pytest.mark.slow
def test_the_original_loss_is_that_of_each_document_alone(
    lm: Any, documents: list[TokenDocument]
) -> None:
    total, tokens = 0.0, 0
    for document in documents:
        ids = torch.tensor([document.token_ids])
        with torch.no_grad():
            logits = lm.model(ids).logits[0, :-1]
        total += float(nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum"))
        tokens += ids.shape[1] - 1
    found = loss_at(lm, exact_sae(), documents)
    assert found.original == pytest.approx(total / tokens, rel=1e-5)
    assert found.tokens == tokens


def test_an_exact_sae_costs_nothing(lm: Any, documents: list[TokenDocument]) -> None:
    found = loss_at(lm, exact_sae(), documents)
    assert found.reconstructed == pytest.approx(found.original, rel=1e-5)
    assert found.kl == pytest.approx(0.0, abs=1e-6)
    assert found.zero != pytest.approx(found.original)


def test_what_an_ablation_costs_is_what_can_be_recovered() -> None:
    found = ModelLoss(3.0, 3.1, zero=8.0, mean=5.0, kl=0.1, tokens=9)
    assert found.loss_recovered == pytest.approx(4.9 / 5)
    assert found.loss_recovered_mean == pytest.approx(1.9 / 2)
    # A layer whose absence costs nothing, or helps, has nothing to recover.
    assert replace(found, zero=3.0).loss_recovered is None
    assert replace(found, mean=2.9).loss_recovered_mean is None


def test_a_blind_sae_costs_something(lm: Any, documents: list[TokenDocument]) -> None:
    found = loss_at(lm, blind_sae(), documents)
    assert found.kl > 0.01
    assert found.reconstructed != pytest.approx(found.original)


def test_outliers_pass_through_unchanged(lm: Any, documents: list[TokenDocument]) -> None:
    found = loss_at(lm, blind_sae(outlier_norm=1e-6), documents)
    assert found.zero == found.mean == found.reconstructed == found.original
    assert found.kl == 0.0


def test_only_kept_positions_are_replaced(lm: Any) -> None:
    ids = torch.randint(0, VOCABULARY, (2, 4), generator=torch.Generator().manual_seed(3))
    kept = torch.tensor([[0, 1, 1, 0], [0, 0, 1, 0]]).bool()
    substitution = Substitution(lm, blind_sae(), "blocks.0", "blocks.0")
    seen: list[Tensor] = []

    def look(x: Tensor) -> Tensor:
        seen.append(x)
        return x

    def activations(value: Any = None) -> Tensor:
        with torch.no_grad(), contextlib.ExitStack() as stack:
            if value is not None:
                stack.enter_context(substitution.replaced(kept, value))
            stack.enter_context(substitute(lm, "blocks.0", look))
            lm.model(ids)
        return seen.pop()

    plain, rebuilt, emptied = (activations(v) for v in (None, substitution.reconstruction, zeros))
    assert torch.equal(rebuilt[~kept], plain[~kept])
    assert torch.equal(emptied[~kept], plain[~kept])
    assert torch.equal(rebuilt[kept], torch.full((3, WIDTH), 1.5))
    assert not emptied[kept].any()


def by_hand(lm: Any, documents: list[TokenDocument], change: Any) -> tuple[float, float]:
    """Loss and KL from the unchanged model, one document and one position at a time; `change`
    gives the first block's output at a kept position from the block's input and output."""
    loss = kl = 0.0
    tokens = 0
    first, second = lm.model.blocks
    with torch.no_grad():
        for document in documents:
            ids = torch.tensor([document.token_ids])
            x = lm.model.embed(ids)
            y = first(x)[0]
            changed = y.clone()
            for position in document.kept:
                changed[0, position] = change(x[0, position], y[0, position])
            plain, other = (
                (3 * lm.model.head(second(h)[0]))[0].log_softmax(-1) for h in (y, changed)
            )
            for position, following in enumerate(document.token_ids[1:]):
                loss -= float(other[position, following])
                p, q = plain[position], other[position]
                kl += sum(float(p[v].exp() * (p[v] - q[v])) for v in range(VOCABULARY))
                tokens += 1
    return loss / tokens, kl / tokens


def test_losses_and_divergence_equal_those_by_hand(lm: Any, documents: list[TokenDocument]) -> None:
    sae = TopKSae(12, WIDTH, k=2, seed=4)
    found = loss_at(lm, sae, documents)
    original, _ = by_hand(lm, documents, lambda x, y: y)
    rebuilt, kl = by_hand(lm, documents, lambda x, y: sae(y[None]).reconstruction[0])
    zero, _ = by_hand(lm, documents, lambda x, y: torch.zeros(WIDTH))
    mean, _ = by_hand(lm, documents, lambda x, y: MEAN)
    figures = (found.original, found.reconstructed, found.zero, found.mean, found.kl)
    assert figures == pytest.approx((original, rebuilt, zero, mean, kl), rel=1e-4)


def test_a_transcoder_puts_its_prediction_from_one_layer_into_another(
    lm: Any, documents: list[TokenDocument]
) -> None:
    sae = Transcoder(10, WIDTH, WIDTH, k=3, seed=2, skip=True)
    with torch.no_grad():
        assert sae.W_skip is not None
        sae.W_skip.normal_(generator=torch.Generator().manual_seed(0))
    found = loss_at(lm, sae, documents, "in:blocks.0", "blocks.0")
    rebuilt, kl = by_hand(lm, documents, lambda x, y: sae(x[None]).reconstruction[0])
    assert (found.reconstructed, found.kl) == pytest.approx((rebuilt, kl), rel=1e-4)
    # What is left alone is told by the layer that is read.
    sae.metadata = SaeMetadata(outlier_norm=1e-6)
    found = loss_at(lm, sae, documents, "in:blocks.0", "blocks.0")
    assert found.reconstructed == found.zero == found.original


def test_a_transcoder_of_an_earlier_layer_is_refused(
    lm: Any, documents: list[TokenDocument]
) -> None:
    sae = Transcoder(10, WIDTH, WIDTH, k=3)
    with pytest.raises(UserError, match=r"before layer 'blocks\.1'"):
        loss_at(lm, sae, documents, "blocks.1", "blocks.0")


@pytest.mark.slow
@pytest.mark.parametrize("layer", ["blocks.1", "in:blocks.1", "embed"])
def test_a_substitution_ends_with_its_block(lm: Any, layer: str) -> None:
    ids = torch.tensor([[1, 2, 3]])
    with torch.no_grad():
        plain = lm.model(ids).logits
        with substitute(lm, layer, torch.zeros_like):
            assert not torch.equal(lm.model(ids).logits, plain)
        with pytest.raises(ValueError, match="no"), substitute(lm, layer, torch.zeros_like):
            raise ValueError("no")
        assert torch.equal(lm.model(ids).logits, plain)


def test_a_substitution_by_the_same_activations_changes_no_bit(lm: Any) -> None:
    ids = torch.tensor([[1, 2, 3]])
    with torch.no_grad():
        plain = lm.model(ids).logits
        with substitute(lm, "blocks.0", torch.clone):
            assert torch.equal(lm.model(ids).logits, plain)


def test_an_evaluation_can_be_stopped(lm: Any, documents: list[TokenDocument]) -> None:
    progress = NullProgress()
    progress.should_stop = lambda: True
    with pytest.raises(CancelledError):
        loss_at(lm, exact_sae(), documents, progress=progress)


class FakeRun:
    """Two parts of a run, as `RunReader.parts` gives them."""

    def __init__(self, labels: list[str | None], activations: Tensor, owners: Tensor) -> None:
        self.labels, self.x, self.owners = labels, activations, owners

    def parts(self) -> Iterator[SimpleNamespace]:
        half = len(self.labels) // 2
        for first, last in ((0, half), (half, len(self.labels))):
            rows = (self.owners >= first) & (self.owners < last)
            columns = {
                "label": pa.array(self.labels[first:last], pa.string()),
                "split": ["heldout" if i % 3 == 0 else "train" for i in range(first, last)],
            }
            table = pa.table(columns)
            yield SimpleNamespace(
                columns=lambda *names, table=table: table.select(list(names)),
                take=self.x[rows].__getitem__,
                norms=self.x[rows].norm(dim=1),
                table_row=self.owners[rows] - first,
            )


def fake_run(labels: list[str | None]) -> FakeRun:
    generator = torch.Generator().manual_seed(5)
    owners = torch.randint(0, len(labels), (60,), generator=generator).sort().values
    x = torch.randn(60, WIDTH, generator=generator)
    x[::9] *= 100  # massive tokens
    return FakeRun(labels, x, owners)


def test_documents_are_pooled_over_their_ordinary_tokens() -> None:
    run: Any = fake_run(["b", "a", None, "b", "a", "c", "b", "a"])
    sae = TopKSae(20, WIDTH, k=4)
    sae.metadata = SaeMetadata(outlier_norm=10.0)
    pooled = pooled_documents(sae, run)
    assert pooled is not None
    assert pooled.labels == ["a", "b", "c"]
    assert pooled.latents.labels.tolist() == [1, 0, 1, 0, 2, 1, 0]
    numbers = [0, 1, 3, 4, 5, 6, 7]
    assert pooled.latents.heldout.tolist() == [number % 3 == 0 for number in numbers]
    for row, number in enumerate(numbers):
        x = run.x[(run.owners == number) & (run.x.norm(dim=1) <= 10)]
        torch.testing.assert_close(pooled.latents.features[row], sae.encode(x).detach().amax(0))
        expected = torch.cat([x.amax(0), x.mean(0)])
        torch.testing.assert_close(pooled.residual.features[row], expected)


def test_a_run_without_labels_has_nothing_to_pool() -> None:
    run: Any = fake_run([None] * 6)
    assert pooled_documents(TopKSae(20, WIDTH, k=4), run) is None
