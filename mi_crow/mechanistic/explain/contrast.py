"""Which features tell two sets of texts apart, found on one half of each and measured on the other.

A feature is scored by the AUROC of its greatest activation on a text, for the first set against the
second: 1 where it is always stronger on the first, 0 where on the second. The effect size is the
difference of the means in units of the pooled standard deviation (Cohen 1988, equation 2.5.1).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mi_crow.errors import UserError
from mi_crow.mechanistic.sae.evaluation.pooled_auroc import label_auroc
from mi_crow.mechanistic.vectors.activations import activations_on, massive_norm, ordinary
from mi_crow.mechanistic.vectors.texts import FEWEST_OF_SET
from mi_crow.store.json_object import JsonRecord

if TYPE_CHECKING:
    from mi_crow.mechanistic.steering.loading import LoadedSae

_MOST_VALUES = 1 << 28  # texts x latents held at once: 1 GiB

Report = Callable[[int, int], None]  # done, total


@dataclass(frozen=True)
class Telling:
    """One feature that tells the sets apart."""

    feature: int
    auroc: float  # on the texts that it was not chosen by
    auroc_chosen: float  # on those that it was chosen by
    effect: float  # on the texts that it was not chosen by; negative: stronger on the second set
    mean_for: float  # its greatest activation on a text, on average over the first set
    mean_against: float


@dataclass(frozen=True)
class Contrast(JsonRecord):
    """The features that tell two sets of texts apart, the most telling first."""

    features: tuple[Telling, ...]
    texts_for: int
    texts_against: int
    chance: float  # |AUROC - 1/2| + 1/2 of features chosen in this way for shuffled sets


def contrast(
    loaded: "LoadedSae",
    texts_for: Sequence[str],
    texts_against: Sequence[str],
    *,
    top: int = 20,
    bos: str = "auto",
    seed: int = 0,
    report: Report | None = None,
) -> Contrast:
    """The `top` features of an SAE that tell the texts apart.

    Both sets are parted in halves by `seed`. Outlier tokens are left out. Raises UserError for sets
    that are too small, that share a text, or that need more memory than is taken.
    """
    _check(texts_for, texts_against, loaded.sae.n_latents)
    texts = [*texts_for, *texts_against]
    bos, sae = loaded.sae.metadata.bos(bos), loaded.sae
    layers = [*activations_on(loaded.lm, loaded.points, texts, bos, report).values()]
    if (other := loaded.other) is not None:
        layers = other.in_order(
            layers, [*activations_on(other.lm, other.points, texts, bos).values()]
        )
    pooled = torch.zeros(len(texts), loaded.sae.n_latents)
    limits = [sae.metadata.outlier_norm or massive_norm(one)[1] for one in layers]
    keep = torch.stack([ordinary(*one) for one in zip(layers, limits, strict=True)]).all(dim=0)
    start = 0
    for text, end in zip(layers[0].model_texts, layers[0].ends.tolist(), strict=True):
        rows = torch.cat([one.rows[start:end][keep[start:end]] for one in layers], dim=1)
        if len(rows):
            pooled[text] = sae.encode(rows.to(sae.device)).float().amax(0).cpu()
        start = end
    first = torch.arange(len(texts)) < len(texts_for)
    generator = torch.Generator().manual_seed(seed)
    chosen_by = _halves(first, generator)
    # Sets of the same sizes drawn from both: what choosing among so many features gives by itself.
    shuffled = first[torch.randperm(len(first), generator=generator)]
    by_chance = _telling(pooled, shuffled, _halves(shuffled, generator), top)
    luck = [max(one.auroc, 1 - one.auroc) for one in by_chance]
    return Contrast(
        tuple(_telling(pooled, first, chosen_by, top)),
        len(texts_for),
        len(texts_against),
        sum(luck) / len(luck) if luck else 0.5,
    )


def _check(texts_for: Sequence[str], texts_against: Sequence[str], latents: int) -> None:
    for which, texts in (("first", texts_for), ("second", texts_against)):
        if len(texts) < FEWEST_OF_SET:
            few = f"{len(texts)} text{'' if len(texts) == 1 else 's'}"
            raise UserError(
                f"the {which} set has {few}, too few to choose features by one half and measure "
                "them on the other",
                hint=f"give {FEWEST_OF_SET} or more; in a .txt file empty lines part them, or "
                "each line is one",
            )
    both = set(texts_for) & set(texts_against)
    if both:
        raise UserError(f"{min(both)[:60]!r} is among the texts of both sides")
    total = len(texts_for) + len(texts_against)
    if total * latents > _MOST_VALUES:
        raise UserError(
            f"{total:,} texts are too many for {latents:,} features",
            hint=f"--texts {_MOST_VALUES // latents // 2} on each side fit",
        )


def _halves(first: Tensor, generator: torch.Generator) -> Tensor:
    """A half of each set, drawn: bool [texts]."""
    chosen = torch.zeros(len(first), dtype=torch.bool)
    for side in (first, ~first):
        own = side.nonzero()[:, 0]
        chosen[own[torch.randperm(len(own), generator=generator)[: len(own) // 2]]] = True
    return chosen


def _telling(pooled: Tensor, first: Tensor, chosen_by: Tensor, top: int) -> list[Telling]:
    label = (~first).long()
    on_chosen = label_auroc(pooled, label, 2, chosen_by)[0]
    fires = (pooled > 0).any(dim=0)
    # Many features tell clearly different sets apart without a fault: the larger effect goes first.
    size = _effect(pooled[chosen_by & first], pooled[chosen_by & ~first]).abs()
    telling = (on_chosen - 0.5).abs() + 1e-3 * (size / (1 + size))
    best = torch.where(fires, telling, -1.0).topk(min(top, int(fires.sum()))).indices
    here, there = (pooled[:, best][~chosen_by & side] for side in (first, ~first))
    on_held = label_auroc(pooled[:, best], label, 2, ~chosen_by)[0]
    means = here.mean(0), there.mean(0)
    columns = (best, on_held, on_chosen[best], _effect(here, there), *means)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return [Telling(*row) for row in rows]


def _effect(here: Tensor, there: Tensor) -> Tensor:
    """Cohen's d of each column, 0 where nothing varies."""
    n, m = len(here), len(there)
    spread = ((n - 1) * here.var(0) + (m - 1) * there.var(0)) / max(n + m - 2, 1)
    effect = (here.mean(0) - there.mean(0)) / spread.sqrt().clamp_min(1e-12)
    return torch.where(spread > 0, effect, 0.0)
