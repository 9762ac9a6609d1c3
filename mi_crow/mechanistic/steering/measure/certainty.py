"""How sure figures of continuations are: of those that were written, and of other prompts'."""

from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from mi_crow.mechanistic.steering.measure.bench import ArmTexts

SURE = 0.95  # one-sided
_FEWEST = 4  # prompts whose differences can be told


def mean_error(values: np.ndarray) -> float:
    """The standard error of a mean; 0 of a single value."""
    return float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else 0.0


def ratio_error(steered: "ArmTexts", baseline: "ArmTexts") -> float:
    """The standard error of the logarithm of two perplexities' ratio, both of as many texts written
    with the same random numbers."""
    return mean_error(_apart(steered, baseline))


def ratio_room(steered: "ArmTexts", baseline: "ArmTexts", others: int) -> float:
    """How much higher the logarithm of the ratio may be on `others` other prompts, with as many
    continuations in all: with 95% certainty no more than that.

    What it is there differs by what texts of one prompt differ by, here and there, and by what
    prompts differ by, here and there: the two variances of a random effect (Searle et al. 1992,
    "Variance Components", section 3.6), the latter 0 where prompts differ no more than texts make
    them. Student's distribution then has as many degrees of freedom as that was told from. Of fewer
    than four prompts it cannot be told what prompts differ by: texts count alone.
    """
    apart = _apart(steered, baseline)
    if len(apart) < 2:
        return 0.0
    names = list(dict.fromkeys(steered.prompts))
    groups = [
        apart[[place for place, one in enumerate(steered.prompts) if one == name]] for name in names
    ]
    p, n = len(groups), len(apart)
    if p < _FEWEST or n <= p:
        return student(n - 1) * (2 * float(apart.var(ddof=1)) / n) ** 0.5
    means = np.array([one.mean() for one in groups])
    sizes = np.array([len(one) for one in groups])
    inside = sum(float(((one - one.mean()) ** 2).sum()) for one in groups) / (n - p)
    between = float((sizes * (means - apart.mean()) ** 2).sum()) / (p - 1)
    each = (n - float((sizes**2).sum()) / n) / (p - 1)  # texts of a prompt, where they differ
    prompts = max(between - inside, 0.0) / each
    if not prompts:  # one variance, of texts, told from all of them
        inside = ((n - p) * inside + (p - 1) * between) / (n - 1)
    variance = prompts * (1 / p + 1 / others) + 2 * inside / n
    return student(p - 1 if prompts else n - 1) * variance**0.5


def student(freedom: int) -> float:
    """The 95% quantile of Student's distribution, within 1% from three degrees of freedom on
    (Abramowitz and Stegun 1964, 26.7.5)."""
    x, n = NormalDist().inv_cdf(SURE), freedom
    terms = (
        (x**3 + x) / 4,
        (5 * x**5 + 16 * x**3 + 3 * x) / 96,
        (3 * x**7 + 19 * x**5 + 17 * x**3 - 15 * x) / 384,
    )
    return x + sum(term / n ** (power + 1) for power, term in enumerate(terms))


def _apart(steered: "ArmTexts", baseline: "ArmTexts") -> np.ndarray:
    """What each text adds to the logarithm of the ratio beyond the mean: its share in a ratio of
    sums (Cochran 1977, "Sampling Techniques", section 6.3)."""
    shares: list[np.ndarray] = []
    for one in (steered, baseline):
        tokens = np.array([len(ids) for ids in one.token_ids], dtype=np.float64)
        total = max(tokens.sum(), 1.0)
        shares.append((one.nats - tokens * one.nats.sum() / total) * len(tokens) / total)
    return shares[0] - shares[1]
