"""The coefficient of a sparsity loss: warmed up, and steered towards a wanted number of latents."""

import math

import torch
from torch import Tensor

# Log units of the coefficient a step, for an L0 that is a factor of e too high. Divided by the
# length of the run, so that short runs find their coefficient as well.
_GAIN_A_RUN = 12.0
_MOST_GAIN = 0.05
_PROPORTIONAL = 0.5
_SMOOTHING = 0.9  # share of the old mean of L0 that a step leaves


class SparsityControl:
    """A proportional-integral controller on the logarithm of the coefficient.

    error = log(L0 / target), clipped to [-1, 1]; after the warm-up each step adds gain * error to
    the logarithm, and the coefficient in use is e^(logarithm + error / 2). Without a target the
    coefficient stays as it was given. All state is on the SAE's device, so that nothing waits.
    """

    def __init__(
        self,
        coefficient: float,
        target_l0: float | None,
        warmup_steps: int,
        steps: int,
        device: torch.device,
    ) -> None:
        self._target = target_l0
        self._warmup = max(warmup_steps, 1)
        self._gain = min(_MOST_GAIN, _GAIN_A_RUN / max(steps, 1))
        logarithm = math.log(coefficient) if coefficient > 0 else -math.inf
        # [logarithm of the coefficient, running mean of L0 (0: none yet)]
        self.state: Tensor = torch.tensor([logarithm, 0.0], dtype=torch.float64, device=device)

    def coefficient(self, step: int) -> Tensor:
        """The coefficient for step 0, 1, ...: fp32, no dimensions."""
        warm = min(1.0, (step + 1) / self._warmup)
        logarithm = self.state[0]
        if self._target is not None:
            logarithm = logarithm + _PROPORTIONAL * self._error()
        return (logarithm.exp() * warm).float()

    def observe(self, step: int, l0: Tensor) -> None:
        """Takes in the mean number of active latents a token of step 0, 1, ..."""
        mean, l0 = self.state[1], l0.double()
        self.state[1] = torch.where(mean > 0, mean.lerp(l0, 1 - _SMOOTHING), l0)
        if self._target is not None and step >= self._warmup:
            self.state[0] += self._gain * self._error()

    def _error(self) -> Tensor:
        """log(L0 / target), clipped; 0 before the first observation."""
        assert self._target is not None
        mean = self.state[1]
        error = (mean.clamp_min(1e-3) / self._target).log().clamp(-1, 1)
        return torch.where(mean > 0, error, torch.zeros_like(error))
