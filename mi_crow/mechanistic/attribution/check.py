"""Whether causes are causes: features are really ablated, and what happens is beside what was
predicted.

Faithfulness and completeness after Marks et al. 2024, "Sparse feature circuits" (2403.19647),
section 4, with features ablated to zero: faithfulness of a set C is (m(C) - m(0)) / (m(M) - m(0)),
where m(C) is the target while only the features of C act, m(0) while none does and m(M) the plain
model's; completeness is the faithfulness of all features but C, which is 0 for a complete set.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mi_crow.mechanistic.attribution.passes import edited_pass
from mi_crow.mechanistic.attribution.site import Reading, SaeSite
from mi_crow.mechanistic.attribution.target import Target

if TYPE_CHECKING:
    from mi_crow.language_model import LanguageModel
    from mi_crow.language_model.tokenize import Encoding

_LEAST = 1e-6  # a difference of targets that a share is not taken of, relative to the target


@dataclass(frozen=True)
class Check:
    """What ablating the strongest features of one SAE did."""

    measured: tuple[float, ...]  # effect of each feature: the target minus the target without it
    correlation: float | None  # Pearson, of predicted and measured
    rank_correlation: float | None  # Spearman
    predicted_sum: float
    together: float  # what all of them are worth when they are ablated at once
    without_features: float  # the target while no feature acts
    faithfulness: float | None
    completeness: float | None
    random_faithfulness: float | None  # of as many features, chosen at random among the active
    random_completeness: float | None

    def as_json(self) -> dict[str, Any]:
        """The figures, without the list of effects."""
        return {key: value for key, value in vars(self).items() if key != "measured"}


def check_causes(
    lm: "LanguageModel",
    encoding: "Encoding",
    reading: Reading,
    target: Target,
    target_site: SaeSite | None,
    causes: Sequence[tuple[int, float]],
    seed: int,
) -> Check:
    """Ablates each of `causes` (feature, predicted effect), all of them, all others, and the same
    for a random set: one batch, in parts where memory runs out."""
    features = [feature for feature, _ in causes]
    random = _random_features(reading, len(features), seed)
    edits = _edits(reading, features, random)

    def without(rows: Sequence[int]) -> Tensor:
        part = reading.at_points(edits[rows[0] : rows[-1] + 1])
        return edited_pass(lm, encoding, part, target, target_site, reading.held)

    values = in_parts(without, range(len(edits)))
    whole, each, sets = values[0], values[1 : 1 + len(features)], values[1 + len(features) :]
    none, without_set, only_set, without_random, only_random = sets

    def share(value: float) -> float | None:
        span = whole - none
        return (value - none) / span if abs(span) > _LEAST * max(abs(whole), 1.0) else None

    measured = tuple(whole - value for value in each)
    predicted = [effect for _, effect in causes]
    return Check(
        measured,
        correlation(predicted, measured),
        correlation(ranks(predicted), ranks(measured)),
        sum(predicted),
        whole - without_set,
        none,
        share(only_set),
        share(without_set),
        share(only_random),
        share(without_random),
    )


@torch.no_grad()
def _edits(reading: Reading, features: Sequence[int], random: Sequence[int]) -> Tensor:
    """What is added to y to take away nothing, each feature, all that fire, the features together,
    all but these, the random ones, all but these: [len(features) + 6, n, n_outputs].

    The plain text is in the same batch, because a batch of another size rounds differently.
    """
    latents = reading.plain
    size = latents.values.shape[0], reading.y.shape[-1]
    edits = torch.zeros(len(features) + 6, *size, device=latents.values.device)
    numbers = torch.tensor(list(features), device=latents.indices.device)
    number, token, place = (latents.indices == numbers[:, None, None]).nonzero(as_tuple=True)
    written = reading.written_by(features)[number] * latents.values[token, place, None]
    if isinstance(reading.units, Tensor):
        written *= reading.units[token]
    edits.index_put_((1 + number, token), -written, accumulate=True)
    everything = reading.features_part()
    parts = [reading.features_part(_among(latents.indices, one)) for one in (features, random)]
    sets = [everything, *(row for part in parts for row in (part, everything - part))]
    torch.stack(sets, out=edits[1 + len(features) :]).neg_()
    return edits


def in_parts(run: Callable[[Sequence[Any]], Tensor], items: Sequence[Any]) -> list[float]:
    """`run` on all items at once, or on half as many as often as memory runs out."""
    from mi_crow.causes import out_of_memory

    size = len(items)
    while True:
        try:
            parts = [run(items[start : start + size]) for start in range(0, len(items), size)]
            return torch.cat(parts).tolist()
        except RuntimeError as error:
            if size == 1 or not out_of_memory(error):
                raise
        size = (size + 1) // 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _among(indices: Tensor, features: Sequence[int]) -> Tensor:
    """Which places hold one of the features: bool, the shape of `indices`."""
    return torch.isin(indices, torch.tensor(list(features), device=indices.device))


def _random_features(reading: Reading, count: int, seed: int) -> list[int]:
    """`count` of the features that fire, chosen with a seed."""
    active = reading.firing().cpu()
    generator = torch.Generator().manual_seed(seed)
    return active[torch.randperm(len(active), generator=generator)[:count]].tolist()


def ranks(values: Sequence[float]) -> list[float]:
    """The rank of each value, equal ones sharing theirs."""
    order = sorted(range(len(values)), key=values.__getitem__)
    found = [0.0] * len(values)
    start = 0
    while start < len(order):
        end = start
        while end + 1 < len(order) and values[order[end + 1]] == values[order[start]]:
            end += 1
        for place in order[start : end + 1]:
            found[place] = (start + end) / 2
        start = end + 1
    return found


def correlation(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Pearson's; None for fewer than two values, or where all are equal."""
    if len(one) < 2:
        return None
    pair = torch.tensor([list(one), list(other)], dtype=torch.float64)
    pair = pair - pair.mean(1, keepdim=True)
    norms = pair.norm(dim=1)
    if bool((norms == 0).any()):
        return None
    return float((pair[0] @ pair[1]) / (norms[0] * norms[1]))
