"""Vectors and the SAEs of a workspace: made of features, taken apart, refined."""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mi_crow.errors import UserError
from mi_crow.language_model.config import ModelSpec
from mi_crow.mechanistic.sae.targets import target_layer
from mi_crow.mechanistic.vectors.config import VectorConfig
from mi_crow.mechanistic.vectors.in_features import (
    from_features,
    in_features,
    refined,
    refined_vector,
)
from mi_crow.mechanistic.vectors.stored import SteeringVector
from mi_crow.store.workspace import Workspace

if TYPE_CHECKING:
    from mi_crow.mechanistic.sae.base import SparseAutoencoder


def vector_of_features(
    workspace: Workspace, name: str, sae_id: str, features: Sequence[tuple[int, float]]
) -> SteeringVector:
    """The decoder rows of features with weights, where the SAE writes. Raises UserError."""
    sae = _opened(workspace, sae_id)
    made = {
        "method": "features",
        "model_id": sae.metadata.model_name,
        "revision": sae.metadata.revision,
        "tokenizer_hash": sae.metadata.tokenizer_hash,
        "sae": sae_id,
        "features": [[feature, weight] for feature, weight in features],
        "created": time.time(),
    }
    point = _layer_written(sae, sae_id)
    if sae.metadata.outlier_norm is not None and not sae.transcodes:
        made["layers"] = {point: {"outlier_norm": sae.metadata.outlier_norm}}
    return SteeringVector(name, {point: from_features(sae, features)}, made)


def decomposed(
    workspace: Workspace, vector: SteeringVector, sae_id: str, layer: str | None, count: int
) -> dict[str, Any]:
    """A vector in terms of an SAE's features, as JSON: `nearest`, `pursuit`, `explained`."""
    sae = _opened(workspace, sae_id)
    point = point_for(vector, layer, _layer_written(sae, sae_id))
    found = in_features(sae, vector.directions[point], count)
    return {
        "sae_id": sae_id,
        "layer": point,
        "nearest": [{"feature": feature, "cosine": cosine} for feature, cosine in found.nearest],
        "pursuit": [{"feature": feature, "coefficient": size} for feature, size in found.pursuit],
        "explained": found.explained,
    }


def point_for(vector: SteeringVector, layer: str | None, written: str) -> str:
    """Which of a vector's layers is meant: the one named, the only one, or the SAE's. Raises
    UserError."""
    points = list(vector.directions)
    if layer in points:
        return str(layer)
    if layer is None and len(points) == 1:
        return points[0]
    if layer is None and written in points:
        return written
    raise UserError(
        f"vector {vector.name!r} is for {', '.join(points)}", hint="name one with --layer"
    )


def refine_vector(
    workspace: Workspace,
    vector: SteeringVector,
    name: str,
    sae_id: str,
    keep: int,
    *,
    texts_for: tuple[str, ...] = (),
    against: tuple[str, ...] = (),
    run_id: str | None = None,
    device: str = "auto",
) -> SteeringVector:
    """The vector made again of the `keep` features that tell its texts apart best (see
    `in_features.refined`) at the SAE's layer, which must be one of its own; of other texts where
    they are given. At its other layers it stays as it is. Raises UserError."""
    from mi_crow.language_model import LanguageModel
    from mi_crow.mechanistic.sae.centring import set_centring
    from mi_crow.mechanistic.sae.fitting import check_width
    from mi_crow.mechanistic.sae.targets import point_read

    sae = _opened(workspace, sae_id)
    if sae.transcodes:
        raise UserError("a transcoder cannot refine a vector", hint="take an SAE")
    hint = f"it is for {', '.join(vector.directions)}: take an SAE of that layer"
    widths = {len(one) for one in vector.directions.values()}
    if sae.n_inputs not in widths:
        raise UserError(
            f"vector {vector.name!r} has width {min(widths)}, SAE {sae_id!r} {sae.n_inputs}",
            hint=hint,
        )
    layer = _layer_written(sae, sae_id)
    made = dict(vector.made)
    if texts_for:
        made |= {"for": list(texts_for), "against": list(against or ("others",))}
    if run_id is not None:
        made["run_id"] = run_id
    config = VectorConfig.of(made, (layer,))
    metadata = sae.metadata
    if not metadata.model_name:
        raise UserError(f"SAE {sae_id!r} does not say its model", hint="import it with --model")
    spec = ModelSpec(metadata.model_name, revision=metadata.revision, device=device)
    lm = LanguageModel.from_spec(spec)
    sae.to(lm.device)
    set_centring(lm, sae)
    point = point_read(lm, sae)
    width = lm.layers.width(point)
    check_width(f"SAE {sae_id!r}", sae.n_inputs, f"layer {point.name!r}", width)
    own = [one for one in vector.directions if lm.layers.resolve(one).same_tensor(point)]
    if not own:
        raise UserError(
            f"vector {vector.name!r} is for another layer than SAE {sae_id!r}, which reads "
            f"{point.point}",
            hint=hint,
        )
    config = replace(config, bos=metadata.bos(config.bos))
    result = refined(workspace, lm, sae, point, config, keep)
    new = refined_vector(replace(vector, made=made), name, sae_id, own[0], result)
    return replace(new, made={**new.made, "created": time.time()})


def _opened(workspace: Workspace, sae_id: str) -> "SparseAutoencoder":
    from mi_crow.mechanistic.sae.formats.load import load_sae

    return load_sae(workspace.sae_dir(sae_id), "cpu")


def _layer_written(sae: "SparseAutoencoder", sae_id: str) -> str:
    """The layer that an SAE's decoder writes. Raises UserError where it does not say it."""
    layer = target_layer(sae) if sae.transcodes else (sae.metadata.point or sae.metadata.layer)
    if not layer:
        raise UserError(f"SAE {sae_id!r} does not say its layer", hint="import it with --layer")
    return layer
