"""The vectors that a search made and has no use for in the end."""

import json
from collections.abc import Iterable, Set

from mi_crow.errors import NotFoundError
from mi_crow.mechanistic.concepts.annotations import Annotations
from mi_crow.mechanistic.steering.measure.results import Measurement, list_measurements
from mi_crow.mechanistic.vectors.stored import list_vectors, remove_vector
from mi_crow.store.workspace import Workspace


def vectors_before(workspace: Workspace, measurement: Measurement) -> frozenset[str]:
    """The names of the vectors that were there when the search began, however often it was stopped
    since."""
    held = measurement.part("vectors before")
    if held is None:
        held = [one.name for one in list_vectors(workspace)]
        measurement.keep("vectors before", held)
    return frozenset(held)


def remove_spare(workspace: Workspace, names: Set[str], used: Iterable[str] = ()) -> None:
    """Removes vectors of which neither `used` targets nor a preset or finished measurement of the
    workspace speaks."""
    if not names:
        return
    annotations = Annotations(workspace.annotations_path)
    try:
        presets = [preset.interventions for preset in annotations.presets()]
    finally:
        annotations.close()
    results = [one["result"] for one in list_measurements(workspace)]
    told = json.dumps([list(used), presets, results])
    for name in names:
        if f'"vector:{name}"' in told:
            continue
        try:
            remove_vector(workspace, name)
        except NotFoundError:
            continue  # somebody else did
