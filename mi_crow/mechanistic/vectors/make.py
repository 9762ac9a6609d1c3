"""Making a vector from two sets of texts, and measuring it on texts that were held out."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mi_crow.datasets.splits import HELDOUT, split_of
from mi_crow.errors import UserError
from mi_crow.mechanistic.sae.evaluation.probes import auroc
from mi_crow.mechanistic.vectors.activations import (
    Report,
    TextActivations,
    activations_on,
    massive_norm,
    ordinary,
)
from mi_crow.mechanistic.vectors.config import VectorConfig
from mi_crow.mechanistic.vectors.methods import (
    difference_of_means,
    principal_direction,
    probe_direction,
)
from mi_crow.mechanistic.vectors.stored import SteeringVector
from mi_crow.mechanistic.vectors.texts import texts_of
from mi_crow.store.workspace import Workspace

if TYPE_CHECKING:
    from mi_crow.language_model import HookPoint, LanguageModel
    from mi_crow.mechanistic.vectors.parts import Parts

_FEWEST = {"mean": 1, "pca": 2, "probe": 2, "reft-r1": 2}  # texts of each set


@dataclass(frozen=True)
class TextSets:
    """The texts of both sides; the held-out ones measure what the others make."""

    positive: list[str]
    negative: list[str]
    positive_heldout: list[str]
    negative_heldout: list[str]

    @property
    def all(self) -> list[list[str]]:
        return [self.positive, self.negative, self.positive_heldout, self.negative_heldout]


def text_sets(workspace: Workspace, config: VectorConfig) -> TextSets:
    """The texts that `config` names. Where few are given, all make the vector and none is held out.

    Raises UserError, NotFoundError for texts that are not there, the same on both sides, or too
    few.
    """
    sides = [
        texts_of(workspace, words, config.run_id, config.limit, config.seed, not_those=others)
        for words, others in (
            (config.texts_for, config.opposite),
            (config.opposite, config.texts_for),
        )
    ]
    both = set(sides[0]) & set(sides[1])
    if both:
        raise UserError(f"{min(both)[:60]!r} is among the texts of both sides")
    split: list[list[str]] = []
    for texts in sides:
        kept = [text for text in texts if split_of(text) != HELDOUT]
        held = [text for text in texts if split_of(text) == HELDOUT]
        enough = len(kept) >= 4 * _FEWEST[config.method]
        split += [kept, held] if enough else [texts, []]
        if len(texts) < _FEWEST[config.method]:
            raise UserError(
                f"method {config.method} needs {_FEWEST[config.method]} texts on each side, not "
                f"{len(texts)}",
                hint="give more, or use --method mean",
            )
    return TextSets(split[0], split[2], split[1], split[3])


def make_vector(
    workspace: Workspace,
    lm: "LanguageModel",
    name: str,
    config: VectorConfig,
    report: Report | None = None,
    parts: "Parts | None" = None,
) -> SteeringVector:
    """A vector at the layers of `config` that leads from the texts `against` to those `for`.

    `report` hears of texts that were read, then of the steps of a training. What is among `parts`
    is not done again. Raises UserError, NotFoundError in one sentence for layers and texts that do
    not fit.
    """
    points = [lm.layers.resolve(layer) for layer in dict.fromkeys(config.layers)]
    sets = text_sets(workspace, config)
    sides = _read(lm, points, sets, config, report, parts)
    directions: dict[str, Tensor] = {}
    figures: dict[str, dict[str, Any]] = {}
    for point in points:
        found = [side[point] if side is not None else None for side in sides]
        directions[point.point], figures[point.point] = _at_point(
            lm, point, sets, found, config, report, parts
        )
    return SteeringVector(
        name, directions, {**origin_of(lm), **config.as_json(), **_counts(sets), "layers": figures}
    )


def _read(
    lm: "LanguageModel",
    points: "Sequence[HookPoint]",
    sets: TextSets,
    config: VectorConfig,
    report: Report | None,
    parts: "Parts | None",
) -> "list[dict[HookPoint, TextActivations] | None]":
    """The activations on each of the four sets of texts; None for an empty one."""
    total = sum(map(len, sets.all))
    found: list[dict[HookPoint, TextActivations] | None] = []
    before = 0
    for number, texts in enumerate(sets.all):

        def counted(done: int, _: int, before: int = before) -> None:
            if report is not None:
                report(before + done, total)

        side = parts.side(number, points) if parts is not None and texts else None
        if side is None and texts:
            side = activations_on(lm, points, texts, config.bos, counted)
            if parts is not None:
                parts.keep_side(number, side)
        found.append(side)
        before += len(texts)
    return found


def origin_of(lm: "LanguageModel") -> dict[str, Any]:
    """What a vector says about its model, and when it was made."""
    return {
        "model_id": lm.model_id,
        "revision": lm.revision,
        "tokenizer_hash": lm.tokenizer_hash,
        "model_type": str(getattr(lm.model.config, "model_type", "")),
        "created": time.time(),
    }


def _counts(sets: TextSets) -> dict[str, int]:
    names = ("texts_for", "texts_against", "heldout_for", "heldout_against")
    return {name: len(texts) for name, texts in zip(names, sets.all, strict=True)}


def _at_point(
    lm: "LanguageModel",
    point: "HookPoint",
    sets: TextSets,
    found: "Sequence[TextActivations | None]",
    config: VectorConfig,
    report: Report | None,
    parts: "Parts | None",
) -> tuple[Tensor, dict[str, Any]]:
    """The vector at one layer [d], and its figures."""
    positive, negative = found[0], found[1]
    assert positive is not None
    assert negative is not None
    median, limit = massive_norm(positive, negative)
    pooled = [
        None if one is None else one.pooled(ordinary(one, limit), config.pool) for one in found
    ]
    assert pooled[0] is not None
    assert pooled[1] is not None
    direction = _direction(lm, point, sets, pooled[0], pooled[1], config, report, parts)
    square = float(direction.square().sum())
    projections = (positive.rows @ direction / square)[ordinary(positive, limit)]
    figures: dict[str, Any] = {
        "max": float(projections.max()),
        "median_norm": median,
        "outlier_norm": limit,
        "auroc": _auroc(direction, pooled[0], pooled[1]),
    }
    if pooled[2] is not None and pooled[3] is not None:
        figures["auroc_heldout"] = _auroc(direction, pooled[2], pooled[3])
    return direction, figures


def _direction(
    lm: "LanguageModel",
    point: "HookPoint",
    sets: TextSets,
    positive: Tensor,
    negative: Tensor,
    config: VectorConfig,
    report: Report | None,
    parts: "Parts | None",
) -> Tensor:
    apart = difference_of_means(positive, negative)
    if not bool(apart.any()):
        raise UserError("the two sets of texts do not differ at all", hint="give other texts")
    if config.method == "pca":
        return principal_direction(positive, negative)
    if config.method == "probe":
        return probe_direction(positive, negative)
    if config.method == "mean":
        return apart
    from mi_crow.mechanistic.vectors.reft import trained_direction

    unit = trained_direction(
        lm,
        point,
        sets.positive,
        sets.negative,
        apart,
        steps=config.steps,
        seed=config.seed,
        bos=config.bos,
        report=report,
        parts=parts,
    )
    # As long as the texts are apart along it, like the other methods' vectors.
    return unit * (apart @ unit).abs().clamp_min(1e-6)


def _auroc(direction: Tensor, positive: Tensor, negative: Tensor) -> float:
    scores = torch.cat([positive, negative]) @ direction
    labels = torch.arange(len(scores)) < len(positive)
    return auroc(scores, labels)
