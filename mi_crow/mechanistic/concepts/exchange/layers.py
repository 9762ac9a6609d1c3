"""The layers of features of SAEs over several, as files of concepts say them. Torch-free."""

from collections.abc import Iterable, Sequence

from mi_crow.errors import MiCrowError
from mi_crow.mechanistic.concepts.annotations_rows import Concept
from mi_crow.store.workspace import Workspace, read_sae_summary

LAYER = "layer"  # the column


def layers_of(workspace: Workspace, sae_id: str, features: Iterable[int]) -> dict[int, str]:
    """The layers of features of an SAE over several, as far as it has an index that says them."""
    from mi_crow.mechanistic.features.queries import FeatureStore

    try:
        if not read_sae_summary(workspace.sae_dir(sae_id)).layers:
            return {}
        store = FeatureStore.open(workspace, sae_id)
    except MiCrowError:  # an SAE that is gone leaves its names, and these need no index
        return {}
    known = [one for one in features if one < store.meta().n_features]
    with store.connection.fitting():
        found = store.connection.layers.texts(known)
    return {one: layer for one, layer in zip(known, found, strict=True) if layer}


def layers_of_concepts(
    workspace: Workspace, concepts: Sequence[Concept]
) -> dict[tuple[str, int], str]:
    """The layers of the features that concepts are of, where these are known: (SAE, feature) ->
    layer."""
    of: dict[str, dict[int, None]] = {}
    for one in concepts:
        of.setdefault(one.sae_id, {})[one.feature] = None
    return {
        (sae_id, feature): layer
        for sae_id, features in of.items()
        for feature, layer in layers_of(workspace, sae_id, features).items()
    }
