"""Two sets of texts as people name them, and the features that tell them apart."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mi_crow.mechanistic.explain.contrast import Report, contrast
from mi_crow.mechanistic.vectors.texts import texts_of
from mi_crow.store.workspace import Workspace

if TYPE_CHECKING:
    from mi_crow.mechanistic.steering.known import KnownFeatures
    from mi_crow.mechanistic.steering.loading import LoadedSae

MOST_TEXTS = 200  # of a set, where nothing else is asked for


def sets_of(
    workspace: Workspace,
    texts: Sequence[str],
    against: Sequence[str],
    run_id: str | None,
    most: int = MOST_TEXTS,
    seed: int = 0,
) -> tuple[list[str], list[str]]:
    """Both sets, at most `most` texts of each, drawn with `seed` (see `texts_of`). Raises
    UserError, NotFoundError."""
    return (
        texts_of(workspace, texts, run_id, most, seed, not_those=against),
        texts_of(workspace, against, run_id, most, seed, not_those=texts),
    )


def contrast_sets(
    known: "KnownFeatures",
    loaded: "LoadedSae",
    texts: Sequence[str],
    against: Sequence[str],
    *,
    top: int = 20,
    bos: str = "auto",
    seed: int = 0,
    report: Report | None = None,
) -> dict[str, Any]:
    """See `contrast.contrast`; each feature has its `name`, or the one proposed for it, and its
    `layer` where the SAE is over several."""
    from mi_crow.mechanistic.steering.inspection import with_layers

    found = contrast(loaded, texts, against, top=top, bos=bos, seed=seed, report=report)
    names = meanings(known, loaded.sae_id, [one.feature for one in found.features])
    plain = found.as_json()
    rows = [{**row, "name": names.get(row["feature"])} for row in plain["features"]]
    rows = with_layers(loaded.sae, rows)
    return {**plain, "sae_id": loaded.sae_id, "model_id": loaded.lm.model_id, "features": rows}


def meanings(known: "KnownFeatures", sae_id: str, features: Sequence[int]) -> dict[int, str]:
    """The name, the proposed name or the label of features, where there is an index."""
    store = known.store(sae_id)
    if store is None:
        return {}
    return {row.feature: row.meaning for row in store.rows(features) if row.meaning}
