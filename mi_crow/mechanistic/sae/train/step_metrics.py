"""The metrics of a training step, gathered piece by piece into one row per logged step."""

import math
from typing import Protocol

import torch
from torch import Tensor

from mi_crow.errors import MiCrowError
from mi_crow.mechanistic.sae.base import TrainingOutput
from mi_crow.mechanistic.sae.quality import DENSE, Quality, reconstruction_quality
from mi_crow.mechanistic.sae.source import HELDOUT, TokenSource, not_finite
from mi_crow.mechanistic.sae.train.metrics import Row
from mi_crow.mechanistic.sae.train.state import TrainState
from mi_crow.memory import memory_readings

# Held-out tokens of a row that has their quality.
_HELDOUT_TOKENS = 4096


class StepClock(Protocol):
    """Where the time of a row comes from."""

    def seconds(self) -> float: ...

    def steps_per_second(self, step: int) -> float: ...


class StepMetrics:
    """Gathers the results of steps until a row is written."""

    def __init__(self, state: TrainState, source: TokenSource, clock: StepClock) -> None:
        self.gradient_norm: Tensor | None = None
        self._state, self._source, self._clock = state, source, clock
        self._step: list[tuple[TrainingOutput, float]] = []  # pieces of the latest step
        self._others: dict[str, Tensor] = {}  # further losses of the latest step
        # Since the last row: firings of each of this process's latents, and tokens.
        self._firings = torch.zeros(state.sae.n_latents, dtype=torch.int64, device=state.sae.device)
        self._tokens = 0
        self._active = self._firings.sum()  # of the latest step
        self._finite = torch.ones((), dtype=torch.bool, device=state.sae.device)

    def begin_step(self, tokens: Tensor | None = None) -> None:
        """Begins a step on a batch: outputs added from here on belong to it."""
        self._step.clear()
        self._others.clear()
        if tokens is not None:
            self._finite &= tokens.sum().isfinite()  # much faster than testing each
        self._tokens += self._state.plan.batch_size

    def add_output(self, output: TrainingOutput, share: float) -> None:
        """Adds one piece of a batch; `share` is its fraction of the batch's tokens."""
        # Detached, so that no graph outlives its step.
        losses = {name: loss.detach() for name, loss in output.losses.items()}
        self._step.append((output._replace(losses=losses), share))

    def add_loss(self, name: str, loss: Tensor) -> None:
        """Adds this process's part of a loss that no `TrainingOutput` has, to those of the step."""
        self._others[name] = self._others.get(name, torch.zeros_like(loss)) + loss

    def add_firings(self, firings: Tensor) -> None:
        """Adds how often each of this process's latents fired on the batch, int64 [M]."""
        self._active = firings.sum()
        self._firings += firings

    def row(self) -> Row:
        """The row of the latest step, over all processes; starts a new window for `dense_share`."""
        state = self._state
        plan, sharing, n_latents = state.plan, state.sharing, state.n_latents
        losses = self._losses()
        fvu = losses.pop("fvu")
        dense = sharing.total_over_latents((self._firings > DENSE * self._tokens).sum())
        active = sharing.total_over_latents(self._active)
        self._firings.zero_()
        window, self._tokens = self._tokens, 0
        heldout = self._heldout() if plan.measures_at(state.step) else None
        return {
            "step": state.step,
            "tokens": state.step * plan.batch_size,
            "loss": sum(losses.values()),
            "fvu": fvu,
            "r2": 1 - fvu,
            "l0": int(active) / plan.batch_size,
            "dead_features": state.n_dead(),
            "dead_share": state.n_dead() / n_latents,
            "dense_share": int(dense) / n_latents if window else 0.0,
            "lr": plan.lr_at(state.step - 1),
            "grad_norm": None if self.gradient_norm is None else float(self.gradient_norm),
            "sparsity": float(state.control.coefficient(state.step - 1)),
            "tokens_s": self._clock.steps_per_second(state.step) * plan.batch_size,
            "seconds": self._clock.seconds(),
            "heldout_fvu": None if heldout is None else heldout.fvu,
            "heldout_fvu_all": None if heldout is None else heldout.fvu_all,
            **{f"loss_{name}": value for name, value in losses.items()},
            **memory_readings(),
        }

    def _losses(self) -> dict[str, float]:
        """The batch's loss parts, and its `fvu`."""
        sums: dict[str, Tensor] = {}
        for output, share in self._step:
            for name, loss in {**output.losses, "fvu": output.fvu}.items():
                sums[name] = sums.get(name, torch.zeros_like(loss)) + share * loss
        sums |= self._others
        together = self._state.sharing.total_over_tokens(torch.stack(list(sums.values())))
        return dict(zip(sums, together.tolist(), strict=True))

    def check_finite(self, row: Row) -> None:
        """Raises MiCrowError, with the cause, when the row's loss or gradient is not finite.

        Checkpoints are only written after a row that passed, so the latest one is good.
        """
        for what, name in (("the loss", "loss"), ("the gradient norm", "grad_norm")):
            value = row[name]
            if value is not None and math.isfinite(value):
                continue
            stopped = f"training stopped at step {row['step']}: {what} is {value}"
            infinite = self._state.sharing.total((~self._finite).long())
            if int(infinite):
                raise not_finite(f"{stopped}, since ")
            raise MiCrowError(
                stopped,
                hint=f"lower the learning rate (it was {self._state.plan.lr:.2g}) "
                "or use more warm-up steps",
            )

    def _heldout(self) -> Quality | None:
        """Quality on some held-out tokens, including outliers; None when there are none."""
        plan, state = self._state.plan, self._state
        if not self._source.count(HELDOUT, plan.outlier_norm):
            return None
        tokens = self._source.sample(_HELDOUT_TOKENS, plan.seed, HELDOUT).float()
        if state.whitening is not None:
            return reconstruction_quality(state.on_plain_inputs(), tokens, plan.outlier_norm)
        inputs, targets = state.sae.training_tokens(tokens)
        limit = None if plan.outlier_norm is None else plan.outlier_norm * state.scale
        wanted = targets * state.target_scale if state.sae.transcodes else None
        return reconstruction_quality(state.sae, inputs * state.scale, limit, wanted)


def shown(row: Row) -> dict[str, float]:
    """The metrics that are shown while training."""
    names = ("fvu", "l0", "dead_share", "tokens_s", "loss")
    return {name: float(row[name] or 0) for name in names}
