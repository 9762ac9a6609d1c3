"""What the app was doing, for its next start: a JSON file for each workspace of the user."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mi_crow.errors import NotFoundError
from mi_crow.store.atomic import write_json
from mi_crow.store.json_file import read_json
from mi_crow.store.json_object import JsonObject


@dataclass(frozen=True)
class SavedState:
    """Where somebody was. What is in `screens` only the screens themselves understand."""

    screen: str = ""
    sae_id: str | None = None
    theme: str = ""
    screens: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    theme_set: str = ""  # that of the settings then: whichever was changed last holds
    history: Mapping[str, Any] = field(default_factory=dict)  # of places, as `History` gives it
    drafts: Sequence[Any] = ()  # of forms, as `drafts_as_json` gives them; one may be damaged


class StateFile:
    """The file of one workspace."""

    def __init__(self, workspace: Path) -> None:
        import platformdirs

        self._workspace = str(workspace.resolve())
        name = hashlib.sha256(self._workspace.encode("utf-8", "surrogateescape")).hexdigest()[:16]
        self.path = Path(platformdirs.user_state_dir("mi-crow")) / "workspaces" / f"{name}.json"

    def read(self) -> SavedState:
        """What was saved; nothing when there is no file. Raises CorruptDataError and OSError."""
        try:
            data = JsonObject.of(read_json(self.path), str(self.path))
        except NotFoundError:
            return SavedState()
        screens = data.object("screens", {})
        return SavedState(
            data.text("screen", ""),
            data.text("sae", None),
            data.text("theme", ""),
            {name: screens.object(name).values for name in screens},
            data.text("theme_set", ""),
            data.object("history", {}).values,
            tuple(data.array("drafts", [])),
        )

    def write(self, state: SavedState) -> None:
        """Replaces what was saved, whole or not at all. Raises OSError."""
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_json(
            self.path,
            {
                "workspace": self._workspace,
                "screen": state.screen,
                "sae": state.sae_id,
                "theme": state.theme,
                "theme_set": state.theme_set,
                "screens": state.screens,
                "history": state.history,
                "drafts": list(state.drafts),
            },
        )
