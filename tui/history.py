"""The way through the app: the screens and features that were open, to go back to; pure."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

from mi_crow.errors import CorruptDataError
from mi_crow.store.json_object import JsonObject

_MOST = 100


@dataclass(frozen=True)
class Visited:
    """A screen, and on Features the feature that was open."""

    screen: str
    feature: int | None = None
    sae_id: str | None = None  # whose feature it is
    alone: bool = False  # the feature takes the place of its table, for which there is no room

    def as_json(self) -> list[str | int | None]:
        return [self.screen, self.feature, self.sae_id, self.alone]

    def looks_like(self, other: "Visited") -> bool:
        """Whether who is at `other` would see nothing change by coming here."""
        its_list = self.screen == other.screen and self.feature is None and not other.alone
        return self == other or its_list


class History:
    """Places behind and ahead of the one that is open. A new way forgets those ahead."""

    def __init__(self) -> None:
        self._behind: list[Visited] = []
        self._ahead: list[Visited] = []

    def leave(self, here: Visited) -> None:
        """Remembers `here`, from which something else is opened."""
        self._ahead.clear()
        if self._behind[-1:] != [here]:
            self._behind = [*self._behind, here][-_MOST:]

    def take_back(self, place: Visited) -> None:
        """Forgets that `place` was left last, since one is there again."""
        if self._behind[-1:] == [place]:
            self._behind.pop()

    def back(self, here: Visited) -> Visited | None:
        """The place before `here`; None at the beginning."""
        return self._move(here, self._behind, self._ahead)

    def forward(self, here: Visited) -> Visited | None:
        """The place from which `back` led to `here`; None at the end."""
        return self._move(here, self._ahead, self._behind)

    def keep(self, there: Callable[[Visited], bool]) -> None:
        """Forgets places that are not `there` any more."""
        self._behind = [place for place in self._behind if there(place)]
        self._ahead = [place for place in self._ahead if there(place)]

    def rename_sae(self, old: str, new: str) -> None:
        """Goes on with the places of an SAE under its new id."""
        for places in (self._behind, self._ahead):
            places[:] = [replace(one, sae_id=new) if one.sae_id == old else one for one in places]

    def as_json(self) -> dict[str, list[list[str | int | None]]]:
        return {
            "behind": [place.as_json() for place in self._behind],
            "ahead": [place.as_json() for place in self._ahead],
        }

    @classmethod
    def from_json(cls, saved: JsonObject, screens: Collection[str]) -> "History":
        """Raises CorruptDataError for what is not a history of these screens."""
        history = cls()
        for name, places in (("behind", history._behind), ("ahead", history._ahead)):
            places += [_place(one, screens, saved) for one in saved.array(name, [])[-_MOST:]]
        return history

    @staticmethod
    def _move(here: Visited, source: list[Visited], other: list[Visited]) -> Visited | None:
        while source:
            place = source.pop()
            if not place.looks_like(here):
                other.append(here)
                return place
        return None


def _place(saved: object, screens: Collection[str], within: JsonObject) -> Visited:
    match saved:
        case [str(screen), int() | None as feature, str() | None as sae_id] if screen in screens:
            return Visited(screen, feature, sae_id)
        case [str(screen), int() | None as feature, str() | None as sae_id, bool(alone)] if (
            screen in screens
        ):
            return Visited(screen, feature, sae_id, alone)
    raise CorruptDataError(f"{within.place}: {saved!r:.60} is not a place in the app")
