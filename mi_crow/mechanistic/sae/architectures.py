"""The architectures: which class each one is, its names, and the settings it takes. Torch-free."""

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mi_crow.mechanistic.sae.base import SparseAutoencoder

RULES = "mi_crow.mechanistic.sae.rules"
# Sparsity penalties: of the latents that fire, see rules/jumprelu.py.
STEP, TANH = "step", "tanh"
PENALTIES = (STEP, TANH)


@dataclass(frozen=True)
class Architecture:
    """One row of the table."""

    name: str  # the class's `architecture`
    module: str  # of `rules`
    sae: str  # the class in it, imported on demand
    arch: str | None  # its name in a training job; None: it can only be read
    takes: tuple[str, ...] = ()  # fields of TrainConfig that the constructor takes by this name
    saelens: str = ""  # SAELens's name; empty: `name`
    in_saelens: bool = True  # otherwise only we can read what is stored under that name
    steers_sparsity: bool = False  # as the class says: it aims for an L0 instead of having k
    penalties: tuple[str, ...] = (STEP,)  # as the class says: those that it can be trained with

    @property
    def transcodes(self) -> bool:
        return self.name.endswith("transcoder")

    @property
    def saelens_name(self) -> str:
        return self.saelens or self.name

    @property
    def saelens_names(self) -> tuple[str, ...]:
        """Its names in SAELens files: a transcoder has another one with a skip connection."""
        name = self.saelens_name
        return (name, with_skip(name)) if self.transcodes else (name,)

    def load(self) -> "type[SparseAutoencoder]":
        """The class."""
        return getattr(import_module(f"{RULES}.{self.module}"), self.sae)


def with_skip(saelens_name: str) -> str:
    """SAELens's name of a transcoder that has a skip connection."""
    return saelens_name.replace("transcoder", "skip_transcoder")


TABLE = (
    Architecture("topk", "topk", "TopKSae", "topk", ("k",)),
    Architecture("batchtopk", "batchtopk", "BatchTopKSae", "batchtopk", ("k",)),
    Architecture(
        "matryoshka", "matryoshka", "MatryoshkaSae", "matryoshka", ("k",), "matryoshka_batchtopk"
    ),
    Architecture(
        "jumprelu",
        "jumprelu",
        "JumpReluSae",
        "jumprelu",
        steers_sparsity=True,
        penalties=PENALTIES,
    ),
    Architecture("standard", "l1", "L1Sae", "l1", steers_sparsity=True),
    Architecture("gated", "gated", "GatedSae", "gated", steers_sparsity=True),
    Architecture(
        "topk_transcoder",
        "transcoder",
        "Transcoder",
        "transcoder",
        ("k", "skip"),
        in_saelens=False,
    ),
    Architecture(
        "transcoder",
        "transcoder",
        "ReluTranscoder",
        "transcoder-l1",
        ("skip",),
        steers_sparsity=True,
    ),
    Architecture(
        "jumprelu_transcoder",
        "transcoder",
        "JumpReluTranscoder",
        "transcoder-jumprelu",
        ("skip",),
        steers_sparsity=True,
        penalties=PENALTIES,
    ),
    Architecture("abstopk", "abstopk", "AbsTopKSae", None, ("k",)),
    Architecture("matching_pursuit", "matching_pursuit", "MatchingPursuitSae", None),
    Architecture("groupmax", "groupmax", "GroupMaxSae", None, ("k",), in_saelens=False),
    Architecture(
        "groupmax_transcoder",
        "groupmax",
        "GroupMaxTranscoder",
        None,
        ("k", "skip"),
        in_saelens=False,
    ),
)
BY_NAME = {row.name: row for row in TABLE}
BY_ARCH = {row.arch: row for row in TABLE if row.arch is not None}
BY_SAELENS_NAME = {name: row for row in TABLE for name in row.saelens_names}
