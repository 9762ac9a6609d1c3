"""The configuration of the names of an SAE's features; plain data."""

from dataclasses import dataclass

from mi_crow.bounds import SEED


@dataclass(frozen=True)
class ExplainConfig:
    """Which SAE's features are named; `seed` parts the documents and draws the other tokens."""

    sae_id: str
    seed: int = 0

    def __post_init__(self) -> None:
        SEED.check(self.seed, "the seed")
