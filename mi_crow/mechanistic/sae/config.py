"""Settings of training: plain data, torch-free."""

import math
from dataclasses import InitVar, dataclass, replace
from itertools import product
from typing import Any, ClassVar

from mi_crow.bounds import (
    AMOUNT,
    COUNT,
    EXPANSION,
    FACTOR,
    LATENTS,
    NOT_NEGATIVE,
    SEED,
    SHARE,
    SIZE,
    Limits,
    Words,
    check_fields,
)
from mi_crow.datasets.splits import TRAINED_SHARE
from mi_crow.errors import UserError
from mi_crow.language_model.config import CaptureConfig
from mi_crow.mechanistic.sae.architectures import BY_ARCH, PENALTIES, STEP, Architecture
from mi_crow.mechanistic.sae.cross_layer.tuned_model import check_two_models
from mi_crow.mechanistic.sae.parallel.settings import GRADIENTS, check_shares

ARCHITECTURES = tuple(BY_ARCH)
TRANSCODERS = tuple(arch for arch, row in BY_ARCH.items() if row.transcodes)
# The SAEs that aim for an L0, with transcoders of the same rules.
AIM_FOR_L0 = tuple(a for a, row in BY_ARCH.items() if row.steers_sparsity and not row.transcodes)
AIM_FOR_L0_IN_WORDS = f"{', '.join(AIM_FOR_L0[:-1])} and {AIM_FOR_L0[-1]}"
PRECISIONS = ("auto", "fp32", "bf16")
# What is trained: an SAE of a layer, or one of several layers, see train/across.
SAE, CROSSCODER, CLT = "sae", "crosscoder", "clt"
FAMILIES = (SAE, CROSSCODER, CLT)
ACROSS_ARCHITECTURES: dict[str, tuple[str, ...]] = {
    CROSSCODER: ("batchtopk", "topk"),
    CLT: ("batchtopk",),
}
# What an SAE that exists already is trained further for: its model's predictions, see finetune/.
NONE, KL = "none", "kl"
FINETUNES = (NONE, KL)
FINETUNE_STEPS = 100
ON_HELDOUT = "measuring on held-out tokens"  # what a training does after its last step
# Where metrics are logged besides our own files, see train/loggers.py.
LOGGERS = ("none", "tensorboard", "wandb")

# The default length of a training. The library follows the published guides: one pass. The command
# line and the form are for a first look at a run, which takes minutes rather than an hour: two
# passes over a small run, or this many steps; a stream has no passes.
MIN_STEPS = 2000
CLI_PASSES, CLI_MIN_STEPS, CLI_STREAM_STEPS = 2, 400, 5000
_LR_CEILING = 4e-3
FULL_LENGTH = 50_000  # steps from which the field's rule holds as it is


def default_lr(n_latents: int, steps: int) -> float:
    """2e-4 / sqrt(M / 2^14), the field's rule, raised for runs of less than 50,000 steps.

    A short run has to move further a step. Five times the rule brought the held-out FVU of
    SmolLM2-135M (M = 4,608, batches of 1,024) from 0.25 to 0.15 after 300 steps and to 0.13 after
    1,000, with at most 0.2% dead latents; ten times left 4% dead, twenty times 37%. Few latents
    stay below a fixed ceiling.
    """
    rule = 2e-4 / math.sqrt(n_latents / 2**14)
    raised = rule * min(5.0, max(1.0, math.sqrt(FULL_LENGTH / steps)))
    return max(rule, min(raised, _LR_CEILING))


def default_steps(tokens: int, batch_size: int) -> int:
    """The steps that the command line and the form take for a run of this many tokens: of these
    the part that is not held out is passed over."""
    return max(CLI_MIN_STEPS, math.ceil(CLI_PASSES * TRAINED_SHARE * tokens / batch_size))


@dataclass(frozen=True)
class SaeTrainingConfig:
    """The trainer's settings. At most one of `steps`, `epochs` and `tokens` decides the length;
    without any it is one pass over the tokens, and at least MIN_STEPS (2,000).

    Defaults are the recipe of the field: Adam, lr = 2e-4 / sqrt(n_latents / 2^14), warm-up,
    linear decay over the last fifth, AuxK.
    """

    steps: int | None = None
    epochs: int | None = None
    tokens: int | None = None  # trained on; the same token counts each time it is seen
    batch_size: int = 2048  # tokens per step
    accumulate: int = 1  # micro-batches per step; more of them need less memory
    lr: float | None = None  # None: 2e-4 / sqrt(n_latents / 2^14), up to 5x for short runs
    warmup_steps: int | None = None  # None: min(1,000, a tenth of the run)
    decay_share: float = 0.2
    aux_alpha: float = 1 / 32
    k_aux: int | None = None  # None: n_inputs / 2
    dead_tokens: int | None = None  # tokens without firing; None: min(10M, a fifth of the run)
    # For L1, Gated and JumpReLU, whose sparsity is a loss with a coefficient: either the
    # coefficient, or the mean number of active latents per token to aim for (None: 32).
    l1_lambda: float | None = None
    target_l0: float | None = None
    sparsity_warmup_steps: int | None = None  # of the coefficient; None: the same as warmup_steps
    penalty: str = STEP  # on latents that fire; JumpReLU alone also has `tanh`
    orthogonality: float = 0.0  # coefficient of OrtSAE's loss, see train/decoder_geometry.py
    aligned: bool = False  # encoder and decoder rows keep an inner product of one
    whiten: bool = False  # train on whitened activations; folded back at the end
    shrinkage: float = 0.1  # of their covariance, see train/whitening.py
    outlier_factor: float | None = (
        10.0  # tokens above this multiple of the median norm are left out
    )
    precision: str = "auto"  # of the encoder's matrix product: bf16 on CUDA, fp32 elsewhere
    shuffled: bool = False  # a control: each dimension comes from another token, see ShuffledSource
    checkpoint_minutes: float = 10.0  # of training between checkpoints, which a thread writes
    checkpoint_every: int | None = None  # steps; also a checkpoint after this many
    log_every: int = 10  # steps
    seed: int = 0
    # Also log metrics to Weights & Biases, as in the published guides. Without its package the
    # training says so and continues. The package looks for its API key itself.
    use_wandb: bool = False
    wandb_project: str | None = None  # None: WANDB_PROJECT, else mi-crow
    wandb_entity: str | None = None
    wandb_name: str | None = None
    wandb_mode: str | None = None  # online, offline or disabled
    wandb_tags: tuple[str, ...] = ()
    # Published settings that are not needed here: accepted, so that code from the guides runs, and
    # ignored. The SAE has its device and dtype, precision chooses autocast, gradients are always
    # clipped, and memory is always bounded.
    device: InitVar[Any] = None
    dtype: InitVar[Any] = None
    use_amp: InitVar[Any] = None
    amp_dtype: InitVar[Any] = None
    clip_grad: InitVar[Any] = None
    grad_accum_steps: InitVar[Any] = None
    monitoring: InitVar[Any] = None
    verbose: InitVar[Any] = None
    memory_efficient: InitVar[Any] = None
    max_nan_fallbacks: InitVar[Any] = None
    wandb_slow_metrics_frequency: InitVar[Any] = None
    wandb_run_name: InitVar[Any] = None  # the guides' other name of wandb_name

    LIMITS: ClassVar[Limits] = {
        "lr": ("the learning rate", FACTOR),
        "outlier_factor": ("the outlier factor", FACTOR),
        "target_l0": ("the target for L0", FACTOR),
        "l1_lambda": ("the sparsity coefficient", NOT_NEGATIVE),
        "decay_share": ("the share of the decay", SHARE),
        "aux_alpha": ("the coefficient of AuxK", NOT_NEGATIVE),
        "seed": ("the seed", SEED),
        "steps": ("steps", COUNT),
        "epochs": ("epochs", COUNT),
        "tokens": ("tokens", COUNT),
        "batch_size": ("batch size", SIZE),
        "accumulate": ("accumulate", SIZE),
        "warmup_steps": ("warm-up steps", AMOUNT),
        "sparsity_warmup_steps": ("sparsity warm-up steps", AMOUNT),
        "k_aux": ("k_aux", AMOUNT),
        "dead_tokens": ("dead_tokens", AMOUNT),
        "checkpoint_minutes": ("the minutes between checkpoints", FACTOR),
        "checkpoint_every": ("checkpoint_every", COUNT),
        "log_every": ("log_every", COUNT),
        "precision": ("precision", Words(PRECISIONS)),
        "penalty": ("the penalty", Words(PENALTIES)),
        "shrinkage": ("the shrinkage", SHARE),
        "orthogonality": ("the coefficient of orthogonality", NOT_NEGATIVE),
    }

    def __post_init__(self, *published: Any) -> None:
        *_, run_name = published
        if run_name is not None and self.wandb_name is None:
            object.__setattr__(self, "wandb_name", run_name)
        lengths = {"steps": self.steps, "epochs": self.epochs, "tokens": self.tokens}
        given = [name for name, value in lengths.items() if value is not None]
        if len(given) > 1:
            raise UserError(f"{' and '.join(given)} were both given", hint="give one of them")
        if self.l1_lambda is not None and self.target_l0 is not None:
            raise UserError(
                "a coefficient and a target for L0 were both given", hint="give one of them"
            )
        check_fields(self)
        if self.accumulate > self.batch_size:
            raise UserError(
                f"a batch of {self.batch_size} cannot be split into {self.accumulate} pieces",
                hint="lower --accumulate",
            )


def check_recipe(training: SaeTrainingConfig, name: str, row: Architecture) -> None:
    """Raises UserError for options that an SAE of this architecture, by its `name`, lacks."""
    if training.penalty not in row.penalties:
        raise UserError(
            f"{name} has no {training.penalty} penalty", hint="use --arch jumprelu, or leave it out"
        )
    for flag, asked in (("--aligned", training.aligned), ("--whiten", training.whiten)):
        if asked and row.transcodes:
            raise UserError(
                f"{flag} is for SAEs, not for transcoders, which read and write different "
                "activations",
                hint="leave it out",
            )


@dataclass(frozen=True)
class TrainConfig:
    """One training job: which activations, which SAE, how long.

    With `stream` the activations come from the running model, whose layer and texts it names, and
    not from a run. `sweep_k` and `sweep_expansion` train one SAE for each combination while the
    data is read once.
    """

    run_id: str
    layer: str  # the first of `layers`, where there are several
    arch: str = "topk"
    expansion: float = 8.0  # n_latents / n_inputs, used when n_latents is None
    n_latents: int | None = None
    k: int = 32  # active latents per token; a target where a loss decides the sparsity
    sweep_k: tuple[int, ...] = ()  # instead of k
    sweep_expansion: tuple[float, ...] = ()  # instead of expansion
    target_layer: str | None = None  # what a transcoder predicts
    skip: bool = False  # a transcoder's skip connection
    stream: CaptureConfig | None = None
    init: str | None = None  # continue from this SAE: an id in the workspace or a path
    finetune: str = NONE  # with `init`: `kl` also matches the model's predictions
    training: SaeTrainingConfig = SaeTrainingConfig()
    shares: str = "tokens"  # or "latents": what several processes share out among them
    copies: int = 1  # of an SAE whose latents are shared; they share the tokens of each batch
    gradients: str = "fp32"  # or "bf16": what processes that share tokens send them in
    logger: str = "none"
    device: str = "auto"
    name: str | None = None
    family: str = SAE  # a crosscoder and a cross-layer transcoder are of several `layers`
    layers: tuple[str, ...] = ()  # without a family of their own: an SAE of each
    # Of a crosscoder of two models: the run of the one made from that of `run_id`, on its texts.
    tuned_run: str | None = None
    tuned_model: str | None = None  # the same on a stream, whose model is the base model
    tuned_revision: str | None = None

    LIMITS: ClassVar[Limits] = {
        "logger": ("logger", Words(LOGGERS)),
        "family": ("the family", Words(FAMILIES)),
        "finetune": ("the finetune", Words(FINETUNES)),
        "arch": ("architecture", Words(ARCHITECTURES)),
        "n_latents": ("n_latents", LATENTS),
        "copies": ("copies", SIZE),
        "gradients": ("gradients", Words(GRADIENTS)),
    }

    def __post_init__(self) -> None:
        check_fields(self)
        check_shares(self.shares, self.copies)
        if self.stream is not None:
            self._check_stream(self.stream)
        for expansion in (self.expansion, *self.sweep_expansion):
            EXPANSION.check(expansion, "the expansion")
        for k in (self.k, *self.sweep_k):
            LATENTS.check(k, "k")
            if self.n_latents is not None and k > self.n_latents * self.latent_sets:
                raise UserError(
                    f"k = {k} is more than n_latents = {self.n_latents}",
                    hint="lower --k or raise --n-latents",
                )
        if self.n_latents is not None and self.sweep_expansion:
            raise UserError("n_latents and several expansions were given", hint="give one of them")
        if self.arch in TRANSCODERS and self.target_layer is None and self.init is None:
            raise UserError(
                "a transcoder needs the layer that it should predict",
                hint="name it with --target-layer",
            )
        if self.arch not in TRANSCODERS and self.init is None:
            for what, value in (("--target-layer", self.target_layer), ("--skip", self.skip)):
                if value:
                    raise UserError(f"{what} is for transcoders", hint="use --arch transcoder")
        if self.init is None:
            check_recipe(self.training, self.arch, BY_ARCH[self.arch])
        elif self.sweep_k or self.sweep_expansion:
            raise UserError("a sweep cannot start from one SAE", hint="leave out --init")
        check_two_models(self, crosscoder=self.family == CROSSCODER)
        if self.finetune != NONE:
            self._check_finetune()
        if self.family != SAE:
            self._check_across()
        elif len(self.layers) > 1 and (self.sweep_k or self.sweep_expansion):
            raise UserError("a sweep is of one layer", hint="give one --layer, or one --k")

    def _check_across(self) -> None:
        what = {CROSSCODER: "a crosscoder", CLT: "a cross-layer transcoder"}[self.family]
        if len(self.layers) * self.n_models < 2:
            hint = "--layer takes several, with commas between"
            if self.family == CROSSCODER:
                hint += "; one layer is enough for a crosscoder of two models"
            raise UserError(f"{what} is of several layers", hint=hint)
        known = ACROSS_ARCHITECTURES[self.family]
        if self.arch not in known:
            raise UserError(
                f"{what} is not trained as {self.arch!r}", hint=f"use --arch {' or '.join(known)}"
            )
        refused = {
            "--init": self.init,
            "--target-layer": self.target_layer,
            "--skip": self.skip,
            "--shuffled": self.training.shuffled,
            "--orthogonality": self.training.orthogonality,
            "--aligned": self.training.aligned,
            "--whiten": self.training.whiten,
        }
        for flag, value in refused.items():
            if value:
                raise UserError(f"{what} takes no {flag}", hint="leave it out")
        if self.shares == "latents":
            raise UserError(
                f"the latents of {what} cannot be shared among processes", hint="share the tokens"
            )

    def _check_finetune(self) -> None:
        if self.init is None:
            raise UserError(
                "a finetune is of an SAE that there is already", hint="name it with --init"
            )
        refused = {
            "--stream": self.stream,
            "--shuffled": self.training.shuffled,
            "--whiten": self.training.whiten,
            "several --layer": len(self.layers) > 1,
            "--share latents": self.shares == "latents",
        }
        for flag, value in refused.items():
            if value:
                raise UserError(f"a finetune takes no {flag}", hint="leave it out")

    def _check_stream(self, stream: CaptureConfig) -> None:
        if self.training.steps is None and self.training.tokens is None:
            raise UserError("a stream never ends", hint="set the length with --steps or --tokens")
        if self.target_layer is not None:
            raise UserError("a transcoder cannot be trained on a stream", hint="capture a run")
        if stream.layers != (self.layers or (self.layer,)):
            raise UserError(
                "the stream reads other layers than the training", hint="name them with --layer"
            )

    def variants(self) -> list["TrainConfig"]:
        """One config per SAE of this job; without a sweep, only itself."""
        pairs = product(self.sweep_expansion or (self.expansion,), self.sweep_k or (self.k,))
        return [
            replace(self, expansion=expansion, k=k, sweep_k=(), sweep_expansion=())
            for expansion, k in pairs
        ]

    @property
    def n_models(self) -> int:
        """Two, where a base model and one made from it are read."""
        return 1 if self.tuned_run is None and self.tuned_model is None else 2

    @property
    def latent_sets(self) -> int:
        """How many times `n_latents` there are: of a cross-layer transcoder each layer has them."""
        return len(self.layers) if self.family == CLT else 1

    def of_each_layer(self) -> list["TrainConfig"]:
        """One config per layer of this job, which trains an SAE of each."""
        return [
            replace(
                self,
                layer=layer,
                layers=(),
                stream=None if self.stream is None else replace(self.stream, layers=(layer,)),
            )
            for layer in self.layers
        ]

    def label(self) -> str:
        """What distinguishes this variant from others of its sweep, for an id."""
        return f"x{self.expansion:g}-k{self.k}"
