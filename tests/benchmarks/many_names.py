"""What people keep in a workspace: 20,000 names, and lists of saved texts."""

import time

from mi_crow.mechanistic.concepts.annotations import Annotations
from mi_crow.mechanistic.concepts.annotations_rows import concept_from
from mi_crow.store.workspace import Workspace
from tests.benchmarks.index_queries import SAE

NAMED = 20_000
SAVED = 100


def name_many(workspace: Workspace, features: int) -> None:
    """Names NAMED features all over the SAE, unless that many have a name."""
    annotations = Annotations(workspace.annotations_path)
    known = {one.feature for one in annotations.concepts(SAE)}
    if len(known) < NAMED:
        now, step = time.time(), max(features // NAMED, 1)
        new = [feature for feature in range(0, step * NAMED, step) if feature not in known]
        annotations.apply(
            [
                (None, concept_from(SAE, one, f"concept {one}", tags=("many",), now=now))
                for one in new
            ]
        )
    annotations.close()


def save_many(workspace: Workspace) -> None:
    """Saves SAVED generations and inspections, unless there are some."""
    annotations = Annotations(workspace.annotations_path)
    if not annotations.generations(1):
        for number in range(SAVED):
            told = f"The harbour of town {number} was"
            annotations.save_generation(
                model_id="synthetic", prompt=told, baseline=f"{told} old", steered=f"{told} blue"
            )
            annotations.save_inspection(f"harbour-{number}", "inspect", told, {})
    annotations.close()
