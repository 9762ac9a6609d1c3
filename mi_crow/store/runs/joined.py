"""Several layers of one run, read side by side: for SAEs over several layers."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from mi_crow.errors import UserError
from mi_crow.store.runs.manifest import LayerSpec, RunManifest
from mi_crow.store.runs.parts import HELDOUT, Part, RunPart
from mi_crow.store.runs.reader import RunReader, Selection, median_of
from mi_crow.store.runs.reads import EVERY_ROW, Reads


class JoinedPart(Part):
    """One part of a run at several layers; `norms` are the largest over layers."""

    def __init__(self, parts: Sequence[RunPart]) -> None:
        self._parts = tuple(parts)

    def __len__(self) -> int:
        return len(self._parts[0])

    def take(self, index: slice | Tensor) -> Tensor:
        """Rows [m, sum of the widths]."""
        rows = [part.take(index) for part in self._parts]
        kinds = {one.dtype for one in rows}
        return torch.cat(rows if len(kinds) == 1 else [one.float() for one in rows], dim=1)

    @property
    def norms(self) -> Tensor:
        return torch.stack([part.norms for part in self._parts]).amax(dim=0)

    def columns(self, *names: str) -> pa.Table:
        return self._parts[0].columns(*names)


class JoinedReader:
    """Layers of a run, or of runs over the same tokens, as one, called `called`; the manifest is
    that of the last."""

    def __init__(self, readers: Sequence[RunReader], called: str) -> None:
        self.readers: tuple[RunReader, ...] = tuple(readers)
        self.manifest: RunManifest = self.readers[-1].manifest
        self.layer: LayerSpec = replace(self.readers[0].layer, name=called, width=self.width)

    @property
    def width(self) -> int:
        return sum(reader.width for reader in self.readers)

    @property
    def n_tokens(self) -> int:
        return self.readers[0].n_tokens

    def parts(self, first: int = 0, step: int = 1) -> Iterator[JoinedPart]:
        """The parts in the order of the manifest, every `step`-th from `first` on, opened one by
        one."""
        for parts in zip(*(reader.parts(first, step) for reader in self.readers), strict=True):
            yield JoinedPart(parts)


class JoinedTokens:
    """A source of training tokens: the same tokens at several layers, also of several runs, side by
    side, each layer in units of its own: its median norm is the square root of its width.

    A token's norm is that of all layers that are read, in these units.
    """

    live = False  # see `TokenSource`

    def __init__(self, readers: Sequence[RunReader], n_read: int | None = None) -> None:
        """`n_read`: the first so many are read by the SAE, the others predicted (None: all are
        read). Raises UserError for a layer whose
        median norm is 0, and for runs whose parts differ."""
        self.readers: tuple[RunReader, ...] = tuple(readers)
        self._read = self.readers[: n_read or len(readers)]
        sizes = {tuple(part.tokens for part in one.manifest.parts) for one in self.readers}
        if len(sizes) > 1:
            raise UserError(
                "the runs do not hold the same tokens", hint="capture the same texts for both"
            )
        # All have rows of this size for the question whether they fit, and are cut alike.
        self._row_bytes = sum(reader.row_bytes for reader in self.readers)
        self.scales: tuple[float, ...] = tuple(map(_scale_of, self.readers))
        self._selections: dict[tuple[bool, float | None], Selection] = {}

    @property
    def widths(self) -> tuple[int, ...]:
        return tuple(reader.width for reader in self.readers)

    @property
    def width(self) -> int:
        return sum(self.widths)

    def count(self, split: str = "train", max_norm: float | None = None) -> int:
        return self._select(split, max_norm).count

    def median_norm(self) -> float:
        return median_of(self._norms, self._n)

    def median_largest_norm(self) -> float:
        """The median of the largest norm of a token over the layers read, as they were captured:
        what `JoinedPart.norms` compares with."""
        return median_of(lambda: self._over_layers(np.maximum, (1.0,) * len(self._read)), self._n)

    def batches(
        self,
        batch_size: int,
        seed: int,
        split: str = "train",
        max_norm: float | None = None,
        start: int = 0,
        reads: Reads = EVERY_ROW,
    ) -> Iterator[Tensor]:
        """As `RunReader.batches`, in fp32."""
        selection = self._select(split, max_norm)
        every = (
            reader.selected_batches(selection, batch_size, seed, start, self._row_bytes, reads)
            for reader in self.readers
        )
        for rows in zip(*every, strict=True):
            yield self._together(rows)

    def sample(
        self, n: int, seed: int, split: str = "train", max_norm: float | None = None
    ) -> Tensor:
        """As `RunReader.sample`, in fp32."""
        selection = self._select(split, max_norm)
        return self._together(
            [reader.selected_sample(selection, n, seed, self._row_bytes) for reader in self.readers]
        )

    @property
    def _n(self) -> int:
        return self.readers[0].n_tokens

    def _together(self, rows: Sequence[Tensor]) -> Tensor:
        scaled = [part.float() * scale for part, scale in zip(rows, self.scales, strict=True)]
        return torch.cat(scaled, dim=1)

    def _norms(self) -> Iterator[np.ndarray]:
        return self._over_layers(np.hypot, self.scales)

    def _over_layers(self, add: np.ufunc, scales: Sequence[float]) -> Iterator[np.ndarray]:
        """For each part the norms of all layers read, each times its scale, added by `add`."""
        for of_layers in zip(*(reader.stored_norms() for reader in self._read), strict=True):
            total = of_layers[0] * np.float32(scales[0])
            for norms, scale in zip(of_layers[1:], scales[1:], strict=False):
                total = add(total, norms * np.float32(scale))
            yield total

    def _select(self, split: str, max_norm: float | None) -> Selection:
        key = split == HELDOUT, max_norm
        if key not in self._selections:
            splits = self.readers[0].row_splits()
            masks = tuple(
                (own if key[0] else ~own) & (norms <= (np.inf if max_norm is None else max_norm))
                for own, norms in zip(splits, self._norms(), strict=True)
            )
            ends = np.cumsum([0, *(int(mask.sum()) for mask in masks)])
            self._selections[key] = Selection(split, masks, ends)
        return self._selections[key]


def _scale_of(reader: RunReader) -> float:
    median = reader.median_norm()
    if not 0 < median < float("inf"):
        raise UserError(
            f"the activations of layer {reader.layer.name!r} have a median norm of {median:g}",
            hint="capture the layer again, or leave it out",
        )
    return float(reader.width**0.5 / median)
