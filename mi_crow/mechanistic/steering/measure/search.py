"""The search of `mi-crow steer --auto`: which recipe at which strength, on development prompts."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from mi_crow.errors import NotFiniteError
from mi_crow.mechanistic.steering.measure.arms import Arm, best_of
from mi_crow.mechanistic.steering.measure.bench import Bench
from mi_crow.mechanistic.steering.measure.config import AutoConfig, Trial
from mi_crow.mechanistic.steering.measure.recipes import Aim, Recipe, recipes_named
from mi_crow.mechanistic.steering.measure.results import Measurement
from mi_crow.progress import Progress, raise_if_stopped

_DEVELOPMENT_SEED = 1_000_003  # added to the seed: no continuation is measured twice
_LEAST, _MOST = 0.01, 6.0  # norms
_STEP = 1.6
_NEAR, _FAR = 1.2, 3.0  # a step from one side alone, at least and at most
_DEAREST = 5.0  # of the logarithm of a ratio: beyond it nothing is told
_CLOSE = 1.1  # strengths nearer than this are not told apart
MARGIN = 0.85  # of what the perplexity may rise by, in a try
_HEAT = 2  # strengths of each recipe before the worse are dropped
_WARM = 8  # recipes that have more than the first of these
_GOING, _FINALISTS = 4, 3  # recipes
_STEPS_BACK = 3  # strengths tried again where one costs too much after all
_BACK = (0.5, 0.95)  # of the strength, at most and at least

Further = Callable[[list[tuple[str, float]]], list[tuple[Recipe, Arm]]]
"""What else may be tried, from the texts on the topic that were written so far (see `worthy`)."""


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

    def at(self, limit: float) -> tuple[float, float] | None:
        """The strength and the effect that a ratio of `limit` buys: see `bought`."""
        return bought([(s, row["effect"], _ratio(row)) for s, row in self.tries], limit)


@dataclass(frozen=True)
class Finalist:
    """A recipe at the strength that was confirmed, with its figures there."""

    tried: Tried
    strength: float
    row: dict[str, Any]
    bought: float | None = None  # the effect that the limit buys, of all strengths confirmed

    @property
    def effect(self) -> float:
        """What it is compared with others by."""
        return self.row["effect"] if self.bought is None else self.bought

    @property
    def arm(self) -> Arm:
        return self.tried.arm.scaled(self.strength)


class Search:
    """The tries of all recipes on development prompts.

    Each recipe has one strength tried on half the continuations, and the more promising another;
    then those of `further` are tried, and the best of all go on. The best of those are measured
    again with another seed, which alone decides: a figure by which one of many was chosen is too
    good. There the ratio of perplexities has to be below the limit for other prompts too, with 95%
    certainty (see `ratio_room`); of those that do as much, within their standard errors, the one
    that costs least wins.

    `enough`: an effect that needs no better one. Where a first strength has it and this is
    confirmed, nothing more is tried, except the first strengths of recipes that were asked for.
    """

    def __init__(
        self,
        bench: Bench,
        config: AutoConfig,
        prompts: Sequence[str],
        measurement: Measurement,
        progress: Progress,
        enough: float | None = None,
    ) -> None:
        self._bench, self._config, self._prompts = bench, config, list(prompts)
        self._measurement, self._progress = measurement, progress
        self._enough = math.inf if enough is None else enough
        self._done = 0
        self._limit = 1 + MARGIN * (config.most_ratio - 1)
        self._total: int = 0

    def choose(self, features: Sequence[int]) -> int:
        """The feature that steers best, raised where it is below; the first among equals."""
        if len(features) == 1:
            return features[0]
        (recipe,) = recipes_named(["floor"])
        every = {
            feature: Tried(recipe, arm)
            for feature in features
            if (arm := recipe.build(Aim(feature)))
        }
        self._total = len(every) + self._planned(len(recipes_named(self._config.recipes)))
        for one in every.values():
            self._more(one, 1, self._half)
            if one.at(self._limit) is None:
                self._more(one, 1, self._half)
        return min(every, key=lambda feature: self._rank(every[feature]))

    def run(
        self, built: Sequence[tuple[Recipe, Arm]], further: Further | None = None
    ) -> tuple[list[Tried], list[Finalist]]:
        """All recipes as they were tried, and the finalists, the best first."""
        config = self._config
        first = min(_HEAT, config.tries)
        self._total = self._done + self._planned(len(built))
        every = [Tried(recipe, arm) for recipe, arm in built]
        for one in every:
            self._more(one, 1, self._half)
            if not config.recipes and (found := self._enough_at_once([one])):
                return every, found
        if found := self._enough_at_once(every):
            return every, found
        promising = sorted(every, key=self._rank)[:_WARM]
        for one in promising:
            self._more(one, first - 1, self._half)
        late = learnt(every, further)
        self._total += first * len(late)
        for one in late:
            self._more(one, first, self._half)
        for one in every:
            one.dropped = one not in promising
        every += late
        order = sorted((one for one in every if not one.dropped), key=self._rank)
        for one in order[_GOING:]:
            one.dropped = True
        for one in order[:_GOING]:
            self._more(one, config.tries - first, config.development)
        order = sorted(order[:_GOING], key=self._rank)
        confirmed = [self._confirmed(one) for one in order[:_FINALISTS] if one.at(self._limit)]
        found = [one for one in confirmed if one is not None]
        return every, decided(found)

    def _planned(self, recipes: int) -> int:
        """The tries of a search among so many recipes that goes on to its end."""
        first = min(_HEAT, self._config.tries)
        rest = min(_GOING, recipes) * (self._config.tries - first)
        finals = 2 * min(_FINALISTS, recipes)
        return recipes + min(_WARM, recipes) * (first - 1) + rest + finals

    def _enough_at_once(self, every: Sequence[Tried]) -> list[Finalist]:
        """Recipes whose first strength was confirmed, the last of them with an effect that is
        enough, the best first; none without such a one. The cheapest are looked at."""
        chosen = []
        for one in every:
            best = one.best(self._limit)
            if best is not None and best[1]["effect"] >= self._enough:
                chosen.append((_ratio(best[1]), len(chosen), one))
        found: list[Finalist] = []
        for _, _, one in sorted(chosen)[:_FINALISTS]:
            confirmed = self._confirmed(one)
            if confirmed is None:
                continue
            found.append(confirmed)
            row = confirmed.row
            if row["effect"] >= self._enough - row.get("effect_error", 0.0):
                return decided(found)
        return []

    @property
    def _half(self) -> int:
        return max(self._config.development // 2, 1)

    def _rank(self, one: Tried) -> tuple[float, float]:
        found = one.at(self._limit)
        if found is None:
            return 1.0, 0.0
        cheapest = min(_ratio(row) for _, row in one.tries)
        return -found[1], cheapest

    def _more(self, one: Tried, count: int, n: int) -> None:
        for _ in range(count):
            strength = one.next_strength(self._limit)
            if strength is None:
                return
            one.tries.append((strength, self._try(one, strength, n, 0)))

    def _confirmed(self, one: Tried) -> Finalist | None:
        """A recipe at its best strength, or a little less where that may cost too much on other
        continuations; None where even this does. Where few continuations leave the ratio uncertain,
        a strength that is below the limit without certainty will do."""
        found = one.at(self._limit)
        assert found is not None
        strength, _ = found
        most = math.log(self._config.most_ratio)
        fitting: Finalist | None = None
        told: list[tuple[float, float, float]] = []
        for _ in range(_STEPS_BACK):
            row = self._try(one, strength, 2 * self._config.development, 1)
            told.append((strength, row["effect"], _ratio(row)))
            room, cost = most - row.get("ratio_room", 0.0), math.log(_ratio(row))
            effect = bought(told, self._config.most_ratio)
            if cost <= most:
                fitting = Finalist(one, strength, row, effect and effect[1])
            if cost <= room:
                break
            # What a change costs grows about with the square of its size.
            low, high = _BACK
            strength *= min(max((max(room, 0.0) / cost) ** 0.5, low), high)
        return fitting

    def _try(self, one: Tried, strength: float, n: int, half: int) -> dict[str, Any]:
        arm = one.arm.scaled(strength)
        key = f"{arm.name}, n {n}" + (" again" if half else "")
        row = self._measurement.part(key)
        if row is None:
            raise_if_stopped(self._progress)
            trial = self._config.trial
            seed = development_seed(trial, half)
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


def development_seed(trial: Trial, half: int) -> int:
    """The seed of tries (0) or of what confirms them (1)."""
    return (trial.seed + (1 + half) * _DEVELOPMENT_SEED) % 2**32


def learnt(every: Sequence[Tried], further: Further | None) -> list[Tried]:
    """The recipes that `further` makes of the texts that were written in the tries."""
    if further is None:
        return []
    told = [text for one in every for _, row in one.tries for text in row.get("own", ())]
    return [Tried(*one) for one in further([(text, worth) for text, worth in told])]


def _ratio(row: dict[str, Any]) -> float:
    """The ratio of perplexities; above any limit where there was none."""
    found = row["perplexity_ratio"]
    return math.inf if found is None else found


def decided(found: Sequence[Finalist]) -> list[Finalist]:
    """The finalists, the winner first: of those whose effect is within a standard error of the
    greatest the one that costs least; then by effect."""
    order = sorted(found, key=lambda one: (-one.effect, _ratio(one.row)))
    if not order:
        return order
    error = order[0].row.get("effect_error", 0.0)
    least, own = order[0].effect - error, order[0].row["effect"] - error
    alike = [one for one in order if one.effect >= least and one.row["effect"] >= own]
    winner = min(alike, key=lambda one: _ratio(one.row))
    return [winner, *(one for one in order if one is not winner)]


def bought(tried: Sequence[tuple[float, float, float]], limit: float) -> tuple[float, float] | None:
    """The strength and the effect that a ratio of `limit` buys, after some (strength, effect,
    ratio): of the try with the greatest effect among those that fit, or between one that fits and
    the next that does not, whichever is more; None where no ratio is finite.

    Between two the effect is linear in the ratio's logarithm, which grows with the square of the
    strength. At strength 0 there is no effect, at a ratio of 1. So a strength that costs too much
    still tells what a weaker one would do, and recipes are compared at equal cost.
    """
    found = [(effect, strength) for strength, effect, ratio in tried if ratio <= limit]
    curve = [(0.0, 0.0, 1.0), *sorted(one for one in tried if math.isfinite(one[2]))]
    for (low, less, cheap), (high, more, dear) in pairwise(curve):
        if cheap <= limit < dear:
            way = math.log(limit / cheap) / math.log(dear / cheap)
            strength = (low**2 + way * (high**2 - low**2)) ** 0.5
            found.append((less + way * (more - less), strength))
    if not found:
        return None
    effect, strength = max(found, key=lambda one: (one[0], -one[1]))
    return strength, effect


def next_strength(
    tried: Sequence[tuple[float, float]], most_ratio: float, first: float = 0.3
) -> float | None:
    """The next strength to try after some (strength, ratio of perplexities): `first`, then where
    the ratio should be `most_ratio`; None where nothing is left between.

    The logarithm of the ratio grows about with the square of the strength: so between the strongest
    that fits and the weakest that does not, and from either alone, by a step of at most `_FAR`.
    """
    if not tried:
        return first
    wanted = math.log(most_ratio)
    fitting = [one for one in tried if one[1] <= most_ratio]
    above = [one for one in tried if one[1] > most_ratio]
    high = min(above, default=None)
    low = max((one for one in fitting if high is None or one < high), default=None)
    if high is None:
        strength, ratio = max(fitting)
        following = strength * min(max((wanted / _cost(ratio)) ** 0.5, _NEAR), _STEP)
        return following if following <= _MOST else None
    strength, ratio = high
    if low is None:
        following = strength / min(max((_cost(ratio) / wanted) ** 0.5, _NEAR), _FAR)
        return following if following >= _LEAST else None
    weak, cheap = low
    if strength / weak <= _CLOSE:
        return None
    way = (wanted - math.log(cheap)) / (_cost(ratio) - math.log(cheap))
    following = (weak**2 + way * (strength**2 - weak**2)) ** 0.5
    return min(max(following, weak * _CLOSE**0.5), strength / _CLOSE**0.5)


def _cost(ratio: float) -> float:
    """The logarithm of a ratio, above 0 and finite."""
    return min(max(math.log(ratio), 1e-3), _DEAREST) if math.isfinite(ratio) else _DEAREST


def short(tried: Tried) -> list[dict[str, float | None]]:
    """The tries of a recipe as JSON, the weakest first."""
    return [
        {"strength": s} | {key: row[key] for key in ("share", "effect", "perplexity_ratio")}
        for s, row in sorted(tried.tries, key=lambda one: one[0])
    ]
