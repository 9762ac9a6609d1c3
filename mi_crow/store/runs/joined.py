"""Several layers of one run, read side by side: for SAEs over several layers."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import torch
from torch import Tensor

from mi_crow.store.runs.manifest import LayerSpec, RunManifest
from mi_crow.store.runs.parts import Part, RunPart
from mi_crow.store.runs.reader import RunReader


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
    """The layers `names` of a run as one, called `called`. Raises what `RunReader` does."""

    def __init__(self, run_dir: Path, names: Sequence[str], called: str) -> None:
        self.readers: tuple[RunReader, ...] = tuple(RunReader(run_dir, name) for name in names)
        first = self.readers[0]
        self.manifest: RunManifest = first.manifest
        self.layer: LayerSpec = replace(first.layer, name=called, width=self.width)

    @property
    def width(self) -> int:
        return sum(reader.width for reader in self.readers)

    @property
    def n_tokens(self) -> int:
        return self.readers[0].n_tokens

    def parts(self) -> Iterator[JoinedPart]:
        """The parts in the order of the manifest, opened one by one."""
        for parts in zip(*(reader.parts() for reader in self.readers), strict=True):
            yield JoinedPart(parts)
