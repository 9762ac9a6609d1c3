"""What the indexes and the annotations of a workspace know about features: names, maxima, density.

A session keeps one of these, so that no index is opened twice. Torch-free.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mi_crow.errors import CorruptDataError, NotFoundError
from mi_crow.store.workspace import SaeSummary, Workspace

if TYPE_CHECKING:
    import numpy as np

    from mi_crow.mechanistic.features.queries import FeatureStore


_MOST_SAES = 8
_MOST_BYTES = 2 << 30  # of the SAEs that are read together


def of_one_model(
    own: SaeSummary, saes: Sequence[SaeSummary], *, one_a_layer: bool = False
) -> list[str]:
    """The SAEs of the model of `own`, itself first, as many as memory should hold together. With
    `one_a_layer` one over several layers stands alone."""
    chosen, total, layers = [own.sae_id], own.bytes, {own.layer}
    if one_a_layer:
        saes = [] if own.several else [one for one in saes if not one.several]
    for one in saes:
        fits = total + one.bytes <= _MOST_BYTES and len(chosen) < _MOST_SAES
        same = one.model_id == own.model_id and one.model_id and one.sae_id != own.sae_id
        if not same or not fits:
            continue
        if not one_a_layer or one.layer not in layers:
            chosen.append(one.sae_id)
            total, layers = total + one.bytes, {*layers, one.layer}
    return chosen


class KnownFeatures:
    """The features of the SAEs of one workspace, as far as they are known."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self._stores: dict[str, FeatureStore] = {}
        # SAE -> why names of its features are missing, as `names` last found.
        self.damaged: dict[str, str] = {}

    def store(self, sae_id: str) -> "FeatureStore | None":
        """The SAE's index with its concepts, as both are now; None without an index."""
        from mi_crow.mechanistic.features.queries import FeatureStore

        found = self._stores.get(sae_id)
        if found is None:
            path = self.workspace.annotations_path
            annotations = None
            if path.exists():
                from mi_crow.mechanistic.concepts.annotations import Annotations

                annotations = Annotations(path)
            try:
                found = FeatureStore.open(self.workspace, sae_id, annotations)
            except NotFoundError:
                return None
            self._stores[sae_id] = found
        elif found.changed_on_disk():
            found.reopen()
        found.refresh_concepts()
        return found

    def names(self, sae_id: str, features: Iterable[int]) -> dict[int, dict[str, Any]]:
        """What features are called: `concept`, the name that is `proposed`, its `label` on held-out
        texts, and the `auroc` of that label; every feature has an entry. A damaged index is as
        good as none, and stands in `damaged`."""
        wanted = list(dict.fromkeys(features))
        self.damaged.pop(sae_id, None)
        try:
            store = self.store(sae_id)
            rows = store.rows(wanted) if store is not None else []
        except CorruptDataError as error:
            self.damaged[sae_id] = f"names of features are missing: {error.sentence}"
            store, rows = None, []
        if store is None:
            given = concept_names(self.workspace, sae_id)
            nothing = {"proposed": None, "label": None, "auroc": None}
            return {one: {"concept": given.get(one), **nothing} for one in wanted}
        if store.connection.proposals.damaged:
            self.damaged[sae_id] = (
                f"proposed names are missing: those of {sae_id!r} are damaged; mi-crow explain "
                f"--sae {sae_id} makes them again"
            )
        return {
            row.feature: {
                "concept": row.concept,
                "proposed": row.proposed,
                "label": row.top_label,
                "auroc": row.top_auroc if row.top_label else None,
            }
            for row in rows
        }

    def figures(self, sae_id: str) -> "tuple[np.ndarray, np.ndarray] | None":
        """Density and greatest activation of every feature, [n] each; None without an index."""
        store = self.store(sae_id)
        return store.figures() if store is not None else None


def shown_name(known: Mapping[str, Any]) -> str:
    """A feature's name, else the one proposed for it, else its label with the score; '' without
    any of them."""
    if name := known.get("concept") or known.get("proposed"):
        return str(name)
    if known.get("label"):
        from mi_crow.mechanistic.features.records import auroc_text

        return f"{known['label']} {auroc_text(known['auroc'] or 0)}"
    return ""


def concept_names(workspace: Workspace, sae_id: str) -> dict[int, str]:
    """The most confident name of each named feature of an SAE."""
    if not workspace.annotations_path.exists():
        return {}
    from mi_crow.mechanistic.concepts.annotations import Annotations

    annotations = Annotations(workspace.annotations_path)
    try:
        concepts = sorted(annotations.concepts(sae_id), key=lambda one: one.confidence)
        return {concept.feature: concept.name for concept in concepts}
    finally:
        annotations.close()
