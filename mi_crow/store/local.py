"""The library's handle on a workspace folder."""

import os
from pathlib import Path

from mi_crow.store.runs.manifest import RunManifest
from mi_crow.store.workspace import Workspace


class LocalStore:
    """A workspace folder for the library: activations and SAEs go there.

    Raises UserError when `base_path` cannot be a workspace.
    """

    def __init__(self, base_path: str | os.PathLike[str] = "mi-crow-workspace") -> None:
        self.workspace: Workspace = Workspace.open(base_path)

    @property
    def base_path(self) -> Path:
        return self.workspace.root

    def list_runs(self) -> list[str]:
        """Ids of the activation runs, oldest first."""
        return [run.run_id for run in self.workspace.list_runs()]

    def get_run_metadata(self, run_id: str) -> RunManifest:
        """What a run holds. Raises NotFoundError."""
        return RunManifest.load(self.workspace.run_dir(run_id))
