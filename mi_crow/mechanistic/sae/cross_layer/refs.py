"""Tensors of a file that have not been read yet, whole or in part."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mi_crow.errors import CorruptDataError

Index = tuple[int | slice, ...]

_MANY = 16  # of a matrix's rows one in as many: a read of all of them takes no longer


@dataclass(frozen=True)
class TensorRef:
    """A tensor that has not been read yet."""

    shape: tuple[int, ...]
    read: Callable[[], Tensor]
    pick: Callable[[Index], Tensor] | None = None  # reads a part; None: the whole is read for it
    source: Path | None = None  # the file that it is in, for messages

    @classmethod
    def of(cls, tensor: Tensor) -> "TensorRef":
        """A tensor in memory."""
        return cls(tuple(tensor.shape), lambda: tensor)

    def t(self) -> "TensorRef":
        """The transposed matrix."""
        return TensorRef(self.shape[::-1], lambda: self.read().t(), source=self.source)

    def map(self, change: Callable[[Tensor], Tensor]) -> "TensorRef":
        """The tensor with `change`, which keeps the shape, applied when it is read."""
        return TensorRef(self.shape, lambda: change(self.read()), source=self.source)

    def times(self, factor: float) -> "TensorRef":
        """The tensor times `factor`, in fp32."""
        if factor == 1.0:
            return self
        return TensorRef(
            self.shape,
            lambda: self.read().float() * factor,
            lambda index: self._part(index).float() * factor,
            self.source,
        )

    def at(self, dim: int, number: int) -> "TensorRef":
        """What is at `number` along `dim`: one dimension fewer, and nothing else is read."""
        shape = self.shape[:dim] + self.shape[dim + 1 :]

        def pick(index: Index) -> Tensor:
            return self._part((*index[:dim], number, *index[dim:]))

        return TensorRef(shape, lambda: pick((slice(None),) * len(shape)), pick, self.source)

    def rows(self, numbers: Sequence[int]) -> Tensor:
        """The rows `numbers` [n, ...], without the others where the file allows it and they are
        few."""
        rest = (slice(None),) * (len(self.shape) - 1)
        if not numbers:
            return torch.zeros(0, *self.shape[1:])
        if self.pick is None or len(numbers) * _MANY > self.shape[0]:
            return self.read()[list(numbers)]
        return torch.stack([self._part((number, *rest)) for number in numbers])

    def _part(self, index: Index) -> Tensor:
        return self.pick(index) if self.pick is not None else self.read()[index]


def weights(
    ref: TensorRef, name: str, place: Path, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """A tensor of weights, whole. Raises CorruptDataError naming its file, or else `place`."""
    found = ref.read()
    check_weights(found, name, ref.source or place)
    found = found.to(device, dtype).contiguous()
    check_finite(found, name.partition(".")[0], ref.source or place)
    return found


def check_weights(tensor: Tensor, name: str, place: Path) -> None:
    """Raises CorruptDataError for numbers that are not floating-point."""
    if not tensor.is_floating_point():
        raise CorruptDataError(
            f"{place} holds {str(tensor.dtype).removeprefix('torch.')} numbers for {name}",
            hint="weights must be fp32, bf16 or fp16",
        )


def check_finite(tensor: Tensor, name: str, place: Path) -> None:
    """Raises CorruptDataError for weights that are not finite; only a threshold may be infinite,
    which no activation exceeds."""
    total = tensor.sum(dtype=torch.float32)  # many times faster than testing each
    if name == "threshold" and bool(total == torch.inf):
        return
    if not bool(total.isfinite()):
        kind = str(tensor.dtype).removeprefix("torch.")
        raise CorruptDataError(
            f"{place} holds weights in {name} that are not finite in {kind}",
            hint="use a checkpoint from before its training diverged, or try --dtype fp32",
        )
