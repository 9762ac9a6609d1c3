"""The logit lens of decoder rows: which tokens a feature promotes and suppresses.

nostalgebraist 2020, "interpreting GPT: the logit lens", applied to directions.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mi_crow.mechanistic.features.index.tables.directions import unit_rows

_CELLS = {"cpu": 1 << 23, "cuda": 1 << 28}
_CELLS_ELSEWHERE = 1 << 25


@dataclass(frozen=True)
class LogitEffects:
    """Effects of the features first .. first + n - 1 on the logits of the vocabulary."""

    first: int
    promoted: Tensor  # int64 [n, count] token ids, strongest first
    promoted_value: Tensor  # float32 [n, count], descending
    suppressed: Tensor  # int64 [n, count], strongest first
    suppressed_value: Tensor  # float32 [n, count], ascending
    skew: Tensor  # [n]
    kurtosis: Tensor  # [n], 0 for a normal distribution


class LogitLens:
    """The last norm and the output embedding of a model, in fp32, for directions of width d; with
    `copied` False the embedding as it is, without the memory for a copy."""

    def __init__(
        self, final_norm: nn.Module | None, head: nn.Module, *, copied: bool = True
    ) -> None:
        weight = head.weight
        assert isinstance(weight, Tensor)
        self._weight = weight.detach().float() if copied else weight.detach()  # [V, d]
        self._norm = None if final_norm is None else copy.deepcopy(final_norm).float()

    @property
    def width(self) -> int:
        return self._weight.shape[1]

    @property
    def vocabulary(self) -> int:
        return self._weight.shape[0]

    @property
    def device(self) -> torch.device:
        return self._weight.device

    @torch.inference_mode()
    def logits(self, decoder: Tensor) -> Tensor:
        """Decoder rows [n, d] -> logits [n, V] of their directions at root mean square 1.

        What the norm adds to any input (its bias) is left out: it is not an effect of the feature.
        """
        rows = unit_rows(decoder.to(self.device)) * self.width**0.5
        if self._norm is not None:
            rows = self._norm(rows) - self._norm(torch.zeros_like(rows[:1]))
        return (rows.to(self._weight.dtype) @ self._weight.T).float()

    @torch.inference_mode()
    def effects(
        self, decoder: Tensor, count: int, turn: tuple[int, int] = (0, 1)
    ) -> Iterator[LogitEffects]:
        """The `count` most promoted and suppressed tokens and the shape of the distribution, some
        features at a time; `turn` as in `neighbours`."""
        count = min(count, self.vocabulary)
        cells = _CELLS.get(self.device.type, _CELLS_ELSEWHERE)
        step = max(1, cells // self.vocabulary)
        for first in range(turn[0] * step, decoder.shape[0], turn[1] * step):
            logits = self.logits(decoder[first : first + step])
            high, low = logits.topk(count, dim=1), logits.topk(count, dim=1, largest=False)
            skew, kurtosis = _shape(logits)
            yield LogitEffects(
                first,
                high.indices.cpu(),
                high.values.cpu(),
                low.indices.cpu(),
                low.values.cpu(),
                skew.cpu(),
                kurtosis.cpu(),
            )


def _shape(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Skewness and excess kurtosis of each row; overwrites `logits`."""
    logits -= logits.mean(dim=1, keepdim=True)
    square = logits.square()
    variance = square.mean(dim=1).clamp_min(torch.finfo(torch.float32).tiny)
    skew = (square * logits).mean(dim=1) / variance**1.5
    kurtosis = square.square_().mean(dim=1) / variance**2 - 3
    return skew, kurtosis
