"""What a row of the action table says."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Action:
    """One thing a key can do."""

    id: str  # scope.name: the binding's id and its name in a key map
    keys: str  # comma separated; empty: palette only
    action: str  # Textual action, e.g. "go('runs')"
    label: str  # two words for the footer
    help: str  # one line for help and palette
    footer: bool = True
    priority: bool = False  # before the focused widget, which then never sees the key

    @property
    def scope(self) -> str:
        return self.id.partition(".")[0]
