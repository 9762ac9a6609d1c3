"""The configuration of explanations by a chat model; plain data."""

from dataclasses import dataclass
from typing import ClassVar

from mi_crow.bounds import COUNT, SEED, SIZE, Limits, check_fields
from mi_crow.errors import UserError

LOCAL = "local:"
MOST_PARALLEL = 64


@dataclass(frozen=True)
class ExplanationsConfig:
    """Which features of an SAE are explained, by whom, and whether that is scored.

    explainer: the address of an OpenAI-compatible endpoint, or `local:MODEL` for a chat model of
        the hub or a folder, which then runs in the job itself.
    model: its name at the endpoint.
    where: a query (see `query_language`); of what it finds, the first `most` are explained.
    scores: whether detection and fuzzing are asked for as well.
    parallel: how many questions are on their way at once; per_minute: how many start in a minute.
    """

    sae_id: str
    explainer: str
    model: str = ""
    where: str = ""
    most: int = 100
    scores: bool = True
    parallel: int = 4
    per_minute: int | None = None
    seed: int = 0
    device: str = "auto"

    LIMITS: ClassVar[Limits] = {
        "most": ("the number of features", COUNT),
        "per_minute": ("the requests a minute", SIZE),
        "seed": ("the seed", SEED),
    }

    def __post_init__(self) -> None:
        check_fields(self)
        if not 1 <= self.parallel <= MOST_PARALLEL:
            raise UserError(f"the requests at once must be 1 to {MOST_PARALLEL}")

    @property
    def is_local(self) -> bool:
        return self.explainer.startswith(LOCAL)

    @property
    def named(self) -> str:
        """Who explains, in a word or two."""
        return self.explainer.removeprefix(LOCAL) if self.is_local else self.model
