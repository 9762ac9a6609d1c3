"""The configuration of a feature index; plain data, torch-free."""

import importlib.util
from dataclasses import dataclass
from typing import ClassVar

from mi_crow.bounds import AMOUNT, SEED, SIZE, Limits, Words, check_fields
from mi_crow.errors import UserError
from mi_crow.language_model.config import LiveTexts
from mi_crow.mechanistic.sae.config import PRECISIONS

MAPS = ("pca", "umap")
# What an index job does, in the order in which its log says it.
OF_WEIGHTS = "directions, neighbours and logits"
READING = "reading activations"
COUNTING = "statistics and examples"
NAMING = "naming the features"
INDEXING = (OF_WEIGHTS, READING, COUNTING, NAMING)


@dataclass(frozen=True)
class IndexConfig:
    """One index: which SAE over which run or texts, and how much is kept per feature."""

    sae_id: str
    run_id: str | None = None  # None: the run the SAE was trained on
    live: LiveTexts | None = None  # instead of a run
    append: bool = False
    top_examples: int = 20
    bands: int = 4  # quantile bands below the top
    band_examples: int = 5
    window: int = 32  # tokens either side of an example
    top_logits: int = 20
    neighbours: int = 10
    coactivations: int = 10
    map: str = "pca"
    names: bool = True  # propose a name for every feature
    batch_size: int | None = None  # tokens encoded at once; None: what suits the device
    precision: str = "auto"  # of the encoder's product; the choice of latents stays in fp32
    seed: int = 0
    device: str = "auto"
    tuned_run: str | None = None  # of a crosscoder of two models; `run_id` is the base model's

    LIMITS: ClassVar[Limits] = {
        "top_examples": ("top examples", SIZE),
        "window": ("the window", AMOUNT),
        "batch_size": ("the batch size", SIZE),
        "precision": ("precision", Words(PRECISIONS)),
        "seed": ("the seed", SEED),
    }

    def __post_init__(self) -> None:
        check_fields(self)
        if self.map not in MAPS:
            raise UserError(f"map {self.map!r} is not known", hint=f"use {' or '.join(MAPS)}")
        if self.live is not None and self.run_id is not None:
            raise UserError("a run and texts were both given", hint="leave out --run or --dataset")
        if self.live is not None and self.tuned_run is not None:
            raise UserError(
                "a run of the tuned model and texts were both given",
                hint="leave out --tuned-run or --dataset",
            )


def check_umap() -> None:
    """Raises UserError when umap-learn is not installed."""
    if importlib.util.find_spec("umap") is None:
        raise UserError(
            "--map umap needs the package umap-learn",
            hint="install it with the extra `map` (mi-crow-tui[map]), or use --map pca",
        )
