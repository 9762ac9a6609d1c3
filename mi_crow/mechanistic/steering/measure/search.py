"""The search of `mi-crow steer --auto`: which recipe at which strength, on development prompts."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from mi_crow.errors import NotFiniteError
from mi_crow.mechanistic.steering.measure.arms import Arm, best_of
from mi_crow.mechanistic.steering.measure.bench import Bench
from mi_crow.mechanistic.steering.measure.config import AutoConfig
from mi_crow.mechanistic.steering.measure.recipes import Recipe
from mi_crow.mechanistic.steering.measure.results import Measurement
from mi_crow.progress import Progress, raise_if_stopped

_DEVELOPMENT_SEED = 1_000_003  # added to the seed: no continuation is measured twice
_LEAST, _MOST = 0.01, 6.0  # norms
_STEP = 1.6
_CLOSE = 1.1  # strengths nearer than this are not told apart
MARGIN = 0.85  # of what the perplexity may rise by
_HEAT = 2  # strengths of each recipe before the worse are dropped
_GOING, _FINALISTS = 4, 3  # recipes
_BACK, _STEPS_BACK = 0.88, 3  # strengths tried again where one costs too much after all


@dataclass
class Tried:
    """What the development prompts told of one recipe: (strength, figures) of each try."""

    recipe: Recipe
    arm: Arm  # at strength 1
    tries: list[tuple[float, dict[str, Any]]] = field(default_factory=list)
    dropped: bool = False  # others were better after a few tries

    def next_strength(self, limit: float) -> float | None:
        tried = [(strength, _ratio(row)) for strength, row in self.tries]
        return next_strength(tried, limit, self.recipe.first)

    def best(self, limit: float) -> tuple[float, dict[str, Any]] | None:
        """The try with the greatest effect of those that cost at most `limit`."""
        place = best_of([(row["effect"], _ratio(row)) for _, row in self.tries], limit)
        return None if place is None else self.tries[place]


@dataclass(frozen=True)
class Finalist:
    """A recipe at the strength that was confirmed, with its figures there."""

    tried: Tried
    strength: float
    row: dict[str, Any]

    @property
    def arm(self) -> Arm:
        return self.tried.arm.scaled(self.strength)


class Search:
    """The tries of all recipes on development prompts.

    Each recipe has a few strengths tried; the best recipes go on. The best of those
    are measured again with another seed, which alone decides: a figure by which one of many was
    chosen is too good.
    """

    def __init__(
        self,
        bench: Bench,
        config: AutoConfig,
        prompts: Sequence[str],
        measurement: Measurement,
        progress: Progress,
    ) -> None:
        self._bench, self._config, self._prompts = bench, config, list(prompts)
        self._measurement, self._progress = measurement, progress
        self._done = 0
        # A ratio of few continuations may be above that of many.
        self._limit = 1 + MARGIN * (config.most_ratio - 1)
        self._total = 1

    def run(self, built: Sequence[tuple[Recipe, Arm]]) -> tuple[list[Tried], list[Finalist]]:
        """All recipes as they were tried, and the finalists, the best first."""
        config = self._config
        first = min(_HEAT, config.tries)
        rest = min(_GOING, len(built)) * (config.tries - first)
        finals = min(_FINALISTS, len(built))
        self._total = len(built) * first + rest + 2 * finals
        every = [Tried(recipe, arm) for recipe, arm in built]
        for one in every:
            self._more(one, first)
        order = sorted(every, key=self._rank)
        for one in order[_GOING:]:
            one.dropped = True
        for one in order[:_GOING]:
            self._more(one, config.tries - first)
        order = sorted(order[:_GOING], key=self._rank)
        confirmed = [self._confirmed(one) for one in order[:_FINALISTS] if one.best(self._limit)]
        found = [one for one in confirmed if one is not None]
        return every, sorted(found, key=lambda one: (-one.row["effect"], _ratio(one.row)))

    def _rank(self, one: Tried) -> tuple[float, float]:
        best = one.best(self._limit)
        return (1.0, 0.0) if best is None else (-best[1]["effect"], _ratio(best[1]))

    def _more(self, one: Tried, count: int) -> None:
        for _ in range(count):
            strength = one.next_strength(self._limit)
            if strength is None:
                return
            one.tries.append((strength, self._try(one, strength, self._config.development, 0)))

    def _confirmed(self, one: Tried) -> Finalist | None:
        """A recipe at its best strength, or a little less where that costs too much on other
        continuations; None where even this does."""
        found = one.best(self._limit)
        assert found is not None
        strength, _ = found
        for _ in range(_STEPS_BACK):
            row = self._try(one, strength, 2 * self._config.development, 1)
            if _ratio(row) <= self._limit:
                return Finalist(one, strength, row)
            strength *= _BACK
        return None

    def _try(self, one: Tried, strength: float, n: int, half: int) -> dict[str, Any]:
        key = f"{one.recipe.name} {strength:.6g}" + (" again" if half else "")
        row = self._measurement.part(key)
        if row is None:
            raise_if_stopped(self._progress)
            trial = self._config.trial
            seed = (trial.seed + (1 + half) * _DEVELOPMENT_SEED) % 2**32
            arm = one.arm.scaled(strength)
            try:
                row = self._bench.quick(arm, trial, self._prompts, n, seed)
            except NotFiniteError as error:
                row = {"share": 0.0, "effect": 0.0, "perplexity_ratio": None, "refused": str(error)}
            self._measurement.keep(key, row)
            self._progress.checkpoint(key)
        self.step()
        return row

    def step(self) -> None:
        self._done += 1
        self._progress.update(min(self._done, self._total), self._total, "try")


def _ratio(row: dict[str, Any]) -> float:
    """The ratio of perplexities; above any limit where there was none."""
    found = row["perplexity_ratio"]
    return math.inf if found is None else found


def next_strength(
    tried: Sequence[tuple[float, float]], most_ratio: float, first: float = 0.3
) -> float | None:
    """The next strength to try after some (strength, ratio of perplexities): `first`, then between
    the strongest that fits and the weakest that does not, or a step further; None where nothing is
    left between.
    """
    if not tried:
        return first
    fitting = [strength for strength, ratio in tried if ratio <= most_ratio]
    above = [strength for strength, ratio in tried if ratio > most_ratio]
    low = max((one for one in fitting if not above or one < min(above)), default=None)
    high = min(above, default=None)
    if high is None:
        following = max(fitting) * _STEP
        return following if following <= _MOST else None
    if low is None:
        following = high / _STEP
        return following if following >= _LEAST else None
    return (low * high) ** 0.5 if high / low > _CLOSE else None


def short(tried: Tried) -> list[dict[str, float | None]]:
    """The tries of a recipe as JSON, the weakest first."""
    return [
        {"strength": s} | {key: row[key] for key in ("share", "effect", "perplexity_ratio")}
        for s, row in sorted(tried.tries, key=lambda one: one[0])
    ]
