"""The features that somebody marked, to do something with all of them; pure."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any


class FeatureMarks:
    """A set of features. It outlives orders and filters; the last mark is where a range begins."""

    def __init__(self, features: Iterable[int] = ()) -> None:
        self._features = set(features)
        self._last: int | None = None

    def __contains__(self, feature: int) -> bool:
        return feature in self._features

    def __len__(self) -> int:
        return len(self._features)

    def __iter__(self) -> Iterator[int]:
        return iter(sorted(self._features))

    def toggle(self, feature: int) -> None:
        self._features ^= {feature}
        self._last = feature

    def mark_range(self, shown: Sequence[int], place: int) -> None:
        """Marks all of `shown` between the last mark, where that is shown, and `place`."""
        first = place
        if self._last is not None and self._last in shown:
            first = shown.index(self._last)
        self._features.update(shown[min(first, place) : max(first, place) + 1])
        self._last = shown[place]

    def toggle_all(self, shown: Sequence[int]) -> None:
        """Marks all of `shown`, or unmarks them where all are marked."""
        if self._features.issuperset(shown):
            self._features.difference_update(shown)
        else:
            self._features.update(shown)

    def clear(self) -> None:
        self._features.clear()
        self._last = None

    def keep_below(self, total: int) -> None:
        """Forgets features that an index of `total` does not have."""
        self._features = {feature for feature in self._features if feature < total}

    def as_json(self) -> list[list[int]]:
        """First and last of each run of numbers: all of 131,072 are one pair."""
        runs: list[list[int]] = []
        for feature in self:
            if runs and runs[-1][1] == feature - 1:
                runs[-1][1] = feature
            else:
                runs.append([feature, feature])
        return runs

    @classmethod
    def from_json(cls, runs: Sequence[Any]) -> "FeatureMarks":
        """Raises ValueError for what `as_json` does not give."""
        marks = cls()
        for run in runs:
            match run:
                case [int(first), int(last)] if 0 <= first <= last < 1 << 25:
                    marks._features.update(range(first, last + 1))
                case _:
                    raise ValueError(f"{run!r:.40} is not a run of features")
        return marks
