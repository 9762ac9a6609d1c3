"""The features that somebody marked, and how they are kept; pure."""

from collections.abc import Sequence
from typing import Any

from tui.widgets.lists.marks import Marks


class FeatureMarks(Marks[int]):
    """Marked features of one SAE."""

    def keep_below(self, total: int) -> None:
        """Forgets features that an index of `total` does not have."""
        self.keep_only([feature for feature in self if feature < total])

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
        features: list[int] = []
        for run in runs:
            match run:
                case [int(first), int(last)] if 0 <= first <= last < 1 << 25:
                    features.extend(range(first, last + 1))
                case _:
                    raise ValueError(f"{run!r:.40} is not a run of features")
        return cls(features)
