"""The arms of a sweep: stacks of interventions with their constraints, and which do best.

Torch-free.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from types import MappingProxyType
from typing import Any

from mi_crow.mechanistic.steering.interventions import Intervention
from mi_crow.mechanistic.steering.measure.config import BY_AMOUNT, SweepConfig
from mi_crow.mechanistic.steering.schedules import parse_schedule
from mi_crow.mechanistic.steering.targets import group_of, read_target

_SHOWN = 4  # interventions and rivals that a name lists


@dataclass(frozen=True)
class Arm:
    """One way to steer."""

    interventions: tuple[Intervention, ...]
    plausible: float | None = None
    kl_budget: float | None = None
    recipe: str = ""

    @property
    def name(self) -> str:
        """What it does, in words; unlike that of any other arm."""
        words = [_words(one) for one in self.interventions]
        if len(words) > _SHOWN:
            words = [*words[:_SHOWN], f"and {len(words) - _SHOWN} more"]
        words += [f"plausible {self.plausible:g}"] if self.plausible else []
        words += [f"KL {self.kl_budget:g}"] if self.kl_budget else []
        return ", ".join(words) or "nothing"

    def scaled(self, strength: float) -> "Arm":
        """The same with its amounts multiplied."""
        return replace(
            self, interventions=tuple(scaled(one, strength) for one in self.interventions)
        )

    def of_other_features(
        self, others: Mapping[int, int], stand_ins: Mapping[str, str] = MappingProxyType({})
    ) -> "Arm":
        """The same on other features of its SAE and against other rivals, for a control, and on
        what stands in for other targets, by their texts."""
        return replace(
            self,
            interventions=tuple(_moved(one, others, stand_ins) for one in self.interventions),
        )

    def as_json(self, sae_id: str) -> dict[str, Any]:
        return {
            "name": self.name,
            "recipe": self.recipe,
            "interventions": [one.as_json(within=sae_id) for one in self.interventions],
            "plausible": self.plausible,
            "kl_budget": self.kl_budget,
        }


def in_groups(arms: Sequence[Arm]) -> list[list[Arm]]:
    """The arms in their order, those that follow each other and differ only in strength together:
    their texts can be written in one batch."""
    groups: list[list[Arm]] = []
    for arm in arms:
        if groups and strength_beside(groups[-1][0], arm) is not None:
            groups[-1].append(arm)
        else:
            groups.append([arm])
    return groups


def strength_beside(first: Arm, arm: Arm) -> float | None:
    """What the amounts of `first` have to be multiplied by to be those of `arm`; None where they
    differ in more."""
    pairs = list(zip(first.interventions, arm.interventions, strict=False))
    ratios = {b.value / a.value for a, b in pairs if a.op in BY_AMOUNT and a.value}
    if not ratios or max(ratios) - min(ratios) > 1e-9 * max(ratios):
        return None
    strength = max(ratios)
    same = replace(first.scaled(strength), interventions=arm.interventions) == arm and all(
        scaled(a, strength) == replace(b, value=a.value * strength) if a.op in BY_AMOUNT else a == b
        for a, b in pairs
    )
    by_layer = any(a.layer is not None and a.op in BY_AMOUNT for a, _ in pairs)
    whole = len(first.interventions) == len(arm.interventions) == len(pairs)
    return strength if same and whole and strength > 0 and not by_layer else None


def scaled(one: Intervention, strength: float) -> Intervention:
    """An intervention with its amount, if it has one, multiplied."""
    return replace(one, value=one.value * strength) if one.op in BY_AMOUNT else one


def _moved(
    one: Intervention, others: Mapping[int, int], stand_ins: Mapping[str, str]
) -> Intervention:
    if one.aim.text in stand_ins:
        return replace(one, target=stand_ins[one.aim.text])
    features = tuple((others.get(feature, feature), weight) for feature, weight in one.features)
    if not features:
        return one
    rivals = tuple((others[rival], w) for rival, w in one.rival_features if rival in others)
    return replace(
        one,
        target=replace(one.aim, features=features).text,
        rivals=group_of(rivals, read_target(one.rivals).sae).text if rivals else one.rivals,
    )


_BESIDE = {"feature": "feature", "group": "feature", "tag": "feature"}
_BESIDE |= {"vector": "direction", "neuron": "neuron"}  # a whole layer has no other like it
_ALIKE = {
    "feature": "features as dense and as strong",
    "direction": "directions of the same norm",
    "neuron": "neurons of the same layer",
}


def beside(stack: Sequence[Intervention]) -> str:
    """What a control has in place of the targets of `stack`, in words: `a random feature`, `random
    features and a random direction`; empty for whole layers alone."""
    found: dict[str, set[str]] = {}
    for one in stack:
        if one.enabled and (kind := _BESIDE.get(one.aim.kind)):
            named = {f"{one.sae}/{number}" for number, _ in one.features} or {one.target}
            named |= {f"{one.target}, all"} if one.aim.kind == "tag" else set()
            found.setdefault(kind, set()).update(named)
    words = (
        f"a random {kind}" if len(named) == 1 else f"random {kind}s"
        for kind, named in found.items()
    )
    return " and ".join(words)


def kinds_beside(arm: Mapping[str, Any], stand_ins: Mapping[str, str]) -> list[str]:
    """What the control of an arm that was measured had in place of its targets: `feature`,
    `direction`, `neuron`. A vector without a stand-in had a feature: so it was in searches of
    before."""
    found: dict[str, None] = {}
    for held in arm.get("interventions") or ():
        target = str(held.get("target", ""))
        kind = target.partition(":")[0]
        of_before = kind == "vector" and target not in stand_ins
        if kind in _BESIDE:
            found["feature" if of_before else _BESIDE[kind]] = None
    return [*found]


def alike(kinds: Sequence[str]) -> str:
    """What controls of these kinds were: `features as dense and as strong`."""
    return " and ".join(_ALIKE[kind] for kind in kinds)


def _words(one: Intervention) -> str:
    """What it does; of many rivals only how many."""
    if len(one.rival_features) <= _SHOWN:
        return one.describe()
    plain = replace(one, rivals=f"feature:{one.rival_features[0][0]}").describe()
    first = f"against {one.rival_features[0][0]}"
    return plain.replace(first, f"against {len(one.rival_features)} rivals", 1)


def arms_of(config: SweepConfig, stack: Sequence[Intervention]) -> list[Arm]:
    """Every combination that a sweep of `stack` tries; one arm where it varies nothing."""
    found: list[Arm] = []
    for operation, schedule, beta, budget, strength in product(
        config.operations or (None,),
        config.schedules or (None,),
        config.plausible or (0.0,),
        config.kl_budgets or (0.0,),
        config.strengths or (1.0,),
    ):
        changed = tuple(scaled(_varied(one, operation, schedule), strength) for one in stack)
        arm = Arm(changed, beta or None, budget or None)
        if arm not in found:
            found.append(arm)
    return found


def _varied(one: Intervention, operation: Any, schedule: str | None) -> Intervention:
    """With another operation (where it has an amount) and another schedule."""
    if one.layer is not None:
        return one
    if operation is not None and one.op in BY_AMOUNT:
        one = replace(one, op=operation)
    return one if schedule is None else replace(one, schedule=parse_schedule(schedule))


def front(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Which (share, ratio) points no other beats in one without being worse in the other."""
    return [
        not any(s >= share and r <= ratio and (s, r) != (share, ratio) for s, r in points)
        for share, ratio in points
    ]


def best_of(points: Sequence[tuple[float, float]], most_ratio: float) -> int | None:
    """The place of the greatest share at a ratio of at most `most_ratio`, the lower ratio among
    equals; None where every one costs more."""
    fitting = [
        (share, -ratio, -place)
        for place, (share, ratio) in enumerate(points)
        if ratio <= most_ratio
    ]
    return -max(fitting)[2] if fitting else None
