"""Vectors as features of an SAE: taken apart, put together, refined."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mi_crow.errors import UserError
from mi_crow.mechanistic.vectors.activations import TextActivations, activations_on, massive_norm
from mi_crow.mechanistic.vectors.activations import ordinary as ordinary_rows
from mi_crow.mechanistic.vectors.config import VectorConfig
from mi_crow.mechanistic.vectors.make import text_sets
from mi_crow.mechanistic.vectors.stored import SteeringVector
from mi_crow.store.workspace import Workspace

if TYPE_CHECKING:
    from mi_crow.language_model import HookPoint, LanguageModel
    from mi_crow.mechanistic.sae.base import SparseAutoencoder


_ROWS = 2048  # tokens that are encoded at once


@dataclass(frozen=True)
class InFeatures:
    """A direction in terms of decoder rows."""

    nearest: list[tuple[int, float]]  # features by decoder cosine, greatest size first
    pursuit: list[tuple[int, float]]  # features with coefficients, in the order they were taken
    explained: float  # share of the vector's squared length that the pursuit has


@torch.no_grad()
def in_features(sae: "SparseAutoencoder", vector: Tensor, count: int) -> InFeatures:
    """The `count` features whose decoder rows are nearest to `vector` [d], and its orthogonal
    matching pursuit (Pati et al. 1993) with `count` of them: the row that is nearest to what is
    left is added, and the coefficients of all are fitted anew.

    Raises UserError when the vector has another width.
    """
    rows = _rows_for(sae, vector)
    norms = torch.linalg.vector_norm(rows, dim=1).clamp_min(1e-12)
    length = torch.linalg.vector_norm(vector)
    cosines = rows @ vector / (norms * length)
    order = cosines.abs().topk(min(count, len(rows))).indices.tolist()
    taken: list[int] = []
    rest, solution = vector, vector.new_zeros(0)
    for _ in range(min(count, len(rows))):
        score = (rows @ rest / norms).abs()
        score[taken] = -1.0
        best = int(score.argmax())
        if float(score[best]) <= 1e-6 * float(length):
            break
        taken.append(best)
        basis = rows[taken].t()
        solution = torch.linalg.lstsq(basis, vector[:, None], driver="gelsd").solution[:, 0]
        rest = vector - basis @ solution
    left = float((torch.linalg.vector_norm(rest) / length) ** 2)
    return InFeatures(
        [(feature, float(cosines[feature])) for feature in order],
        list(zip(taken, solution.tolist(), strict=True)),
        max(1 - left, 0.0),
    )


def _rows_for(sae: "SparseAutoencoder", vector: Tensor) -> Tensor:
    rows = sae.decoder_rows.detach().float().cpu()
    if rows.shape[1] != len(vector):
        raise UserError(
            f"the vector has width {len(vector)}, the SAE writes {rows.shape[1]}",
            hint="take an SAE of the layer that the vector is for",
        )
    return rows


@torch.no_grad()
def from_features(sae: "SparseAutoencoder", features: Sequence[tuple[int, float]]) -> Tensor:
    """The sum of decoder rows with weights: [d]. Raises UserError for a feature out of range."""
    for feature, _ in features:
        if feature >= sae.n_latents:
            raise UserError(
                f"feature {feature} is not in the SAE", hint=f"it has 0 to {sae.n_latents - 1}"
            )
    rows = sae.decoder_rows.detach().float().cpu()
    numbers = [feature for feature, _ in features]
    weights = torch.tensor([weight for _, weight in features])
    return weights @ rows[numbers]


@dataclass(frozen=True)
class Refined:
    """A vector of the most discriminative features, and how they differ between the sets."""

    vector: Tensor  # [d]
    features: list[dict[str, Any]]  # feature, difference of its mean activation, effect size


@torch.no_grad()
def refined(
    workspace: Workspace,
    lm: "LanguageModel",
    sae: "SparseAutoencoder",
    point: "HookPoint",
    config: VectorConfig,
    keep: int,
) -> Refined:
    """The difference of two sets of texts in the SAE's latents, kept to the `keep` latents that
    tell them apart best and decoded: sum_i (mean+ z_i - mean- z_i) W_dec[i] (SDCV, Zhao et al.
    2025, 2505.15038). How well one tells them apart is the difference of its means over texts in
    units of the pooled standard deviation.

    Raises what `text_sets` does.
    """
    sets = text_sets(workspace, config)
    sides = [
        activations_on(lm, [point], texts, config.bos)[point]
        for texts in (sets.positive, sets.negative)
    ]
    _, limit = massive_norm(*sides)
    pooled = [pooled_latents(sae, side, limit, config.pool) for side in sides]
    means = [one.mean(dim=0) for one in pooled]
    variances = [one.var(dim=0, unbiased=False) for one in pooled]
    apart = means[0] - means[1]
    spread = ((variances[0] + variances[1]) / 2).sqrt()
    # A latent that never varies within the sets still counts, by a small part of the typical one.
    effect = apart / (spread + 0.1 * spread[spread > 0].mean().nan_to_num(1.0)).clamp_min(1e-12)
    best = effect.abs().topk(min(keep, int((apart != 0).sum()))).indices.tolist()
    if not best:
        raise UserError("no feature differs between the two sets of texts", hint="name others")
    features = [
        {"feature": i, "difference": float(apart[i]), "effect": float(effect[i])} for i in best
    ]
    return Refined(from_features(sae, [(i, float(apart[i])) for i in best]), features)


def pooled_latents(
    sae: "SparseAutoencoder", side: TextActivations, limit: float, pool: str
) -> Tensor:
    """One row of latents a text: [n, M]; texts without an ordinary token are left out."""
    keep = ordinary_rows(side, limit)
    text = torch.bucketize(torch.arange(len(side.rows)), side.ends, right=True)[keep]
    rows = side.rows[keep]
    if not len(rows):
        raise UserError("the texts have no ordinary tokens", hint="give longer ones")
    if pool == "last":
        last = torch.cat([text[1:] != text[:-1], torch.ones(1, dtype=torch.bool)])
        rows, text = rows[last], text[last]
    _, text, counts = text.unique_consecutive(return_inverse=True, return_counts=True)
    pooled = torch.zeros(len(counts), sae.n_latents)
    for start in range(0, len(rows), _ROWS):
        z = sae.encode(rows[start : start + _ROWS].to(sae.device)).float().cpu()
        pooled.index_add_(0, text[start : start + _ROWS], z)
    return pooled / counts[:, None]


def refined_vector(
    base: SteeringVector, name: str, sae_id: str, point: str, result: Refined
) -> SteeringVector:
    """`base` with what `refined` gives at hook point `point`; it says where that comes from."""
    figures = dict(base.made.get("layers") or {})
    known = ("median_norm", "outlier_norm")  # others are of the direction before
    figures[point] = {key: value for key in known if (value := base.figure(point, key)) is not None}
    method = str(base.made.get("method", "")).removesuffix("refined").strip()
    made = {
        **base.made,
        "method": f"{method} refined".strip(),
        "refined": {"of": base.name, "sae": sae_id, "layer": point, "features": result.features},
        "layers": figures,
    }
    return SteeringVector(name, {**base.directions, point: result.vector}, made)
