"""k-sparse probes: can a few latents tell a document's label, and can a few residual dimensions?

Gurnee et al. 2023, "Finding neurons in a haystack": columns are chosen by mean difference on
training documents, a logistic regression is fitted on them, and AUROC is taken on held-out ones.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

_RIDGE = 1e-3
_NEWTON_STEPS = 12
PROBE_SIZES = (1, 2, 5)


@dataclass(frozen=True)
class PooledDocuments:
    """One row a document."""

    features: Tensor  # [n, columns]
    labels: Tensor  # int64 [n]
    heldout: Tensor  # bool [n]


def sparse_probe_scores(
    documents: PooledDocuments, n_labels: int, sizes: tuple[int, ...] = PROBE_SIZES
) -> dict[int, float]:
    """Mean held-out AUROC over labels of one-against-rest probes on k columns, for each k.

    Labels that do not stand on both sides in both splits are left out; nan when none is left.
    """
    train = ~documents.heldout
    one_hot = torch.nn.functional.one_hot(documents.labels, n_labels).bool()
    usable = [
        label
        for label in range(n_labels)
        if all(
            0 < int(one_hot[side, label].sum()) < int(side.sum())
            for side in (train, documents.heldout)
        )
    ]
    if not usable:
        return {k: float("nan") for k in sizes}
    scores: dict[int, float] = {}
    most = min(max(sizes), documents.features.shape[1])
    chosen = _best_columns(documents.features[train].float(), one_hot[train][:, usable], most)
    for k in sizes:
        values = []
        for position, label in enumerate(usable):
            x = documents.features[:, chosen[position, : min(k, most)]].double()
            weights = _logistic(x[train], one_hot[train, label].double())
            outcome = _with_constant(x[documents.heldout], x[train]) @ weights
            values.append(auroc(outcome, one_hot[documents.heldout, label]))
        scores[k] = sum(values) / len(values)
    return scores


def _best_columns(x: Tensor, one_hot: Tensor, k: int) -> Tensor:
    """For each label the k columns with the largest mean difference in units of their spread:
    x [n, columns], one_hot bool [n, labels] -> int64 [labels, k]."""
    inside = one_hot.to(x.dtype)
    counts = inside.sum(0)[:, None]
    sums = inside.T @ x
    difference = sums / counts - (x.sum(0) - sums) / (x.shape[0] - counts)
    return (difference.abs() / x.std(0).clamp_min(1e-8)).topk(k, dim=1).indices


def _with_constant(x: Tensor, reference: Tensor) -> Tensor:
    """x standardised by `reference`, with a column of ones."""
    scaled = (x - reference.mean(0)) / reference.std(0).clamp_min(1e-8)
    return torch.cat([scaled, scaled.new_ones(scaled.shape[0], 1)], dim=1)


def _logistic(x: Tensor, y: Tensor) -> Tensor:
    """Ridge-penalised logistic regression by Newton's method: [columns + 1] weights."""
    design = _with_constant(x, x)
    weights = design.new_zeros(design.shape[1])
    penalty = _RIDGE * x.shape[0] * torch.eye(design.shape[1], dtype=design.dtype)
    penalty[-1, -1] = 1e-9 * x.shape[0]  # the constant is free; a trace keeps it solvable
    for _ in range(_NEWTON_STEPS):
        p = torch.sigmoid(design @ weights)
        gradient = design.T @ (p - y) + penalty @ weights
        curvature = design.T @ (design * (p * (1 - p))[:, None]) + penalty
        weights = weights - torch.linalg.solve(curvature, gradient)
    return weights


def auroc(scores: Tensor, positive: Tensor) -> float:
    """Probability that a positive scores above a negative, ties counting half (Mann-Whitney)."""
    _, inverse, counts = scores.unique(return_inverse=True, return_counts=True)
    above = counts.cumsum(0).double()
    ranks = above - (counts.double() - 1) / 2  # mean rank of each distinct score, from 1
    n_positive = int(positive.sum())
    n_negative = positive.numel() - n_positive
    if n_positive == 0 or n_negative == 0:
        return float("nan")
    total = float(ranks[inverse][positive].sum())
    return (total - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative)
