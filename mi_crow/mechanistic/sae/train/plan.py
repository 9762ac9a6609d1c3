"""The numbers of one training run, decided before the first step."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from mi_crow.errors import CorruptDataError, UserError
from mi_crow.mechanistic.sae.architectures import BY_NAME
from mi_crow.mechanistic.sae.base import SparseAutoencoder
from mi_crow.mechanistic.sae.config import MIN_STEPS, SaeTrainingConfig, check_recipe, default_lr
from mi_crow.mechanistic.sae.source import HELDOUT, TRAIN, TokenSource, not_finite
from mi_crow.mechanistic.sae.train.whitening import Whitening
from mi_crow.same_fields import same_fields
from mi_crow.store.json_object import JsonRecord

# Default L0, active latents per token, that a sparsity loss is steered towards.
DEFAULT_L0 = 32.0
# Tokens that decide the input scale and the centre.
START_SAMPLE = 8192
CALIBRATION_SAMPLE = 2048
_ROWS_IN_DOUBLE = 1024
_MEASURED_EVERY = 500  # steps


@dataclass(frozen=True)
class TrainingPlan(JsonRecord):
    """All settings of the loop, with every default filled in."""

    steps: int
    batch_size: int
    lr: float
    warmup_steps: int
    decay_steps: int
    dead_tokens: int
    k_aux: int
    aux_alpha: float
    l1_lambda: float | None  # fixed coefficient of the sparsity loss; None: steered or none
    target_l0: float | None  # what the coefficient is steered towards; None: fixed or none
    sparsity_warmup_steps: int
    penalty: str
    orthogonality: float
    aligned: bool
    whiten: bool
    shrinkage: float
    outlier_norm: float | None  # in the input's own units
    accumulate: int
    precision: str  # "fp32" or "bf16"
    shuffled: bool
    checkpoint_every: int | None  # steps, besides those that the clock decides
    checkpoint_minutes: float
    log_every: int
    seed: int

    def lr_at(self, step: int) -> float:
        """Learning rate of step 0, 1, ...: linear warm-up, constant, linear decay to zero."""
        warm = (step + 1) / max(self.warmup_steps, 1)
        cool = (self.steps - step) / max(self.decay_steps, 1)
        return self.lr * min(1.0, warm, cool)

    def logs_at(self, step: int) -> bool:
        """Whether `step` (1, 2, ...) writes a row of metrics."""
        return step == 1 or step % self.log_every == 0 or self.measures_at(step)

    def measures_at(self, step: int) -> bool:
        """Whether the row of `step` has the quality on held-out tokens: by steps alone, so that a
        training's metrics do not depend on how busy the machine was."""
        return step % (self.checkpoint_every or _MEASURED_EVERY) == 0 or step == self.steps

    def checkpoints_at(self, step: int) -> bool:
        """Whether there is a checkpoint after `step`, whatever the time is."""
        every = self.checkpoint_every
        return step == self.steps or (every is not None and step % every == 0)


def make_plan(
    sae: SparseAutoencoder,
    source: TokenSource,
    config: SaeTrainingConfig,
    device: torch.device | None = None,
) -> TrainingPlan:
    """Fills in what `config` leaves open, for training on `device` (None: where the SAE is).

    Raises UserError when the source has another width than the SAE or too few tokens, and for an
    SAE that normalises its input.
    """
    if source.width != sae.training_width:
        raise UserError(
            f"the activations have width {source.width}, the SAE takes {sae.training_width}"
        )
    if sae.centred:
        raise UserError(
            "an SAE for centred activations cannot be trained further", hint="train a new one"
        )
    if sae.input_norm != "none":
        raise UserError(
            f"an SAE that normalises each token by {sae.input_norm} cannot be trained further",
            hint="train a new one",
        )
    if (row := BY_NAME.get(sae.architecture)) is not None:  # none over several layers
        check_recipe(config, f"a {sae.architecture} SAE", row)
    if config.whiten and not sae.apply_b_dec_to_input:
        raise UserError(
            "an SAE that does not subtract b_dec from its input cannot be trained on whitened "
            "activations",
            hint="leave out --whiten",
        )
    factor = config.outlier_factor
    outlier_norm = None if factor is None else factor * source.median_norm()
    tokens = source.count(TRAIN, outlier_norm)
    if tokens < config.batch_size:
        raise _too_few(source, tokens, config)
    steps = _steps(config, tokens)
    run_tokens = steps * config.batch_size
    warmup_steps = _given(config.warmup_steps, min(1000, max(1, steps // 10)))
    return same_fields(
        TrainingPlan,
        config,
        steps=steps,
        lr=config.lr if config.lr is not None else default_lr(sae.n_latents, steps),
        warmup_steps=warmup_steps,
        decay_steps=round(config.decay_share * steps),
        dead_tokens=_given(config.dead_tokens, min(10_000_000, max(1, run_tokens // 5))),
        k_aux=_given(config.k_aux, max(1, sae.n_inputs // 2)),
        l1_lambda=config.l1_lambda if sae.steers_sparsity else None,
        target_l0=_target_l0(sae, config),
        sparsity_warmup_steps=_given(config.sparsity_warmup_steps, warmup_steps),
        outlier_norm=outlier_norm,
        precision=_precision(config.precision, device or sae.device),
    )


def _too_few(source: TokenSource, tokens: int, config: SaeTrainingConfig) -> UserError:
    """The error for `tokens` that are fewer than a batch, with the reason."""
    if source.count(TRAIN) == 0 and (held_out := source.count(HELDOUT)):
        return UserError(
            f"there is nothing to train on: all {held_out:,} tokens are of held-out texts",
            hint="one document in ten is held out, chosen by a hash of its text: capture other "
            "documents as well",
        )
    why = "capture more documents or lower the batch size"
    if not tokens and config.outlier_factor is not None:
        why = (
            f"raise --outlier-factor: all are above {config.outlier_factor:g} times the median norm"
        )
    return UserError(
        f"{tokens:,} training tokens are too few for batches of {config.batch_size:,}", hint=why
    )


def _target_l0(sae: SparseAutoencoder, config: SaeTrainingConfig) -> float | None:
    if not sae.steers_sparsity:
        if config.target_l0 is not None:
            raise UserError(
                f"a {sae.architecture} SAE sets its number of active latents by k",
                hint="give --k in place of --target-l0",
            )
        return None
    if config.l1_lambda is not None:
        return None
    target = DEFAULT_L0 if config.target_l0 is None else config.target_l0
    if target > sae.n_latents:
        raise UserError(
            f"a target of {target:g} active latents is more than the {sae.n_latents} there are",
            hint="lower --target-l0 or --k, or train more latents",
        )
    return target


def _precision(wanted: str, device: torch.device) -> str:
    if wanted != "auto":
        return wanted
    return "bf16" if device.type == "cuda" else "fp32"


def _steps(config: SaeTrainingConfig, tokens: int) -> int:
    if config.steps is not None:
        return config.steps
    if config.tokens is not None:
        return math.ceil(config.tokens / config.batch_size)
    passes = math.ceil((config.epochs or 1) * tokens / config.batch_size)
    return passes if config.epochs is not None else max(passes, MIN_STEPS)


def _given(value: int | None, default: int) -> int:
    return default if value is None else value


@dataclass(frozen=True)
class StartingPoint:
    """What a sample of the tokens says before training. An SAE's targets are its inputs."""

    scale: float  # multiplies inputs so that their mean norm is sqrt(n_inputs)
    target_scale: float  # the same for the targets
    centre: Tensor  # [n_outputs], geometric median of the scaled targets
    variance: float  # mean squared distance of a scaled target from the mean
    sample: Tensor  # [n, n_inputs] scaled inputs, for rules that start from what they see


def starting_point(
    sae: SparseAutoencoder,
    source: TokenSource,
    plan: TrainingPlan,
    whitening: Whitening | None = None,
) -> StartingPoint:
    """Scales, centre and variance of a sample. Raises CorruptDataError when it is unusable."""
    tokens = source.sample(START_SAMPLE, plan.seed, TRAIN, plan.outlier_norm).float()
    if whitening is not None:
        tokens = whitening.whitened(tokens)
    inputs, targets = sae.training_tokens(tokens)
    scale = _scale_of(inputs)
    target_scale = scale if targets is inputs else _scale_of(targets)
    mean = _mean(targets, target_scale)
    distances = ((rows - mean).square() for rows in _in_double(targets, target_scale))
    variance = sum(float(squared.sum()) for squared in distances) / len(targets)
    if variance <= 0:
        raise CorruptDataError("all activations are the same, there is nothing to learn")
    centre = geometric_median(targets, scale=target_scale)
    sample = inputs[:CALIBRATION_SAMPLE] * scale
    return StartingPoint(scale, target_scale, centre, variance, sample)


def _scale_of(x: Tensor) -> float:
    """What gives the rows of x [n, d] a mean norm of sqrt(d)."""
    mean_norm = sum(float(rows.norm(dim=1).sum()) for rows in _in_double(x)) / len(x)
    if not math.isfinite(mean_norm):
        raise not_finite()
    return math.sqrt(x.shape[1]) / mean_norm if mean_norm > 0 else 1.0


def geometric_median(x: Tensor, iterations: int = 16, scale: float = 1.0) -> Tensor:
    """The point with the least sum of distances to the rows of scale * x [n, d] (Weiszfeld 1937):
    float64 [d]."""
    median = _mean(x, scale)
    for _ in range(iterations):
        weight, weighted = 0.0, torch.zeros_like(median)
        for rows in _in_double(x, scale):
            weights = 1 / torch.linalg.vector_norm(rows - median, dim=1).clamp_min(1e-6)
            weight += float(weights.sum())
            weighted += weights @ rows
        median = weighted / weight
    return median


def _mean(x: Tensor, scale: float) -> Tensor:
    """The mean of the rows of scale * x [n, d]: float64 [d]."""
    return torch.stack([rows.sum(0) for rows in _in_double(x, scale)]).sum(0) / len(x)


def _in_double(x: Tensor, scale: float = 1.0) -> Iterator[Tensor]:
    """The rows of scale * x [n, d] in double precision, some at a time: the order in which threads
    add up does not show in the result, and memory stays as it is."""
    for rows in x.split(_ROWS_IN_DOUBLE):
        yield (rows.cpu() if rows.device.type == "mps" else rows).double() * scale
