"""What training and evaluation need to know; plain data, torch-free."""

from dataclasses import dataclass

from mi_crow.errors import UserError

ARCHITECTURES = ("topk",)


@dataclass(frozen=True)
class SaeTrainingConfig:
    """The trainer's settings. At most one of `steps` and `epochs` decides the length; without
    either it is one pass over the tokens, and at least 2,000 steps.

    Defaults are the recipe of the field: Adam, lr = 2e-4 / sqrt(n_latents / 2^14), warm-up,
    linear decay over the last fifth, AuxK.
    """

    steps: int | None = None
    epochs: int | None = None
    batch_size: int = 2048  # tokens a step
    lr: float | None = None  # None: 2e-4 / sqrt(n_latents / 2^14), up to 5x for short runs
    warmup_steps: int | None = None  # None: min(1,000, a tenth of the run)
    decay_share: float = 0.2
    aux_alpha: float = 1 / 32
    k_aux: int | None = None  # None: n_inputs / 2
    dead_tokens: int | None = None  # tokens without firing; None: min(10M, a fifth of the run)
    l1_lambda: float = 0.0  # for the L1 architecture
    outlier_factor: float | None = 10.0  # leave out tokens above this times the median norm
    checkpoint_every: int = 500  # steps
    log_every: int = 10  # steps
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps is not None and self.epochs is not None:
            raise UserError("steps and epochs were both given", hint="give one of them")
        for what, value in (("steps", self.steps), ("epochs", self.epochs)):
            if value is not None and value < 1:
                raise UserError(f"{what} must be at least 1, not {value}")
        if self.batch_size < 1:
            raise UserError(f"batch size must be at least 1, not {self.batch_size}")


@dataclass(frozen=True)
class TrainConfig:
    """One training job: which activations, which SAE, how long."""

    run_id: str
    layer: str
    arch: str = "topk"
    expansion: float = 8.0  # n_latents / n_inputs, used when n_latents is None
    n_latents: int | None = None
    k: int = 32
    training: SaeTrainingConfig = SaeTrainingConfig()
    device: str = "auto"
    name: str | None = None

    def __post_init__(self) -> None:
        if self.arch not in ARCHITECTURES:
            raise UserError(
                f"architecture {self.arch!r} is not known", hint=f"use {', '.join(ARCHITECTURES)}"
            )
        if self.k < 1:
            raise UserError(f"k must be at least 1, not {self.k}")
        if self.n_latents is not None and self.k > self.n_latents:
            raise UserError(
                f"k = {self.k} is more than n_latents = {self.n_latents}",
                hint="lower --k or raise --n-latents",
            )


@dataclass(frozen=True)
class EvaluateConfig:
    """One evaluation: reconstruction on held-out stored tokens, loss on held-out documents."""

    sae_id: str
    run_id: str | None = None  # None: the run the SAE was trained on
    documents: int = 128  # held-out documents for cross-entropy and KL
    device: str = "auto"
    model: str | None = None  # None: the model the run was captured from
    seed: int = 0
