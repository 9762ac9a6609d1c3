"""The training loop: shuffled tokens in, a trained SAE and its metrics out."""

import math
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from mi_crow.errors import CancelledError, MiCrowError
from mi_crow.mechanistic.sae.base import LossContext, TrainingOutput
from mi_crow.mechanistic.sae.checkpoint import save_checkpoint
from mi_crow.mechanistic.sae.metrics import MetricsTable, Row
from mi_crow.mechanistic.sae.quality import reconstruction_quality
from mi_crow.mechanistic.sae.source import HELDOUT, TRAIN, TokenSource, device_batches
from mi_crow.mechanistic.sae.state import TrainState
from mi_crow.progress import Progress

METRICS_NAME = "metrics.parquet"
CHECKPOINTS_NAME = "checkpoints"

# Held-out tokens looked at at every checkpoint.
_GLANCE_TOKENS = 4096


def run_training(
    state: TrainState,
    source: TokenSource,
    table: MetricsTable,
    progress: Progress,
    folder: Path | None,
) -> None:
    """Trains from `state.step` to the end of the plan, filling `table`.

    With a `folder`, checkpoints and metrics are kept there. Raises CancelledError (after a
    checkpoint) when `progress` asks to stop, MiCrowError when the loss is no longer finite.
    """
    plan, sae = state.plan, state.sae
    clock = _Clock(state)
    for x in _training_inputs(state, source):
        if progress.should_stop():
            _keep(state, table, clock, progress, folder)
            raise CancelledError(resumable=folder is not None)

        with _autocast(sae.device):
            output = sae.training_output(x, x, _loss_context(state))
            loss = torch.stack(list(output.losses.values())).sum()
        loss.backward()
        state.apply_gradients()
        state.count_firing(output.fired, x.shape[0])
        state.step += 1

        if plan.logs_at(state.step):
            row = _readings(state, output, loss, clock)
            _refuse_infinite(row, state)
            if plan.checkpoints_at(state.step):
                row["heldout_fvu"] = _heldout_fvu(state, source)
            table.rows.append(row)
            progress.update(state.step, plan.steps, "step", _shown(row))
        if plan.checkpoints_at(state.step):
            _keep(state, table, clock, progress, folder)


class _Clock:
    """Seconds of training, those before a resume included, and tokens a second between logs."""

    def __init__(self, state: TrainState) -> None:
        self._began = time.perf_counter() - state.seconds
        self._last = (self.seconds(), state.step)

    def seconds(self) -> float:
        return time.perf_counter() - self._began

    def steps_a_second(self, step: int) -> float:
        """Since the last call."""
        (seconds, steps), self._last = self._last, (self.seconds(), step)
        return (step - steps) / max(self._last[0] - seconds, 1e-9)


def _training_inputs(state: TrainState, source: TokenSource) -> Iterator[Tensor]:
    """The scaled fp32 batches of the steps that are left."""
    plan = state.plan
    stored = source.batches(plan.batch_size, plan.seed, TRAIN, plan.outlier_norm, state.step)
    for batch in islice(device_batches(stored, state.sae.device), plan.steps - state.step):
        yield batch.float() * state.scale


def _autocast(device: torch.device) -> torch.autocast:
    """bf16 for the encoder's product on CUDA; weights and everything else stay fp32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")


def _loss_context(state: TrainState) -> LossContext:
    return LossContext(
        variance=state.variance,
        dead=state.dead_latents(),
        aux_alpha=state.plan.aux_alpha,
        k_aux=state.plan.k_aux,
        sparsity=state.plan.l1_lambda,
    )


def _readings(state: TrainState, output: TrainingOutput, loss: Tensor, clock: _Clock) -> Row:
    """One row of metrics for the step just made."""
    fvu = float(output.fvu)
    dead = state.dead_latents()
    n_dead = 0 if dead is None else dead.numel()
    return {
        "step": state.step,
        "tokens": state.step * state.plan.batch_size,
        "loss": float(loss.detach()),
        "fvu": fvu,
        "r2": 1 - fvu,
        "l0": int((output.fired < state.sae.n_latents).sum()) / state.plan.batch_size,
        "dead_features": n_dead,
        "dead_share": n_dead / state.sae.n_latents,
        "lr": state.plan.lr_at(state.step - 1),
        "tokens_s": clock.steps_a_second(state.step) * state.plan.batch_size,
        "seconds": clock.seconds(),
        "heldout_fvu": None,
    }


def _shown(row: Row) -> dict[str, float]:
    """The readings that viewers follow."""
    return {name: float(row[name] or 0) for name in ("fvu", "l0", "dead_share", "tokens_s", "loss")}


def _refuse_infinite(row: Row, state: TrainState) -> None:
    loss = row["loss"]
    if loss is None or not math.isfinite(loss):
        raise MiCrowError(
            f"training stopped at step {state.step}: the loss is {loss}",
            hint=f"lower the learning rate (it was {state.plan.lr:.2g}) or give more warm-up",
        )


def _heldout_fvu(state: TrainState, source: TokenSource) -> float | None:
    plan = state.plan
    if not source.count(HELDOUT, plan.outlier_norm):
        return None
    sample = source.sample(_GLANCE_TOKENS, plan.seed, HELDOUT, plan.outlier_norm)
    return reconstruction_quality(state.sae, sample.float() * state.scale, None).fvu


def _keep(
    state: TrainState,
    table: MetricsTable,
    clock: _Clock,
    progress: Progress,
    folder: Path | None,
) -> None:
    """Writes metrics, then the checkpoint that makes them count."""
    if folder is None:
        return
    state.seconds = clock.seconds()
    table.write(folder / METRICS_NAME)
    name = save_checkpoint(folder / CHECKPOINTS_NAME, state.step, state.tensors(), state.facts())
    progress.checkpoint(name)
