"""The training loop: shuffled tokens in, trained SAEs and their metrics out.

Several SAEs can train side by side on one read of the data.
"""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from mi_crow.causes import out_of_memory
from mi_crow.errors import CancelledError, UserError
from mi_crow.mechanistic.sae.base import TrainingOutput
from mi_crow.mechanistic.sae.source import TRAIN, TokenSource, device_batches
from mi_crow.mechanistic.sae.train.checkpoint_writer import CheckpointWriter
from mi_crow.mechanistic.sae.train.loggers import RunLogger
from mi_crow.mechanistic.sae.train.metrics import MetricsTable, Row
from mi_crow.mechanistic.sae.train.state import TrainState
from mi_crow.mechanistic.sae.train.step_metrics import StepMetrics, shown
from mi_crow.progress import Progress
from mi_crow.ranks import Ranks

# Processes that share a training agree on whether to stop once in so many steps.
_AGREE_EVERY = 8
_LINE_EVERY_S = 30.0  # of the log, at most


@dataclass
class Training:
    """One SAE in training, its metrics, and the folder that keeps both (None: nowhere)."""

    state: TrainState
    table: MetricsTable
    folder: Path | None
    logger: RunLogger = field(default_factory=RunLogger)


class Feed(Protocol):
    """Where the batches of a training come from, and what it learns from one."""

    def batches(self, state: TrainState, first: int) -> Iterator[Any]:
        """The batches from number `first` to the end of the plan."""
        ...

    def learn(self, state: TrainState, batch: Any, metrics: StepMetrics) -> None:
        """One optimizer step on a batch."""
        ...


class StoredTokens:
    """The tokens of a source, which the SAE is to reconstruct: how SAEs are trained."""

    def __init__(self, source: TokenSource) -> None:
        self._source = source

    def batches(self, state: TrainState, first: int) -> Iterator[Tensor]:
        return _batches(state, self._source, first)

    def learn(self, state: TrainState, batch: Tensor, metrics: StepMetrics) -> None:
        train_step(state, batch, metrics)


def run_training(
    trainings: Sequence[Training],
    source: TokenSource,
    progress: Progress,
    feed: Feed | None = None,
) -> None:
    """Trains all SAEs to the end of the plan and fills their tables; `feed` (None: the tokens of
    `source`) says what from.

    The plans agree on everything that concerns the data. After a resume, an SAE that is ahead of
    the others waits for them. Checkpoints and metrics go to the folders. Raises CancelledError
    (after a checkpoint) when `progress` asks to stop, MiCrowError when a loss is not finite.
    """
    plan = trainings[0].state.plan
    first = min(training.state.step for training in trainings)
    clock = Clock(max(training.state.seconds for training in trainings), first)
    metrics = [StepMetrics(training.state, source, clock) for training in trainings]
    ranks = trainings[0].state.sharing.ranks
    kept_at = clock.seconds()
    feed = feed or StoredTokens(source)
    lines = _Lines(progress, plan.steps)
    with CheckpointWriter(progress) as checkpoints:
        for step, batch in enumerate(feed.batches(trainings[0].state, first), first + 1):
            if _stops(progress, ranks, step):
                checkpoints.keep(trainings, clock.seconds())
                checkpoints.wait()
                raise CancelledError(
                    resumable=all(training.folder is not None for training in trainings)
                )
            active = [
                pair for pair in zip(trainings, metrics, strict=True) if pair[0].state.step < step
            ]
            for training, gathered in active:
                feed.learn(training.state, batch, gathered)
            if not plan.logs_at(step):
                continue
            for training, gathered in active:
                row = gathered.row()
                gathered.check_finite(row)
                training.table.rows.append(row)
                training.logger.row(row)
            rows = [training.table.rows[-1] for training, _ in active]
            progress.update(step, plan.steps, "step", shown(rows[0]))
            lines.tell(step, rows)
            # Only here, after a row that passed: so the newest checkpoint is good.
            due = ranks.agree(clock.seconds() - kept_at >= 60 * plan.checkpoint_minutes)
            if due or plan.checkpoints_at(step):
                kept_at = clock.seconds()
                checkpoints.keep(trainings, kept_at)
            checkpoints.tell()


def train_step(state: TrainState, tokens: Tensor, metrics: StepMetrics) -> None:
    """One optimizer step on this process's unscaled tokens [batch, training_width].

    Works in `accumulate` pieces, whose losses are weighted by their tokens. Raises UserError when
    memory runs out, naming a size of pieces that fits.
    """
    try:
        _learn(state, tokens, metrics)
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        too_much = str(error)  # the error itself keeps alive the tensors that fill the memory
    else:
        return
    raise _does_not_fit(state, tokens, too_much)


def _learn(state: TrainState, tokens: Tensor, metrics: StepMetrics) -> None:
    plan = state.plan
    metrics.begin_step(tokens)
    firings = no_firings(state)
    pieces = tokens.tensor_split(plan.accumulate)  # and not `chunk`, which may make fewer
    for number, piece in enumerate(pieces, 1):
        # The loss on the decoder's geometry comes after the pieces, with a gradient of its own.
        if number == len(pieces) and not plan.orthogonality:
            state.sharing.begin_last_piece()
        share = piece.shape[0] / plan.batch_size
        output = _learn_piece(state, piece, share)
        add_firings(firings, output)
        metrics.add_output(output, share)
    complete_step(state, firings, metrics)


def no_firings(state: TrainState) -> Tensor:
    """How often each latent fired, int64 [M + 1]; the last entry stands for none."""
    return torch.zeros(state.sae.n_latents + 1, dtype=torch.int64, device=state.sae.device)


def add_firings(firings: Tensor, output: TrainingOutput) -> None:
    """Adds those of a piece of a batch."""
    fired = output.fired.reshape(-1)
    firings.index_add_(0, fired, torch.ones_like(fired))  # bincount would wait for the device


def complete_step(state: TrainState, firings: Tensor, metrics: StepMetrics) -> None:
    """Ends a step whose pieces have left their gradients."""
    plan = state.plan
    if (loss := state.orthogonality_loss()) is not None:
        loss.backward()
        metrics.add_loss("orthogonality", state.sharing.total_over_latents(loss.detach()))
    state.reduce_gradients()
    if plan.logs_at(state.step + 1):
        metrics.gradient_norm = state.gradient_norm()
    state.apply_gradients()
    metrics.add_firings(state.count_firing(firings[:-1]))
    state.step += 1


def _learn_piece(state: TrainState, tokens: Tensor, share: float) -> TrainingOutput:
    """Adds the gradients of some tokens, which are the fraction `share` of the batch."""
    output = training_output(state, tokens)
    (torch.stack(list(output.losses.values())).sum() * share).backward()
    return output


def training_output(state: TrainState, tokens: Tensor) -> TrainingOutput:
    """One training pass over unscaled tokens [n, training_width]."""
    sae, bf16 = state.sae, state.plan.precision == "bf16"
    if state.whitening is not None:
        tokens = state.whitening.whitened(tokens)
    x, target = sae.training_tokens(tokens)
    with torch.autocast(sae.device.type, torch.bfloat16, enabled=bf16):
        scaled = x * state.scale
        wanted = target * state.target_scale if sae.transcodes else scaled
        return sae.training_output(scaled, wanted, state.context())


def _does_not_fit(state: TrainState, tokens: Tensor, too_much: str) -> UserError:
    """The error for a batch that does not fit into memory; tries smaller pieces to name a size
    that does."""
    n, pieces = tokens.shape[0], state.plan.accumulate
    message = f"out of memory on {state.sae.device} with {n // pieces} tokens at once"
    pieces *= 2
    while (
        state.sharing.single_process and pieces <= n and not _fits(state, tokens[: -(-n // pieces)])
    ):
        pieces *= 2
    if pieces > n:
        numbers = sum(parameter.numel() for parameter in state.sae.parameters())
        return UserError(
            f"{message}, and with fewer: {too_much.splitlines()[0]}",
            hint=f"weights, gradients and Adam's moments take {16 * numbers / 1e9:.1f} GB; "
            "train fewer latents, or split them among devices with --share latents",
        )
    return UserError(
        message,
        hint=f"{n // pieces} tokens at once fit: --accumulate {pieces} works through the same "
        f"batches in pieces of that size, --batch-size {n // pieces} makes the batches smaller",
    )


def _fits(state: TrainState, tokens: Tensor) -> bool:
    """Whether memory suffices for the gradients of these tokens; spoils the state."""
    state.optimizer.zero_grad(set_to_none=True)
    if state.sae.device.type == "cuda":
        torch.cuda.empty_cache()
    try:
        _learn_piece(state, tokens, 1.0)
        if not state.optimizer.state:  # Adam has yet to allocate its two moments
            _ = [torch.empty_like(p) for p in (*state.sae.parameters(),) * 2]
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        return False
    return True


class _Lines:
    """Says in the log how a training goes: of its first row, then not more often than people
    read."""

    def __init__(self, progress: Progress, steps: int) -> None:
        self._progress, self._steps = progress, steps
        self._told_at = -math.inf

    def tell(self, step: int, rows: Sequence[Row]) -> None:
        now = time.perf_counter()
        if now - self._told_at < _LINE_EVERY_S:
            return
        self._told_at = now
        figures = (
            f"FVU {one['fvu']:.4f}, L0 {one['l0']:.1f}, dead {one['dead_share']:.1%}"
            for one in map(shown, rows)
        )
        self._progress.log(f"step {step:,} of {self._steps:,}: {'; '.join(figures)}")


class Clock:
    """Seconds of training, including those before a resume, and steps per second between logs."""

    def __init__(self, seconds: float, step: int) -> None:
        self._began = time.perf_counter() - seconds
        self._last = (seconds, step)
        self._rate = 0.0

    def seconds(self) -> float:
        return time.perf_counter() - self._began

    def steps_per_second(self, step: int) -> float:
        """Between the last two steps that this was called for."""
        seconds, before = self._last
        if step != before:
            self._last = (self.seconds(), step)
            self._rate = (step - before) / max(self._last[0] - seconds, 1e-9)
        return self._rate


def _batches(state: TrainState, source: TokenSource, first: int) -> Iterator[Tensor]:
    """This process's part of the fp32 batches from number `first` to the end of the plan,
    unscaled."""
    plan = state.plan
    reads = state.sharing.reads(pinned=state.sae.device.type == "cuda")
    own = source.batches(
        plan.batch_size, plan.seed, TRAIN, plan.outlier_norm, start=first, reads=reads
    )
    batches = device_batches(own, state.sae.device, source.live)
    with closing(batches):
        for batch in islice(batches, plan.steps - first):
            yield batch.float()


def _stops(progress: Progress, ranks: Ranks, step: int) -> bool:
    if ranks.world == 1:
        return progress.should_stop()
    return step % _AGREE_EVERY == 0 and bool(ranks.agree(progress.should_stop()))
