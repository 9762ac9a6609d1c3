"""What replacing a layer does to a model, on a model small enough to check by hand."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
import torch
from torch import Tensor, nn

from mi_crow.errors import CancelledError
from mi_crow.mechanistic.sae import SaeMetadata, TopKSae
from mi_crow.mechanistic.sae.document_pooling import pooled_documents
from mi_crow.mechanistic.sae.model_loss import TokenDocument, model_loss
from mi_crow.mechanistic.sae.substitute import reconstruction, substitute, zeros
from mi_crow.progress import NullProgress

VOCABULARY, WIDTH = 11, 6


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
            resolve=lambda name: SimpleNamespace(
                name=name.removeprefix("in:"),
                kind="input" if name.startswith("in:") else "output",
            )
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
    found = model_loss(lm, exact_sae(), "blocks.0", documents, NullProgress())
    assert found.original == pytest.approx(total / tokens, rel=1e-5)
    assert found.tokens == tokens


def test_an_exact_sae_costs_nothing(lm: Any, documents: list[TokenDocument]) -> None:
    found = model_loss(lm, exact_sae(), "blocks.0", documents, NullProgress())
    assert found.reconstructed == pytest.approx(found.original, rel=1e-5)
    assert found.kl == pytest.approx(0.0, abs=1e-6)
    assert found.zero != pytest.approx(found.original)
    assert found.loss_recovered == pytest.approx(1.0, abs=1e-4)


def test_a_blind_sae_costs_something(lm: Any, documents: list[TokenDocument]) -> None:
    found = model_loss(lm, blind_sae(), "blocks.0", documents, NullProgress())
    assert found.kl > 0.01
    assert found.reconstructed != pytest.approx(found.original)


def test_outliers_pass_through_unchanged(lm: Any, documents: list[TokenDocument]) -> None:
    found = model_loss(lm, blind_sae(outlier_norm=1e-6), "blocks.0", documents, NullProgress())
    assert found.zero == found.reconstructed == found.original
    assert found.kl == 0.0


def test_only_kept_positions_are_replaced() -> None:
    x, kept = torch.randn(2, 4, WIDTH), torch.tensor([[0, 1, 1, 0], [0, 0, 1, 0]]).bool()
    with torch.no_grad():
        rebuilt = reconstruction(blind_sae(), kept)(x)
    emptied = zeros(blind_sae(), kept)(x)
    assert torch.equal(rebuilt[~kept], x[~kept])
    assert torch.equal(emptied[~kept], x[~kept])
    assert torch.equal(rebuilt[kept], torch.full((3, WIDTH), 1.5))
    assert not emptied[kept].any()


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
        model_loss(lm, exact_sae(), "blocks.0", documents, progress)


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
                row_place=self.owners[rows] - first,
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
