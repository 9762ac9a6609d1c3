"""What the app told, for whoever looked elsewhere while it was on the screen; pure."""

from collections import deque
from dataclasses import dataclass, replace
from typing import Final

MOST: Final = 200


@dataclass(frozen=True)
class Place:
    """A row of the Runs screen, or the features of an SAE."""

    screen: str
    key: str  # of the row, or the SAE
    rows: str = ""  # the list on Runs: runs | saes | jobs

    @property
    def of_sae(self) -> bool:
        return self.screen == "features" or self.rows == "saes"


@dataclass(frozen=True)
class Told:
    """One message; `place` is what it is about, where that can be shown."""

    time: float
    sentence: str
    remedy: str = ""
    severity: str = "information"
    place: Place | None = None
    times: int = 1  # how often it was told in a row


class MessageLog:
    """The latest messages; errors are unread until somebody looks."""

    def __init__(self) -> None:
        self._told: deque[Told] = deque(maxlen=MOST)
        self.unread_errors = 0

    def add(self, told: Told) -> None:
        last = self._told[-1] if self._told else None
        if last is not None and replace(last, time=told.time, times=1) == told:
            self._told[-1] = replace(told, times=last.times + 1)
        else:
            self._told.append(told)
        self.unread_errors += told.severity == "error"

    def rename_sae(self, old: str, new: str) -> None:
        """What points to an SAE points to it under its new id."""
        for number, told in enumerate(self._told):
            place = told.place
            if place is not None and place.key == old and place.of_sae:
                self._told[number] = replace(told, place=replace(place, key=new))

    def read(self) -> tuple[Told, ...]:
        """All of them, the latest first; from now on they count as read."""
        self.unread_errors = 0
        return tuple(reversed(self._told))

    def since(self, moment: float) -> tuple[Told, ...]:
        """What was told from `moment` on, the earliest first; it stays unread."""
        return tuple(told for told in self._told if told.time >= moment)
