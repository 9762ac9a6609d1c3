"""The direction from other texts to those on a topic, as a vector of the workspace."""

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from torch import Tensor

from mi_crow.errors import UserError
from mi_crow.mechanistic.sae.cross_layer.sae import CrossLayerSae
from mi_crow.mechanistic.sae.cross_layer.shared import SharedCrosscoder
from mi_crow.mechanistic.steering.loading import LoadedSae
from mi_crow.mechanistic.steering.measure.aims.stored_texts import stored_activations
from mi_crow.mechanistic.steering.measure.texts import Document, Sides
from mi_crow.mechanistic.steering.parts import point_written
from mi_crow.mechanistic.vectors.activations import (
    TextActivations,
    activations_on,
    massive_norm,
    ordinary,
)
from mi_crow.mechanistic.vectors.make import origin_of
from mi_crow.mechanistic.vectors.methods import difference_of_means
from mi_crow.mechanistic.vectors.stored import SteeringVector, list_vectors, save_vector
from mi_crow.store.workspace import Workspace

if TYPE_CHECKING:
    from mi_crow.language_model import HookPoint

_TEXTS = 64  # of each side
_NAME = 36  # characters of the SAE's id
_DEPTHS = (0.3, 0.5, 0.7)  # of the blocks


def topic_vector(
    workspace: Workspace,
    loaded: LoadedSae,
    texts: Sides,
    feature: int,
    label: str | None = None,
    *,
    spread: bool = False,
) -> str:
    """Saves the difference of means of the training texts on a topic and of others, where the SAE
    writes, or with `spread` at three depths of the model; its name.

    The topic is that of `feature`, or `label`. A vector that was made from the same texts is not
    made again. Raises UserError where there are no texts, or too few blocks to spread over.
    """
    points = _spread(loaded) if spread else [point_of(loaded, feature)]
    chosen = [[one for one in some if not one.heldout][:_TEXTS] for some in texts]
    told = [[one.text for one in some] for some in chosen]
    of = {
        "sae": loaded.sae_id,
        "weights": loaded.weights_hash(),
        "feature": feature,
        "label": label,
        "texts": sha256(json.dumps(told).encode()).hexdigest(),
    }
    # A feature may be the best of several labels.
    topic = "topic" if label is None else of["texts"][:8]
    name = f"{loaded.sae_id[:_NAME]}-{feature}-{topic}{'-layers' if spread else ''}"
    held = {one.name: one.made for one in list_vectors(workspace)}
    if held.get(name, {}).get("of") == of:
        return name
    sides = [_read(workspace, loaded, points, some) for some in chosen]
    saved_direction(workspace, loaded, name, points, sides, of, (len(told[0]), len(told[1])))
    return name


def saved_direction(
    workspace: Workspace,
    loaded: LoadedSae,
    name: str,
    points: "Sequence[HookPoint]",
    sides: "Sequence[Mapping[HookPoint, TextActivations]]",
    of: Mapping[str, Any],
    counts: tuple[int, int],
) -> None:
    """Saves the difference of means of two sides at each of `points`, with what it was made of."""
    directions: dict[str, Tensor] = {}
    figures: dict[str, dict[str, float]] = {}
    for point in points:
        found = _at(*(side[point] for side in sides))
        directions[point.point], figures[point.point] = found
    made = {**origin_of(loaded.lm), "method": "mean", "of": dict(of), "layers": figures}
    told = {"texts_for": counts[0], "texts_against": counts[1]}
    save_vector(workspace, SteeringVector(name, directions, {**made, **told}), replace=True)


def _read(
    workspace: Workspace,
    loaded: LoadedSae,
    points: "Sequence[HookPoint]",
    documents: Sequence[Document],
) -> "dict[HookPoint, TextActivations]":
    """The activations on the documents: stored ones, or those of a pass of the model."""
    found: dict[HookPoint, TextActivations] = {}
    for point in points:  # a run may hold several layers
        held = stored_activations(workspace, loaded.sae_id, point, documents)
        if held is None:
            break
        found[point] = held
    if len(found) == len(points):
        return found
    return activations_on(loaded.lm, points, [one.text for one in documents])


def _at(about: TextActivations, others: TextActivations) -> tuple[Tensor, dict[str, float]]:
    """The direction at one layer [d], and its figures."""
    median, limit = massive_norm(about, others)
    direction = difference_of_means(
        *(one.pooled(ordinary(one, limit), "mean") for one in (about, others))
    )
    along = about.rows @ direction / direction.square().sum().clamp_min(1e-12)
    greatest = float(along[ordinary(about, limit)].max())
    return direction, {"max": greatest, "median_norm": median, "outlier_norm": limit}


def point_of(loaded: LoadedSae, feature: int) -> "HookPoint":
    """Where the SAE writes; of one over several layers where the feature does: a crosscoder's most,
    a transcoder's at the layer that it is of."""
    sae, layers = loaded.sae, loaded.lm.layers
    if isinstance(sae, SharedCrosscoder):
        return loaded.points[sae.strongest[feature]]
    if isinstance(sae, CrossLayerSae):
        place = sae.layer_numbers.index(sae.layer_of(feature)[0])
        return layers.resolve(sae.target_layers[place])
    return point_written(loaded.lm, loaded.sae, loaded.sae_id) or loaded.layer


def _spread(loaded: LoadedSae) -> "list[HookPoint]":
    layers = loaded.lm.layers
    count = len(layers.blocks())
    numbers = sorted({round(share * count) for share in _DEPTHS})
    if len(numbers) < len(_DEPTHS) or numbers[-1] >= count:
        raise UserError(f"{count} blocks are too few to spread a vector over")
    return [layers.resolve(number) for number in numbers]
