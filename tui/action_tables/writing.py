"""Which actions write files of the workspace, and which only change its annotations."""

from typing import Final

# Jobs, and files of the workspace.
FILES: Final = frozenset(
    f"{scope}.{name}"
    for scope, names in {
        "runs": "new cancel resume again remove rename note capture train index explain"
        " explanations scores evaluate import library export demo",
        "features": "explain",
        "steer": "measure auto cancel",
        "control": "vector capture",
        "vectors": "new refine rename note import remove",
        "measurements": "new remove",
    }.items()
    for name in names.split()
)
# Names, and what else is saved beside them.
ANNOTATIONS: Final = frozenset(
    f"{scope}.{name}"
    for scope, names in {
        "app": "undo redo",
        "features": "tag tags note remove",
        "map": "tag",
        "concepts": "tag tags rename note confidence remove import",
        "conflicts": "merge",
        "inspect": "tag save",
        "causes": "save",
        "grid": "save",
        "differences": "tag save",
        "inspections": "rename remove",
        "steer": "save save_preset",
        "kept": "remove",
        "presets": "rename remove",
    }.items()
    for name in names.split()
)
