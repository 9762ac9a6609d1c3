"""The way through the app: the screens and features that were open, to go back to; pure."""

from dataclasses import dataclass

_MOST = 100


@dataclass(frozen=True)
class Visited:
    """A screen, and on Features the feature that was open."""

    screen: str
    feature: int | None = None


class History:
    """Visiteds behind and ahead of the one that is open. A new way forgets those ahead."""

    def __init__(self) -> None:
        self._behind: list[Visited] = []
        self._ahead: list[Visited] = []

    def leave(self, here: Visited) -> None:
        """Remembers `here`, from which something else is opened."""
        self._ahead.clear()
        if self._behind[-1:] != [here]:
            self._behind = [*self._behind, here][-_MOST:]

    def back(self, here: Visited) -> Visited | None:
        """The place before `here`; None at the beginning."""
        return self._move(here, self._behind, self._ahead)

    def forward(self, here: Visited) -> Visited | None:
        """The place from which `back` led to `here`; None at the end."""
        return self._move(here, self._ahead, self._behind)

    @staticmethod
    def _move(here: Visited, source: list[Visited], other: list[Visited]) -> Visited | None:
        while source:
            place = source.pop()
            if place != here:
                other.append(here)
                return place
        return None
