"""Settings of measured steering: plain data, torch-free."""

from dataclasses import dataclass, field
from typing import Any

from mi_crow.bounds import AMOUNT, COUNT, FACTOR, FEATURE, SEED, SHARE, SIZE, TEMPERATURE, TOP_P
from mi_crow.errors import UserError
from mi_crow.language_model.endpoint import check_endpoint
from mi_crow.mechanistic.steering.interventions import Intervention
from mi_crow.mechanistic.steering.schedules import parse_schedule

OPERATIONS = ("add", "clamp", "floor", "cap")  # that a sweep can try
BY_AMOUNT = (*OPERATIONS, "swap")  # whose value is an amount
CONTROL = "features as dense and as strong, directions of a vector's norm, neurons of the layer"
# Prompts, where none are given: those that are reported on, and those that a search chooses by.
REPORTED, DEVELOPMENT = 4, 8
# What a sweep tries where nothing is said: shares of the stack's own amounts.
STRENGTHS = (0.5, 0.75, 1.0, 1.25, 1.5)


@dataclass(frozen=True)
class Judging:
    """What counts as a hit: a label of the corpus, a feature's own topic, a pattern, or what the
    texts are about that a description matches.

    Without any it is the topic of the feature that is steered, or what a vector was made for.
    """

    label: str | None = None
    feature: int | None = None
    pattern: str | None = None  # a regular expression
    description: str | None = None

    def __post_init__(self) -> None:
        given = (self.label, self.feature, self.pattern, self.description)
        if sum(one is not None for one in given) > 1:
            raise UserError(
                "several judges were given",
                hint="give a label, a feature, a description or a regex",
            )
        FEATURE.check(self.feature, "the feature to judge by")


@dataclass(frozen=True)
class Trial:
    """On which continuations a stack is measured."""

    prompts: tuple[str, ...] = ()  # none: the commonest openings of the indexed texts
    n: int = 64  # continuations of each stack, spread over the prompts
    max_new_tokens: int = 48
    temperature: float = 0.8
    top_p: float = 1.0
    seed: int = 0
    documents: int = 16  # held-out ones, for the loss on other texts; 0: not measured
    control: bool = True  # the same beside it with random features, directions, neurons

    def __post_init__(self) -> None:
        SIZE.check(self.n, "continuations")
        COUNT.check(self.max_new_tokens, "new tokens")
        TEMPERATURE.check(self.temperature, "temperature")
        TOP_P.check(self.top_p, "top-p")
        SEED.check(self.seed, "the seed")
        AMOUNT.check(self.documents, "documents")


@dataclass(frozen=True)
class Rating:
    """A chat model that rates the texts too: see `ratings`. Its key is in the environment."""

    endpoint: str  # e.g. http://localhost:8000/v1
    model: str
    concept: str = ""  # what the texts should be about; none: the label's name
    parallel: int = 8  # questions at once
    timeout_s: float = 60.0

    def __post_init__(self) -> None:
        check_endpoint(self.endpoint)
        if not self.model.strip():
            raise UserError("the judge needs the name of its model", hint="--judge-model NAME")
        COUNT.check(self.parallel, "questions at once")
        FACTOR.check(self.timeout_s, "the judge's time limit")


@dataclass(frozen=True)
class SweepConfig:
    """Measuring one stack, or every combination of the changes given to it.

    `strengths` multiply the amounts of the stack; `operations` and `schedules` replace its own.
    `plausible` and `kl_budgets` are tried one by one, 0 meaning without.
    """

    sae_id: str
    interventions: tuple[dict[str, Any], ...]
    strengths: tuple[float, ...] = ()
    operations: tuple[str, ...] = ()
    schedules: tuple[str, ...] = ()
    plausible: tuple[float, ...] = ()
    kl_budgets: tuple[float, ...] = ()
    most_ratio: float = 1.5  # of perplexities: what the best may cost
    judging: Judging = field(default_factory=Judging)
    trial: Trial = field(default_factory=Trial)
    rating: Rating | None = None
    device: str = "auto"
    name: str | None = None

    def __post_init__(self) -> None:
        if not self.interventions:
            raise UserError("no intervention given", hint="e.g. --feature '42=floor 0.3norm'")
        self.stack()
        for strength in self.strengths:
            FACTOR.check(strength, "a strength")
        for operation in self.operations:
            if operation not in OPERATIONS:
                raise UserError(
                    f"operation {operation!r} has no amount", hint=f"use {', '.join(OPERATIONS)}"
                )
        for schedule in self.schedules:
            parse_schedule(schedule)
        for share in self.plausible:
            SHARE.check(share, "the plausible share")
        for budget in self.kl_budgets:
            if budget:
                FACTOR.check(budget, "the KL budget")
        FACTOR.check(self.most_ratio, "the greatest ratio of perplexities")

    def stack(self) -> tuple[Intervention, ...]:
        """The interventions as objects. Raises UserError for one that is not valid."""
        return tuple(Intervention.from_json(one) for one in self.interventions)


@dataclass(frozen=True)
class AutoConfig:
    """Finding a stack that makes a feature, a label or what a description says happen in text."""

    sae_id: str
    feature: int | None = None
    label: str | None = None
    label_free: bool = False  # a label only chooses the feature; judged by what that is about
    description: str | None = None  # in words: the features are found by it
    recipes: tuple[str, ...] = ()  # none: all
    most_ratio: float = 1.5
    tries: int = 5  # strengths tried for each recipe
    development: int = 32  # continuations for each try
    pattern: str | None = None  # judge by a regular expression
    trial: Trial = field(default_factory=Trial)
    rating: Rating | None = None  # of what is reported; the search goes by words
    preset: str | None = None  # save the winner under this name
    device: str = "auto"
    name: str | None = None

    def __post_init__(self) -> None:
        aims = (self.feature, self.label, self.description)
        if sum(one is not None for one in aims) != 1:
            raise UserError(
                "give one of a feature, a label and a description",
                hint="e.g. --feature 42, --label music or --about 'ships and the sea'",
            )
        if self.description is not None and not self.description.strip():
            raise UserError("the description is empty", hint="say in words what should happen")
        if self.label_free and self.label is None:
            raise UserError("label-free needs a label", hint="e.g. --label music --label-free")
        FEATURE.check(self.feature, "the feature")
        SIZE.check(self.development, "continuations for each try")
        COUNT.check(self.tries, "tries")
        FACTOR.check(self.most_ratio, "the greatest ratio of perplexities")
        if self.most_ratio <= 1:
            raise UserError(
                f"a ratio of perplexities of at most {self.most_ratio:g} leaves no room to steer",
                hint="allow more than 1, e.g. 1.5",
            )

    @property
    def judging(self) -> Judging:
        if self.pattern is not None:
            return Judging(pattern=self.pattern)
        label = None if self.label_free else self.label
        return Judging(label=label, feature=self.feature, description=self.description)


@dataclass(frozen=True)
class ScoresConfig:
    """Scoring how strongly every feature of an SAE steers."""

    sae_id: str
    strength: float = 0.5  # norms of the token
    prompts: tuple[str, ...] = ()  # neutral ones; none: the commonest openings of the texts
    batch_size: int = 64  # features
    device: str = "auto"

    def __post_init__(self) -> None:
        FACTOR.check(self.strength, "the strength")
        SIZE.check(self.batch_size, "batch size")
        if not all(prompt.strip() for prompt in self.prompts):
            raise UserError("a prompt is empty", hint="give a few neutral words")
