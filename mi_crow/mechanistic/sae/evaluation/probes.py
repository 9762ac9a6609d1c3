"""k-sparse probes: do a few latents predict a document's label, and do a few residual dimensions?

Gurnee et al. 2023, "Finding neurons in a haystack": columns are chosen by mean difference on
training documents, a logistic regression is fitted on them, and AUROC and accuracy are measured
on held-out ones. Documents with and without the label have the same total weight in fit and
accuracy, so that 0.5 is chance even for a rare label.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from mi_crow.mechanistic.sae.evaluation.pooled_auroc import label_auroc

_RIDGE = 1e-3
_NEWTON_STEPS = 12
_DENSE_STEPS = 100
PROBE_SIZES = (1, 2, 5)


@dataclass(frozen=True)
class PooledDocuments:
    """One row per document."""

    features: Tensor  # [n, columns]
    labels: Tensor  # int64 [n]
    heldout: Tensor  # bool [n]


@dataclass(frozen=True)
class ProbeScore:
    """Means over labels, on held-out documents; nan without a usable label."""

    auroc: float
    accuracy: float  # balanced: (true positive rate + true negative rate) / 2


def sparse_probe_scores(
    documents: PooledDocuments, n_labels: int, sizes: tuple[int, ...] = PROBE_SIZES
) -> dict[int, ProbeScore]:
    """One-against-rest probes on k columns, for each k.

    Labels without positives and negatives in both splits are left out.
    """
    usable, one_hot = _usable(documents, n_labels)
    if not usable:
        return {k: ProbeScore(float("nan"), float("nan")) for k in sizes}
    train = ~documents.heldout
    most = min(max(sizes), documents.features.shape[1])
    chosen = _best_columns(documents.features[train].float(), one_hot[train][:, usable], most)
    scores: dict[int, ProbeScore] = {}
    for k in sizes:
        outcomes = []
        for position, label in enumerate(usable):
            x = documents.features[:, chosen[position, : min(k, most)]].double()
            weights = _logistic(x[train], one_hot[train, label].double())
            outcomes.append(_with_constant(x[documents.heldout], x[train]) @ weights)
        scores[k] = _score(torch.stack(outcomes, 1), one_hot[documents.heldout][:, usable])
    return scores


def dense_probe_score(documents: PooledDocuments, n_labels: int) -> ProbeScore:
    """The same probes on all columns together."""
    usable, one_hot = _usable(documents, n_labels)
    if not usable:
        return ProbeScore(float("nan"), float("nan"))
    train = ~documents.heldout
    x = documents.features.float()
    design = _with_constant(x[train], x[train])
    weights = _dense_logistic(design, one_hot[train][:, usable].float())
    outcome = _with_constant(x[documents.heldout], x[train]) @ weights
    return _score(outcome, one_hot[documents.heldout][:, usable])


def _usable(documents: PooledDocuments, n_labels: int) -> tuple[list[int], Tensor]:
    """Labels with positives and negatives in both splits, and bool [n, labels] of all labels."""
    one_hot = torch.nn.functional.one_hot(documents.labels, n_labels).bool()
    sides = [one_hot[~documents.heldout], one_hot[documents.heldout]]
    return [
        label
        for label in range(n_labels)
        if all(0 < int(side[:, label].sum()) < len(side) for side in sides)
    ], one_hot


def _score(outcome: Tensor, positive: Tensor) -> ProbeScore:
    """Mean scores over labels of predictions `outcome` [n, labels] (positive: has the label)."""
    ranks = [auroc(outcome[:, i], positive[:, i]) for i in range(outcome.shape[1])]
    right = (outcome > 0) == positive
    found = (right & positive).sum(0) / positive.sum(0)
    left = (right & ~positive).sum(0) / (~positive).sum(0)
    return ProbeScore(sum(ranks) / len(ranks), float(((found + left) / 2).mean()))


def _balanced(y: Tensor) -> Tensor:
    """Weights [n, ...] that sum to n, half of it on each class of y (0 or 1)."""
    n, inside = y.shape[0], y.sum(0)
    return torch.where(y > 0, n / (2 * inside), n / (2 * (n - inside)))


def _best_columns(x: Tensor, one_hot: Tensor, k: int) -> Tensor:
    """For each label the k columns with the largest mean difference in standard deviations:
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
    """Ridge-penalised, balanced logistic regression by Newton's method: [columns + 1] weights."""
    share = _balanced(y)
    design = _with_constant(x, x)
    weights = design.new_zeros(design.shape[1])
    penalty = _RIDGE * x.shape[0] * torch.eye(design.shape[1], dtype=design.dtype)
    penalty[-1, -1] = 1e-9 * x.shape[0]  # the constant is free: just enough to be solvable
    for _ in range(_NEWTON_STEPS):
        p = torch.sigmoid(design @ weights)
        gradient = design.T @ (share * (p - y)) + penalty @ weights
        curvature = design.T @ (design * (share * p * (1 - p))[:, None]) + penalty
        weights = weights - torch.linalg.solve(curvature, gradient)
    return weights


def _dense_logistic(design: Tensor, y: Tensor) -> Tensor:
    """The same for many columns and all labels at once, by L-BFGS: design [n, columns], y [n,
    labels] -> [columns, labels]."""
    weights = design.new_zeros(design.shape[1], y.shape[1], requires_grad=True)
    share = _balanced(y)
    optimizer = torch.optim.LBFGS([weights], max_iter=_DENSE_STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        fit = torch.nn.functional.binary_cross_entropy_with_logits(
            design @ weights, y, share, reduction="sum"
        )
        loss = fit / len(y) + 0.5 * _RIDGE * weights[:-1].square().sum()
        loss.backward()
        return loss

    with torch.inference_mode(False), torch.enable_grad():
        optimizer.step(closure)
    return weights.detach()


def auroc(scores: Tensor, positive: Tensor) -> float:
    """Probability that a positive scores above a negative, ties counting half: of scores [n] and
    bool [n]; nan without either kind."""
    return float(label_auroc(scores[:, None], positive.long(), 2)[1, 0])
