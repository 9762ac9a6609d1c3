"""The session's operations on vectors of the workspace: taken apart, refined, exchanged with other
tools, and the texts along them. No model has to be loaded."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mi_crow.store.workspace import Workspace

if TYPE_CHECKING:
    from mi_crow.mechanistic.vectors.top_texts import TopText

_AROUND = 60  # characters of a text on either side of its strongest token


def look_into(
    workspace: Workspace,
    name: str,
    sae_id: str | None = None,
    run_id: str | None = None,
    count: int = 8,
) -> dict[str, Any]:
    """A vector in terms of an SAE's features (see `vectors.from_sae.decomposed`), under `features`,
    and the texts of a run that are most along it, under `texts`; null where none is named. What
    does not fit is said in one sentence under `features_why` and `texts_why`.

    Raises UserError, NotFoundError for the vector itself.
    """
    from mi_crow.errors import MiCrowError
    from mi_crow.mechanistic.vectors.from_sae import decomposed
    from mi_crow.mechanistic.vectors.stored import load_vector
    from mi_crow.mechanistic.vectors.top_texts import top_texts

    vector = load_vector(workspace, name)
    layer = next(iter(vector.directions))
    found: dict[str, Any] = {"name": name, "features": None, "texts": None}
    if sae_id is not None:
        try:
            features = decomposed(workspace, vector, sae_id, None, count)
            found["features"] = features
            layer = features["layer"]
        except MiCrowError as error:
            found["features_why"] = error.sentence
    if run_id is not None:
        try:
            along = top_texts(workspace, vector, run_id, layer, count)
            found["texts"] = {
                "run_id": run_id,
                "layer": layer,
                "mean": along.mean,
                "std": along.std,
                "top": [_short(one) for one in along.top],
            }
        except MiCrowError as error:
            found["texts_why"] = error.sentence
    return found


def imported(
    workspace: Workspace,
    path: str,
    name: str,
    layer: str | None = None,
    model_id: str | None = None,
) -> dict[str, Any]:
    """See `vectors.exchange.import_vector`; the new vector is in the workspace."""
    from mi_crow.mechanistic.vectors.exchange import import_vector
    from mi_crow.mechanistic.vectors.stored import new_path, save_vector

    new_path(workspace, name)  # a name that is taken is said before the file is read
    save_vector(workspace, import_vector(Path(path), name, layer, model_id))
    return {"name": name}


def exported(workspace: Workspace, name: str, path: str) -> dict[str, Any]:
    """See `vectors.exchange.export_vector`; replaces what is there."""
    from mi_crow.mechanistic.vectors.exchange import export_vector
    from mi_crow.mechanistic.vectors.stored import load_vector

    export_vector(load_vector(workspace, name), Path(path))
    return {"path": path}


def refined(
    workspace: Workspace, name: str, new: str, sae_id: str, keep: int, device: str = "auto"
) -> dict[str, Any]:
    """See `vectors.from_sae.refine_vector`; the new vector is in the workspace."""
    from mi_crow.mechanistic.vectors.from_sae import refine_vector
    from mi_crow.mechanistic.vectors.stored import load_vector, new_path, save_vector

    new_path(workspace, new)
    vector = load_vector(workspace, name)
    save_vector(workspace, refine_vector(workspace, vector, new, sae_id, keep, device=device))
    return {"name": new}


OPERATIONS: dict[str, Callable[..., dict[str, Any]]] = {
    "look_into": look_into,
    "import_vector": imported,
    "export_vector": exported,
    "refine_vector": refined,
}


def _short(one: "TopText") -> dict[str, Any]:
    """A text from a little before its strongest token on."""
    at = len(one.text) * one.position // max(len(one.token_ids), 1)
    start = max(at - _AROUND, 0)
    return {
        "document": one.document,
        "label": one.label,
        "projection": one.projection,
        "text": one.text[start : at + _AROUND],
        "cut": start > 0,
    }
