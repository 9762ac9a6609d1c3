"""Settings of an evaluation: plain data, torch-free."""

from dataclasses import dataclass
from typing import ClassVar

from mi_crow.bounds import COUNT, SEED, SIZE, Limits, Words, check_fields
from mi_crow.errors import UserError
from mi_crow.language_model.config import LiveTexts
from mi_crow.mechanistic.sae.config import PRECISIONS
from mi_crow.progress import LOADING

# What an evaluation does, in the order in which its log says it.
RECONSTRUCTION = "measuring the reconstruction"
LOSS = "measuring the model's loss"
PROBES = "fitting probes"
EVALUATING = (LOADING, RECONSTRUCTION, LOSS, PROBES)


@dataclass(frozen=True)
class EvaluateConfig:
    """One evaluation: reconstruction on held-out tokens, loss on held-out documents."""

    sae_id: str
    run_id: str | None = None  # None: the run the SAE was trained on
    live: LiveTexts | None = None  # instead of a run
    documents: int = 128  # held-out documents for cross-entropy and KL
    batch_size: int | None = None  # documents at once; None: what suits the device
    device: str = "auto"
    model: str | None = None  # None: the model the run was captured from
    seed: int = 0
    tuned_run: str | None = None  # of a crosscoder of two models; `run_id` is the base model's
    precision: str = "auto"  # of the encoder's product; the choice of latents stays in fp32

    LIMITS: ClassVar[Limits] = {
        "documents": ("documents", COUNT),
        "batch_size": ("the batch size", SIZE),
        "seed": ("the seed", SEED),
        "precision": ("precision", Words(PRECISIONS)),
    }

    def __post_init__(self) -> None:
        check_fields(self)
        if self.live is None:
            return
        for flag, given in (("run", self.run_id), ("tuned-run", self.tuned_run)):
            if given is not None:
                raise UserError(
                    "a run and texts were both given", hint=f"leave out --{flag} or --dataset"
                )
        if self.model is not None:
            raise UserError("two models were given", hint="name the one that reads the texts")
