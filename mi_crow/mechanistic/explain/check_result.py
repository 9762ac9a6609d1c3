"""What a check on texts found, at any threshold. Torch-free.

Recall is the share of what was expected that happened, precision the share of what happened that
was expected; F1 is their harmonic mean.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

_TRIED = 64  # thresholds among which the best is looked for


@dataclass(frozen=True)
class Place:
    """One token on which the feature fires, or a marked place or a text where it should."""

    text: int  # number of the text, those for first
    before: str
    token: str
    after: str
    activation: float  # 0 where it does not fire
    expected: bool
    hits: tuple[int, ...] = ()  # numbers of the expected places that it is in
    alarm: int = -1  # else of the false alarm; firings in one text against are one


@dataclass(frozen=True)
class Check:
    """What a feature did on some texts; it counts as firing above the threshold."""

    feature: int
    texts_for: int
    texts_against: int
    wanted: tuple[Place, ...]  # marked places, and texts for without marks
    fired: tuple[Place, ...]  # the strongest first
    threshold: float = 0.0
    can_alarm: bool = True  # there is a text against, or one whose marks say where alone it fires

    def at(self, threshold: float) -> "Check":
        """The same with another threshold."""
        return replace(self, threshold=threshold)

    @cached_property
    def _above(self) -> tuple[Place, ...]:
        return tuple(one for one in self.fired if one.activation > self.threshold)

    @property
    def expected(self) -> int:
        return len(self.wanted)

    @cached_property
    def hits(self) -> int:
        """Of what was expected, how much happened."""
        return len({number for one in self._above for number in one.hits})

    @cached_property
    def false_alarms(self) -> int:
        """Firings outside the marks, and texts against on which it fires."""
        return len({one.alarm for one in self._above if one.alarm >= 0})

    @cached_property
    def places(self) -> tuple[Place, ...]:
        """Where it fires, the strongest first, then what was expected and did not happen."""
        hit = {number for one in self._above for number in one.hits}
        strongest = dict[int, float]()
        for one in reversed(self.fired):
            strongest |= dict.fromkeys(one.hits, one.activation)
        missed = (
            replace(one, activation=strongest.get(number, 0.0))
            for number, one in enumerate(self.wanted)
            if number not in hit
        )
        return (*self._above, *missed)

    @property
    def precision(self) -> float | None:
        """None where it never fires, and where nothing could have been a false alarm."""
        fired = self.hits + self.false_alarms
        return self.hits / fired if fired and self.can_alarm else None

    @property
    def recall(self) -> float | None:
        """None where nothing was expected."""
        return self.hits / self.expected if self.expected else None

    @property
    def f1(self) -> float | None:
        """0 where nothing was expected, or where it never fires; None without a precision that
        could be less than 1."""
        if not self.can_alarm:
            return None
        total = self.expected + self.hits + self.false_alarms
        return 2 * self.hits / total if total else 0.0

    @cached_property
    def thresholds(self) -> tuple[float, ...]:
        """0 and thresholds between which the result may change, ascending."""
        values = sorted({one.activation for one in self.fired})[:-1]
        step = max(1, len(values) // _TRIED)
        return (0.0, *values[::step])

    @cached_property
    def best_threshold(self) -> float:
        """That of the greatest F1, the lowest of several; 0 without F1."""
        return max(self.thresholds, key=lambda one: self.at(one).f1 or 0.0)

    def as_json(self) -> dict[str, Any]:
        """The figures at this threshold, and what `from_json` reads."""
        found = {name: getattr(self, name) for name in ("expected", "hits", "false_alarms")}
        found |= {"precision": self.precision, "recall": self.recall, "f1": self.f1}
        found |= {"best_threshold": self.best_threshold}
        return asdict(self) | found | {"places": [asdict(one) for one in self.places]}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> "Check":
        numbers = (found["feature"], found["texts_for"], found["texts_against"])
        places = _places(found["wanted"]), _places(found["fired"])
        return cls(*numbers, *places, found["threshold"], found["can_alarm"])


def _places(found: Sequence[Mapping[str, Any]]) -> tuple[Place, ...]:
    return tuple(Place(**{**one, "hits": tuple(one["hits"])}) for one in found)
