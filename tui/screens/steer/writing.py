"""Generation as the Steer screen sees it: one plan, and a thread that reports as text comes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import TYPE_CHECKING, Any

from textual.message import Message

from mi_crow.bounds import SEED, Bounds
from mi_crow.mechanistic.concepts.annotations_saved import renamed_target
from mi_crow.mechanistic.steering.chat.branches import Branches
from mi_crow.mechanistic.steering.interventions import Intervention
from tui.messages import ModelAlone
from tui.screens.steer.constraint import NO_CONSTRAINT, Constraint
from tui.screens.steer.stack import of_renamed

if TYPE_CHECKING:
    from mi_crow.mechanistic.sae.weights_hash import WeightsFile
    from mi_crow.session.client import SessionClient

MOST_SAMPLES = 64
_TOKENS, _TEMPERATURE = Bounds(1, 4096, whole=True), Bounds(0, 10)
_SAMPLES = Bounds(1, MOST_SAMPLES, whole=True)


@dataclass(frozen=True)
class SamplingSettings:
    """Sampling settings."""

    max_new_tokens: int = 64
    temperature: float = 0.8
    seed: int = 0
    constraint: Constraint = NO_CONSTRAINT
    samples: int = 1


@dataclass(frozen=True)
class SideText:
    """One text, and what was read in it (see `readings.read_generation`)."""

    text: str = ""
    tokens: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()  # whose activations were read in it
    acts: tuple[tuple[float, ...], ...] = ()  # of each target on each token, in the plain model
    perplexity: float | None = None
    kl: float | None = None
    distinct_2: float | None = None
    # Of the steered text, for features of the open SAE: the factor of a feedback on each token,
    # empty without one, and the mean log-probability of the tokens that the feature promotes,
    # plain and steered.
    factor: tuple[tuple[float, ...], ...] = ()
    promoted: tuple[tuple[float, float], ...] = ()

    @classmethod
    def of(cls, data: Any, targets: tuple[str, ...] = ()) -> "SideText":
        """From the session's answer; what it does not say stays empty."""
        if not isinstance(data, Mapping):
            return cls()
        figures = {
            name: float(data[name])
            for name in ("perplexity", "kl", "distinct_2")
            if isinstance(data.get(name), int | float)
        }
        return cls(
            str(data.get("text") or ""),
            tuple(map(str, data.get("tokens") or ())),
            targets,
            tuple(tuple(map(float, acts)) for acts in data.get("acts") or ()),
            **figures,
            factor=tuple(tuple(map(float, one or ())) for one in data.get("factor") or ()),
            promoted=_promoted(data.get("promoted_log_p")),
        )

    def of_renamed(self, old: str, new: str) -> "SideText":
        """The same with targets of the SAE `old` under its new id."""
        return replace(self, targets=tuple(renamed_target(one, old, new) for one in self.targets))


def _promoted(log_p: Any) -> tuple[tuple[float, float], ...]:
    """Of each target the means over its promoted tokens, plain and steered."""
    if not isinstance(log_p, Mapping):
        return ()
    sides = (log_p.get("plain") or (), log_p.get("steered") or ())
    return tuple((fmean(a), fmean(b)) for a, b in zip(*sides, strict=False) if a and b)


@dataclass(frozen=True)
class Sample:
    """Both texts that the same random numbers gave."""

    baseline: SideText = SideText()
    steered: SideText = SideText()

    def side(self, name: str) -> SideText:
        return self.baseline if name == "baseline" else self.steered

    def of_renamed(self, old: str, new: str) -> "Sample":
        return Sample(self.baseline.of_renamed(old, new), self.steered.of_renamed(old, new))


@dataclass(frozen=True)
class Plan:
    """What to write: the prompt under each stack, the first one beside its baseline."""

    prompt: str
    stacks: tuple[tuple[Intervention, ...], ...]
    titles: tuple[str, ...]  # one per stack; empty for a single one
    settings: SamplingSettings
    sae_id: str | None = None  # whose features the stacks change
    run: int = 0  # tells what belongs to an earlier plan
    kept: tuple[SideText, ...] = ()  # baselines that were written already
    alone: ModelAlone | None = None  # the model, where no SAE takes part
    chat: Branches | None = None  # a conversation that ends with the prompt as its last question
    read_for: frozenset[str] = frozenset()  # the targets that were read in baselines of before

    def same_baseline(self, other: "Plan | None") -> bool:
        """Whether the other plan has the same baselines, in which the targets of this one were
        read."""
        if other is None or not self.targets <= (other.read_for or other.targets):
            return False
        return self._asked_of_baseline == other._asked_of_baseline

    def of_renamed(self, old: str, new: str) -> "Plan":
        """The same with the SAE `old` under its new id."""
        return replace(
            self,
            stacks=tuple(tuple(of_renamed(stack, old, new)) for stack in self.stacks),
            sae_id=new if self.sae_id == old else self.sae_id,
            kept=tuple(one.of_renamed(old, new) for one in self.kept),
            read_for=frozenset(renamed_target(one, old, new) for one in self.read_for),
        )

    @property
    def targets(self) -> frozenset[str]:
        """What is read in the texts."""
        acting = (one for one in self.stacks[0] if one.enabled and one.layer is None)
        return frozenset(one.target for one in acting)

    @property
    def _asked_of_baseline(self) -> tuple[object, ...]:
        plain = replace(self.settings, constraint=NO_CONSTRAINT)
        heard = None if self.chat is None else self.chat.baseline
        return self.prompt, heard, self.sae_id, self.alone, plain


@dataclass(frozen=True)
class Origin:
    """What wrote a text."""

    model_id: str = ""
    revision: str | None = None
    device: str = ""
    sae_id: str | None = None
    weights: "WeightsFile | None" = None  # of the SAE, as it was loaded

    def of_renamed(self, old: str, new: str) -> "Origin":
        """The same where the SAE `old` has a new id, and its folder with it."""
        if self.sae_id != old:
            return self
        weights = self.weights
        if weights is not None:
            folder = weights.path.parent.with_name(new)
            weights = replace(weights, path=folder / weights.path.name)
        return replace(self, sae_id=new, weights=weights)


@dataclass
class PassageStarted(Message):
    """The model starts to write under stack number `place`."""

    place: int
    run: int = 0


@dataclass
class TextArrived(Message):
    """More text of one sample on one side, under stack number `place`."""

    place: int
    side: str  # baseline | steered
    sample: int
    text: str
    run: int = 0


@dataclass
class PassageDone(Message):
    """All texts of one stack are whole, unless `stopped`. `baseline` and `steered` are those of the
    first sample."""

    place: int
    baseline: str
    steered: str
    metrics: Mapping[str, Any] = field(default_factory=dict)
    stopped: bool = False
    prompt_tokens: int = 0  # as the model read it, BOS included; 0 where it did not say
    bos_added: bool = False
    origin: Origin = field(default_factory=Origin)
    shortened_to: int | None = None  # new tokens, where the model's context ended a text
    samples: tuple[Sample, ...] = ()
    run: int = 0

    def rename_sae(self, old: str, new: str) -> None:
        self.origin = self.origin.of_renamed(old, new)
        self.samples = tuple(one.of_renamed(old, new) for one in self.samples)


def read_settings(
    tokens: str,
    temperature: str,
    seed: str,
    samples: str = "1",
    constraint: Constraint = NO_CONSTRAINT,
) -> SamplingSettings:
    """The settings from the texts of their fields. Raises UserError naming one."""
    return SamplingSettings(
        _TOKENS.read(tokens, "tokens"),
        _TEMPERATURE.read(temperature, "the temperature"),
        SEED.read(seed, "the seed"),
        constraint,
        _SAMPLES.read(samples or "1", "n"),
    )


def write(
    client: "SessionClient",
    plan: Plan,
    origin: Origin,
    post: Callable[[Message], object],
    stopped: Callable[[], bool],
) -> None:
    """Carries out the plan; blocks, so it runs in a thread.

    Raises what the session raises: CancelledError where it was stopped between two texts.
    """
    for place, stack in enumerate(plan.stacks):
        if stopped():
            break
        post(PassageStarted(place, plan.run))
        done = _passage(client, plan, place, stack, post)
        done.origin = origin
        post(done)
        if done.stopped:
            break


def _passage(
    client: "SessionClient",
    plan: Plan,
    place: int,
    stack: Sequence[Intervention],
    post: Callable[[Message], object],
) -> PassageDone:
    said = {"prompt": plan.prompt} if plan.chat is None else {"messages": plan.chat.as_json()}
    events = client.request(
        "generate",
        **said,
        interventions=[one.as_json(within=plan.sae_id) for one in stack],
        sae_id=plan.sae_id,
        max_new_tokens=plan.settings.max_new_tokens,
        temperature=plan.settings.temperature,
        top_p=1.0,
        seed=plan.settings.seed,
        baseline=place == 0 and not plan.kept,
        n=plan.settings.samples,
        **plan.settings.constraint.as_params(),
    )
    result: Mapping[str, Any] = {}
    for event in events:
        if event["event"] == "token":
            side, sample = str(event["side"]), int(event.get("sample") or 0)
            post(TextArrived(place, side, sample, str(event["text"]), plan.run))
        elif event["event"] == "result":
            result = event
    length = result.get("shortened_to")
    samples = _samples(result, plan.kept if place == 0 else ())
    return PassageDone(
        place,
        samples[0].baseline.text,
        samples[0].steered.text,
        dict(result.get("metrics") or {}),
        bool(result.get("stopped")),
        int(result.get("prompt_tokens") or 0),
        bool(result.get("bos_added")),
        shortened_to=length if isinstance(length, int) else None,
        samples=samples,
        run=plan.run,
    )


def _samples(result: Mapping[str, Any], kept: Sequence[SideText]) -> tuple[Sample, ...]:
    whole = {side: {"text": result.get(side)} for side in ("baseline", "steered")}
    targets = tuple(map(str, result.get("targets") or ()))
    found = [
        Sample(*(SideText.of(one.get(side), targets) for side in ("baseline", "steered")))
        for one in result.get("samples") or (whole,)
    ]
    if kept:
        found = [
            replace(one, baseline=kept[number] if number < len(kept) else one.baseline)
            for number, one in enumerate(found)
        ]
    return tuple(found)
