"""The direction from other texts to those that a feature is about, as a vector of the workspace."""

from mi_crow.mechanistic.steering.loading import LoadedSae
from mi_crow.mechanistic.steering.measure.texts import IndexedTexts
from mi_crow.mechanistic.steering.parts import point_written
from mi_crow.mechanistic.vectors.activations import activations_on, massive_norm, ordinary
from mi_crow.mechanistic.vectors.make import origin_of
from mi_crow.mechanistic.vectors.methods import difference_of_means
from mi_crow.mechanistic.vectors.stored import SteeringVector, save_vector
from mi_crow.store.workspace import Workspace

_TEXTS = 64  # of each side
_NAME = 50  # characters of the SAE's id


def topic_vector(
    workspace: Workspace, loaded: LoadedSae, texts: IndexedTexts, feature: int, seed: int = 0
) -> str:
    """Saves the difference of means of the texts in which `feature` is strong and of others, where
    the SAE writes; its name. No label is read. Raises UserError where the feature is in too few
    texts."""
    point = point_written(loaded.lm, loaded.sae, loaded.sae_id) or loaded.layer
    sides = [
        activations_on(loaded.lm, [point], [one.text for one in some if not one.heldout][:_TEXTS])[
            point
        ]
        for some in texts.about(feature, seed)
    ]
    median, limit = massive_norm(*sides)
    pooled = [one.pooled(ordinary(one, limit), "mean") for one in sides]
    direction = difference_of_means(*pooled)
    along = sides[0].rows @ direction / direction.square().sum().clamp_min(1e-12)
    figures = {
        "max": float(along[ordinary(sides[0], limit)].max()),
        "median_norm": median,
        "outlier_norm": limit,
    }
    name = f"{loaded.sae_id[:_NAME]}-{feature}-topic"
    made = {
        **origin_of(loaded.lm),
        "method": "mean",
        "of": {"sae": loaded.sae_id, "feature": feature},
        "texts_for": len(pooled[0]),
        "texts_against": len(pooled[1]),
        "layers": {point.point: figures},
    }
    save_vector(workspace, SteeringVector(name, {point.point: direction}, made), replace=True)
    return name
