"""Directions that tell two sets of activations apart: difference of means, PCA, probe.

Each takes one row a text, `positive` [n, d] and `negative` [m, d], and gives a vector [d] whose
length is how far apart the two means are along it, so that adding it once moves a text of one kind
to the other.
"""

import torch
from torch import Tensor
from torch.nn import functional

from mi_crow.errors import UserError

_WEIGHT_DECAY = 1e-2
_ITERATIONS = 200


def difference_of_means(positive: Tensor, negative: Tensor) -> Tensor:
    """mean(positive) - mean(negative): what AxBench (Wu et al. 2025, 2501.17148) calls DiffMean,
    over texts."""
    return positive.mean(dim=0) - negative.mean(dim=0)


def principal_direction(positive: Tensor, negative: Tensor) -> Tensor:
    """The first principal component of both sets around the point midway between their means; of
    equally many, which are taken as pairs, of half their differences. This is the representation
    reading of Zou et al. 2023 (2310.01405), as repeng computes it."""
    if len(positive) == len(negative):
        half = (positive - negative) / 2
        rows = torch.cat([half, -half])
    else:
        middle = (positive.mean(dim=0) + negative.mean(dim=0)) / 2
        rows = torch.cat([positive, negative]) - middle
    _, _, directions = torch.linalg.svd(rows, full_matrices=False)
    return _scaled(directions[0], positive, negative)


def probe_direction(positive: Tensor, negative: Tensor) -> Tensor:
    """The weights of a logistic regression with weight decay on standardised activations, in the
    activations' own units; both sets count as much, whatever their sizes."""
    x = torch.cat([positive, negative])
    y = torch.cat([torch.ones(len(positive)), torch.zeros(len(negative))])
    weight = torch.where(y > 0, 0.5 / len(positive), 0.5 / len(negative))
    mean, scale = x.mean(dim=0), x.std(dim=0).clamp_min(1e-6)
    z = (x - mean) / scale
    w = torch.zeros(x.shape[1], requires_grad=True)
    b = torch.zeros((), requires_grad=True)
    solver = torch.optim.LBFGS([w, b], max_iter=_ITERATIONS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        solver.zero_grad()
        fit = functional.binary_cross_entropy_with_logits(z @ w + b, y, weight, reduction="sum")
        total = fit + _WEIGHT_DECAY * w.square().sum() / 2
        total.backward()
        return total

    with torch.enable_grad():
        solver.step(loss)
    return _scaled(w.detach() / scale, positive, negative)


def _scaled(direction: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """`direction` with the length and sign of the means' difference along it."""
    apart = difference_of_means(positive, negative)
    unit = direction / torch.linalg.vector_norm(direction).clamp_min(1e-12)
    along = apart @ unit
    if float(along.abs()) <= 1e-9 * float(torch.linalg.vector_norm(apart)):
        raise UserError(
            "the two sets of texts do not differ along this direction",
            hint="give other texts, or use --method mean",
        )
    return along * unit
