"""AUROC of pooled matrices: the share of pairs that a column orders rightly, ties counted half."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mi_crow.mechanistic.features import label_auroc
from mi_crow.mechanistic.features.index.codes import CodeStore, make_chunk
from mi_crow.mechanistic.features.index.tables.examples import pool
from mi_crow.mechanistic.features.index.tables.labels import LabelledDocuments, label_scores
from mi_crow.mechanistic.sae.evaluation import pooled_auroc
from tests.helpers.index_paths import arithmetic
from tests.helpers.index_tokens import tokens_of

__all__ = ["arithmetic"]
N_LABELS = 3
# Few distinct values, so that ties are the rule; some below 0, as residual dimensions have.
SIGNED = st.sampled_from([-2.0, -0.5, 0.0, 0.0, 0.5, 1.0])


@st.composite
def pooled_matrices(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values [documents, 4], of which the third column is silent; labels; mask."""
    n = draw(st.integers(0, 12))
    values = draw(hnp.arrays(np.float32, (n, 4), elements=SIGNED))
    values[:, 2] = 0
    labels = draw(hnp.arrays(np.int64, n, elements=st.integers(-1, N_LABELS)))
    return values, labels, draw(hnp.arrays(np.bool_, n))


def brute_force(values: np.ndarray, labels: np.ndarray, mask: np.ndarray) -> list[list[float]]:
    counted = mask & (labels >= 0)
    scores = []
    for label in range(N_LABELS):
        inside, outside = values[counted & (labels == label)], values[counted & (labels != label)]
        row = []
        for column in range(values.shape[1]):
            pairs = [(a, b) for a in inside[:, column] for b in outside[:, column]]
            wins = sum(1.0 if a > b else 0.5 if a == b else 0.0 for a, b in pairs)
            row.append(wins / len(pairs) if pairs else math.nan)
        scores.append(row)
    return scores


@given(matrix=pooled_matrices(), cells=st.sampled_from([1, 20, 1 << 20]))
def test_auroc_is_the_share_of_pairs_in_the_right_order(
    matrix: tuple[np.ndarray, np.ndarray, np.ndarray], cells: int
) -> None:
    values, labels, mask = matrix
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pooled_auroc, "_CELLS", cells)
        found = label_auroc(
            torch.from_numpy(values), torch.from_numpy(labels), N_LABELS, torch.from_numpy(mask)
        )
    assert found.shape == (N_LABELS, 4)
    expected = brute_force(values, labels, mask)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12, atol=0)


@given(
    n=st.integers(1, 15),
    one_token=st.booleans(),
    seed=st.integers(0, 1000),
)
@pytest.mark.usefixtures("arithmetic")
def test_dense_and_sparse_scores_agree(n: int, one_token: bool, seed: int) -> None:
    """The index's figures from sorted codes are those of the pooled matrix they stand for."""
    rng = np.random.default_rng(seed)
    n_latents, length = 5, 1 if one_token else 3
    values = rng.choice([0.0, 0.0, 0.5, 1.0], (n * length, n_latents)).astype(np.float32)
    values[:, 1] = 0
    document = np.repeat(np.arange(n, dtype=np.int32), length)
    position = np.tile(np.arange(length, dtype=np.int32), n)
    latents = np.tile(np.arange(n_latents, dtype=np.int16), (n * length, 1))
    labels = torch.from_numpy(rng.integers(-1, N_LABELS + 1, n))
    heldout = torch.from_numpy(rng.random(n) < 0.4)

    store = CodeStore(Path(), n_latents)  # all of it stays in memory
    store.add(make_chunk(tokens_of(document, position, values, latents), n_latents, 0))
    [block] = store.feature_blocks()
    sparse = label_scores(pool(block), LabelledDocuments(("a", "b", "c"), labels, heldout, 0))

    pooled = torch.from_numpy(values.reshape(n, length, n_latents).max(axis=1))
    for mask, scores in ((~heldout, sparse.auroc), (heldout, sparse.auroc_heldout)):
        dense = label_auroc(pooled, labels, N_LABELS, mask)
        np.testing.assert_allclose(dense.T.numpy(), scores.numpy(), rtol=1e-12, atol=0)


def test_a_column_of_one_value_tells_nothing_and_a_perfect_one_all() -> None:
    labels = torch.tensor([0, 0, 1, 1, -1])
    pooled = torch.tensor([[3.0, 7.0], [2.0, 7.0], [1.0, 7.0], [-1.0, 7.0], [99.0, 0.0]])
    found = label_auroc(pooled, labels, 3)
    assert found[:2].tolist() == [[1.0, 0.5], [0.0, 0.5]]
    assert found[2].isnan().all()  # no document has this label


def test_half_precision_matrices_are_ranked_exactly() -> None:
    """Beyond 2,048 documents ranks themselves would not fit into the matrix's own type."""
    n = 5001
    pooled = torch.linspace(0, 1, n).bfloat16()[:, None]
    labels = (torch.arange(n) >= n // 2).long()
    found = label_auroc(pooled, labels, 2)
    assert found[1, 0] == label_auroc(pooled.double(), labels, 2)[1, 0]
    torch.testing.assert_close(found[0] + found[1], torch.ones(1, dtype=torch.float64))
