"""Leaving a workspace as it was when a command fails."""

from pathlib import Path

from mi_crow.store.workspace import Workspace


class Rollback:
    """Remembers which folders of a workspace exist, so that a failed command leaves none behind."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        root = workspace.root
        self._new_parents = [folder for folder in (root, *root.parents) if not folder.exists()]
        candidates = (workspace.jobs_dir, workspace.activations_dir, workspace.saes_dir)
        self._new = [folder for folder in candidates if not folder.exists()]
        self._existed = workspace.exists()

    def undo(self) -> None:
        """Removes folders that are new and empty; a workspace in use by others stays."""
        for folder in self._new:
            _remove_empty(folder)
        root = self._workspace.root
        if self._existed or not root.exists():
            return
        if any(entry.name != "workspace.json" for entry in root.iterdir()):
            return
        (root / "workspace.json").unlink(missing_ok=True)
        for folder in self._new_parents:
            _remove_empty(folder)


def _remove_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        return  # not there, or in use
