"""The figures: FVU, densities, probes, each against its definition."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mi_crow.mechanistic.sae import TopKSae
from mi_crow.mechanistic.sae.evaluation.probes import (
    PooledDocuments,
    ProbeScore,
    auroc,
    dense_probe_score,
    sparse_probe_scores,
)
from mi_crow.mechanistic.sae.quality import (
    FvuSums,
    firing_counts,
    latent_densities,
    mean_target,
    reconstruction_quality,
)
from mi_crow.mechanistic.sae.source import TensorSource


def test_fvu_pools_its_sums_over_batches() -> None:
    x, noise = torch.randn(90, 6) + 100, torch.randn(90, 6)
    sums = FvuSums(6, torch.device("cpu"))
    for batch, wrong in zip(x.split(40), noise.split(40), strict=True):
        sums.add(batch, batch + wrong)
    expected = noise.square().sum() / (x - x.mean(0)).square().sum()
    assert sums.fvu() == pytest.approx(float(expected), rel=1e-4)


def test_fvu_of_the_mean_is_one_and_of_nothing_is_nan() -> None:
    x = torch.randn(50, 4)
    sums = FvuSums(4, torch.device("cpu"))
    assert sums.fvu() != sums.fvu()
    sums.add(x, x.mean(0).expand_as(x))
    assert sums.fvu() == pytest.approx(1.0)


def test_outliers_count_in_fvu_all_only() -> None:
    sae = TopKSae(16, 4, 2)
    x = torch.randn(100, 4)
    plain = reconstruction_quality(sae, x, None)
    spoiled = reconstruction_quality(sae, torch.cat([x, 1e4 * torch.ones(25, 4)]), 100.0)
    assert spoiled.fvu == pytest.approx(plain.fvu)
    assert spoiled.l0 == pytest.approx(plain.l0)
    assert spoiled.outlier_share == pytest.approx(0.2)
    assert spoiled.fvu_all != pytest.approx(plain.fvu)
    assert spoiled.explained_variance == pytest.approx(1 - plain.fvu)


def test_firing_counts_equal_those_of_the_dense_latents() -> None:
    sae = TopKSae(24, 6, 5)
    x = torch.randn(300, 6)
    counts, tokens = firing_counts(sae, x.split(70))
    assert tokens == 300
    assert torch.equal(counts, (sae.encode(x) > 0).sum(0))


def test_densities_are_shares_of_the_training_tokens() -> None:
    sae = TopKSae(24, 6, 5)
    x = torch.randn(300, 6)
    densities = latent_densities(sae, TensorSource(x, torch.arange(300) < 30), None)
    expected = (sae.encode(x[30:]) > 0).double().mean(0)
    torch.testing.assert_close(densities, expected)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=40))
def test_auroc_is_the_share_of_pairs_in_order(rows: list[tuple[int, bool]]) -> None:
    scores = torch.tensor([float(score) for score, _ in rows])
    positive = torch.tensor([is_positive for _, is_positive in rows])
    pairs = scores[positive][:, None] - scores[~positive][None]
    found = auroc(scores, positive)
    if pairs.numel() == 0:
        assert found != found
    else:
        expected = ((pairs > 0).double() + 0.5 * (pairs == 0).double()).mean()
        assert found == pytest.approx(float(expected))


def labelled_documents(n: int = 600) -> PooledDocuments:
    """Column 3 tells label 0; columns 5 and 6 together tell label 1 from label 2."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 3, (n,), generator=generator)
    x = torch.randn(n, 10, generator=generator)
    x[:, 3] += 6 * (labels == 0)
    x[:, 5] += 1.5 * (labels == 1)
    x[:, 6] += 1.5 * (labels == 1)
    return PooledDocuments(x, labels, torch.arange(n) % 5 == 0)


def test_probes_find_the_telling_columns_and_gain_from_more_of_them() -> None:
    scores = sparse_probe_scores(labelled_documents(), 3)
    assert scores.keys() == {1, 2, 5}
    assert 0.8 < scores[1].auroc < scores[2].auroc
    assert scores[2].auroc <= scores[5].auroc + 0.02
    assert 0.7 < scores[1].accuracy < scores[2].accuracy
    dense = dense_probe_score(labelled_documents(), 3)
    assert dense.auroc == pytest.approx(scores[5].auroc, abs=0.03)
    assert dense.accuracy == pytest.approx(scores[5].accuracy, abs=0.05)


def test_probes_on_noise_tell_nothing() -> None:
    documents = labelled_documents()
    noise = PooledDocuments(
        torch.randn(600, 10, generator=torch.Generator().manual_seed(1)),
        documents.labels,
        documents.heldout,
    )
    for score in (*sparse_probe_scores(noise, 3).values(), dense_probe_score(noise, 3)):
        assert abs(score.auroc - 0.5) < 0.12
        assert abs(score.accuracy - 0.5) < 0.12


def test_a_rare_label_makes_no_probe_look_accurate() -> None:
    generator = torch.Generator().manual_seed(2)
    labels = (torch.arange(800) % 16 == 0).long()
    documents = PooledDocuments(
        torch.randn(800, 6, generator=generator), labels, torch.arange(800) // 16 % 2 == 0
    )
    assert abs(sparse_probe_scores(documents, 2, (2,))[2].accuracy - 0.5) < 0.15
    told = PooledDocuments(documents.features + 6 * labels[:, None], labels, documents.heldout)
    assert sparse_probe_scores(told, 2, (1,))[1].accuracy > 0.97
    assert dense_probe_score(told, 2).accuracy > 0.97


def test_a_probe_of_separable_documents_stays_finite() -> None:
    labels = torch.arange(100) % 2
    documents = PooledDocuments(
        torch.stack([labels * 10.0, labels * 0.0], dim=1), labels, torch.arange(100) % 3 == 0
    )
    perfect = ProbeScore(1.0, 1.0)
    assert sparse_probe_scores(documents, 2, (1, 2)) == {1: perfect, 2: perfect}
    assert dense_probe_score(documents, 2) == perfect


def test_labels_missing_from_a_split_are_left_out() -> None:
    documents = labelled_documents()
    only_train = PooledDocuments(
        documents.features, documents.labels, torch.zeros(600, dtype=torch.bool)
    )
    for score in (*sparse_probe_scores(only_train, 3).values(), dense_probe_score(only_train, 3)):
        assert score.auroc != score.auroc
        assert score.accuracy != score.accuracy


def test_cosine_is_the_mean_over_ordinary_tokens() -> None:
    x = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    x[3] *= 1000
    sae = TopKSae(16, 8, k=2)
    found = reconstruction_quality(sae, x, outlier_norm=100.0)
    rebuilt = sae(x).reconstruction.detach()
    cosines = [
        float(a @ b / (a.norm() * b.norm()))
        for n, (a, b) in enumerate(zip(x, rebuilt, strict=True))
        if n != 3
    ]
    assert found.cosine == pytest.approx(sum(cosines) / 49, rel=1e-5)


def test_the_mean_target_is_of_training_tokens_without_outliers() -> None:
    x = torch.randn(60, 4, generator=torch.Generator().manual_seed(0)) + 3
    x[1] *= 1000
    kept = (torch.arange(60) % 10 != 0) & (x.norm(dim=1) <= 100)
    found = mean_target(TopKSae(8, 4, k=2), TensorSource(x), 100.0)
    torch.testing.assert_close(found, x[kept].mean(0))
