"""The ways to steer that `--auto` tries, each at strength 1: one norm of the residual stream."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from mi_crow.errors import UserError, nearest
from mi_crow.mechanistic.steering.interventions import Intervention, Op
from mi_crow.mechanistic.steering.measure.arms import Arm
from mi_crow.mechanistic.steering.schedules import CONSTANT, Schedule
from mi_crow.mechanistic.steering.targets import group_of

_DECAY, _FEEDBACK = Schedule("decay"), Schedule("feedback")
_BETA = 0.1  # the plausible share of Li et al. 2023
_LOOSE = 0.05  # with a direction that leaves the text its style


@dataclass(frozen=True)
class Aim:
    """What is steered to: a feature, and what was found for it."""

    feature: int
    rivals: tuple[int, ...] = ()
    allies: tuple[tuple[int, float], ...] = ()  # features with weights, the feature among them
    vector: str = ""  # from other texts to those that are about the feature
    spread: str = ""  # the same at several layers
    own: str = ""  # to what the model wrote about it while others were tried


@dataclass(frozen=True)
class Recipe:
    """One way to steer."""

    name: str
    help: str
    build: Callable[[Aim], Arm | None]  # None where the aim lacks what it needs
    first: float = 0.4  # norms: the strength that a search begins with
    own: bool = False  # needs texts that others made the model write


def _single(
    op: Op, schedule: Schedule = CONSTANT, beta: float | None = None
) -> Callable[[Aim], Arm]:
    def build(aim: Aim) -> Arm:
        one = Intervention(f"feature:{aim.feature}", op, 1.0, "norm", schedule=schedule)
        return Arm((one,), beta)

    return build


def _swap(aim: Aim) -> Arm | None:
    if not aim.rivals:
        return None
    rivals = group_of(tuple((rival, 1.0) for rival in aim.rivals)).text
    one = Intervention(
        f"feature:{aim.feature}", "swap", 1.0, "norm", schedule=_FEEDBACK, rivals=rivals
    )
    return Arm((one,))


def _group(op: Op, schedule: Schedule = CONSTANT) -> Callable[[Aim], Arm | None]:
    def build(aim: Aim) -> Arm | None:
        if len(aim.allies) < 2:
            return None
        target = group_of(aim.allies).text
        return Arm((Intervention(target, op, 1.0, "norm", schedule=schedule),))

    return build


def _means(
    op: Op = "add",
    schedule: Schedule = CONSTANT,
    vector: Literal["vector", "spread", "own"] = "vector",
    beta: float | None = None,
) -> Callable[[Aim], Arm | None]:
    def build(aim: Aim) -> Arm | None:
        name = {"vector": aim.vector, "spread": aim.spread, "own": aim.own}[vector]
        if not name:
            return None
        one = Intervention(f"vector:{name}", op, 1.0, "norm", schedule=schedule)
        return Arm((one,), beta)

    return build


def _own(schedule: Schedule = CONSTANT, beta: float | None = None) -> Callable[[Aim], Arm | None]:
    return _means(schedule=schedule, vector="own", beta=beta)


RECIPES: tuple[Recipe, ...] = (
    # What costs least comes first: a search may end with it.
    Recipe(
        "plausible-feedback",
        "raised until the text is about it, within the plausible set",
        _single("floor", _FEEDBACK, _BETA),
        1.2,
    ),
    Recipe("plausible", "raised, within the plausible set", _single("floor", beta=_BETA), 1.2),
    Recipe("add", "a constant, as most tools do", _single("add"), 0.3),
    Recipe("floor", "raised where it is below", _single("floor")),
    Recipe("decay", "a constant that fades over 16 tokens", _single("add", _DECAY), 0.7),
    Recipe("feedback", "raised until the text is about it", _single("floor", _FEEDBACK), 0.5),
    Recipe("swap", "the same, while its rivals are taken away", _swap),
    Recipe("group", "raised with the features that come with it", _group("floor")),
    Recipe("group-decay", "the same group, fading over 16 tokens", _group("add", _DECAY), 0.7),
    Recipe("means", "the difference of means of its texts and others", _means(), 0.3),
    Recipe("means-floor", "the same, raised where it is below", _means("floor"), 0.3),
    Recipe("means-layers", "the same, added at three layers", _means(vector="spread"), 0.1),
    Recipe("means-decay", "the same, fading over 16 tokens", _means(schedule=_DECAY), 0.7),
    Recipe("means-plausible", "the same, within the plausible set", _means(beta=_LOOSE), 0.5),
    # These come last: they learn from what the others made the model write.
    Recipe("own", "the difference of means of its own texts on it and others", _own(), 0.25, True),
    Recipe("own-decay", "the same, fading over 16 tokens", _own(_DECAY), 0.5, True),
    Recipe("own-plausible", "the same, within the plausible set", _own(beta=_LOOSE), 0.5, True),
)


def recipes_named(names: Sequence[str]) -> list[Recipe]:
    """The recipes with these names, or all. Raises UserError for an unknown one."""
    known = {recipe.name: recipe for recipe in RECIPES}
    for name in names:
        if name not in known:
            raise UserError(
                f"recipe {name!r} is not known", hint=f"there is {nearest(name, [*known])}"
            )
    return [known[name] for name in names] if names else list(RECIPES)
