"""Generation as the Steer screen sees it: one plan, and a thread that reports as text comes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from textual.message import Message

from mi_crow.errors import UserError
from mi_crow.mechanistic.steering.interventions import Intervention
from tui.screens.steer.constraint import NO_CONSTRAINT, Constraint

if TYPE_CHECKING:
    from mi_crow.mechanistic.sae.weights_hash import WeightsFile
    from mi_crow.session.client import SessionClient


@dataclass(frozen=True)
class Settings:
    """Sampling settings."""

    max_new_tokens: int = 64
    temperature: float = 0.8
    seed: int = 0
    constraint: Constraint = NO_CONSTRAINT


@dataclass(frozen=True)
class Plan:
    """What to write: the prompt under each stack, the first one beside its baseline."""

    prompt: str
    stacks: tuple[tuple[Intervention, ...], ...]
    titles: tuple[str, ...]  # one per stack; empty for a single one
    settings: Settings
    sae_id: str | None = None  # whose features the stacks change


@dataclass(frozen=True)
class Origin:
    """What wrote a text."""

    model_id: str = ""
    revision: str | None = None
    device: str = ""
    sae_id: str | None = None
    weights: "WeightsFile | None" = None  # of the SAE, as it was loaded


@dataclass
class PassageStarted(Message):
    """The model starts to write under stack number `place`."""

    place: int
    title: str


@dataclass
class TextArrived(Message):
    """More text on one side."""

    side: str  # baseline | steered
    text: str


@dataclass
class PassageDone(Message):
    """Both texts of one stack are whole, unless `stopped`."""

    place: int
    baseline: str
    steered: str
    metrics: Mapping[str, Any] = field(default_factory=dict)
    stopped: bool = False
    prompt_tokens: int = 0  # as the model read it, BOS included; 0 where it did not say
    bos_added: bool = False
    origin: Origin = field(default_factory=Origin)
    shortened_to: int | None = None  # new tokens, where the model's context ended a text


def read_settings(
    tokens: str, temperature: str, seed: str, constraint: Constraint = NO_CONSTRAINT
) -> Settings:
    """The settings from the texts of their fields. Raises UserError."""
    try:
        settings = Settings(int(tokens), float(temperature), int(seed), constraint)
    except ValueError as error:
        raise UserError("tokens and seed are whole numbers, the temperature is a number") from error
    if not 1 <= settings.max_new_tokens <= 4096:
        raise UserError("tokens must be between 1 and 4096")
    if not 0 <= settings.temperature <= 10:
        raise UserError("the temperature must be between 0 and 10")
    return settings


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
        post(PassageStarted(place, plan.titles[place] if plan.titles else ""))
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
    events = client.request(
        "generate",
        prompt=plan.prompt,
        interventions=[one.as_json(within=plan.sae_id) for one in stack],
        sae_id=plan.sae_id,
        max_new_tokens=plan.settings.max_new_tokens,
        temperature=plan.settings.temperature,
        top_p=1.0,
        seed=plan.settings.seed,
        baseline=place == 0,
        **plan.settings.constraint.as_params(),
    )
    result: Mapping[str, Any] = {}
    for event in events:
        if event["event"] == "token":
            post(TextArrived(str(event["side"]), str(event["text"])))
        elif event["event"] == "result":
            result = event
    length = result.get("shortened_to")
    return PassageDone(
        place,
        str(result.get("baseline") or ""),
        str(result.get("steered") or ""),
        dict(result.get("metrics") or {}),
        bool(result.get("stopped")),
        int(result.get("prompt_tokens") or 0),
        bool(result.get("bos_added")),
        shortened_to=length if isinstance(length, int) else None,
    )
