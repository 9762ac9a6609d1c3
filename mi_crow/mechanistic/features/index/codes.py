"""All activations of a corpus, kept sparse: sorted by feature within chunks of tokens.

A code is one activation: a token, a latent that fires on it, and how strongly. A chunk holds its
codes by feature, so that all codes of a few features can be read from all chunks
(`feature_blocks`), and its latents by token, for co-activation. Both are ragged: a token on which
thousands of latents fire takes no space from the others. Chunks stay on the device that made them
up to a budget; beyond it they go to files that are mapped, so that neither its memory nor the
host's grows with the corpus. A mapped file holds a file descriptor, of which a process may have
few: as many chunks stay mapped as it can afford, and the others are mapped while they are read.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor

from mi_crow.mechanistic.features.index.primitives import bincount, repeat
from mi_crow.mechanistic.features.index.segments import (
    random_keys,
    segment_batches,
    segment_ids,
    sorted_codes,
    starts_of,
)

_BUDGET = 512 * 1024**2  # bytes of codes in memory before chunks go to files
_BLOCK_CODES = 1 << 20
_BLOCK_FEATURES = 4096
_MOST_MAPPED = 4096  # chunks: half of the 65,530 maps that Linux allows a process


@dataclass(frozen=True)
class CodedTokens:
    """n tokens, outliers left out, and their codes token by token; all on one device."""

    document: Tensor  # int32 [n]: number of the document in the index, ascending
    position: Tensor  # int32 [n]: position in the document, ascending within one
    rows: Tensor  # int32 [codes]: the token of each code, ascending
    latents: Tensor  # int16 or int32 [codes]
    values: Tensor  # float32 [codes], all above 0


@dataclass(frozen=True)
class Chunk:
    """Some tokens and their codes; on the device that made them, or mapped from files."""

    document: Tensor  # int32 [n]
    position: Tensor  # int32 [n]
    draw: Tensor  # int32 [n], from 0: what random choices go by
    starts: Tensor  # int64 [n_latents + 1], on the CPU: codes of f are starts[f]:starts[f + 1]
    rows: Tensor  # int32 [codes]: token of each code, by latent, ascending within one
    values: Tensor  # float32 [codes], by latent, all above 0
    token_starts: Tensor  # int64 [n + 1]: where the latents of each token begin
    latents: Tensor  # int16 or int32 [codes], by token

    @property
    def bytes(self) -> int:
        return sum(tensor.nbytes for tensor in vars(self).values())

    def firing(self, tokens: Tensor) -> Tensor:
        """How many latents fire on each of some tokens: int64 [tokens]."""
        return self.token_starts.diff().index_select(0, tokens)

    def latents_of(self, tokens: Tensor, firing: Tensor) -> Tensor:
        """The latents that fire on some tokens, one token's after another's: [sum of `firing`]."""
        starts = starts_of(firing)
        total = int(starts[-1])
        shifts = self.token_starts.index_select(0, tokens) - starts[:-1]
        places = repeat(shifts, firing, total)
        places += torch.arange(total, device=places.device)
        return self.latents.index_select(0, places)


@dataclass(frozen=True)
class FeatureBlock:
    """All codes of the features first .. last - 1, by feature and then in order of the tokens; all
    on one device."""

    first: int
    last: int
    starts: Tensor  # int64 [features + 1]
    feature: Tensor  # int64 [codes]: counted from `first`
    document: Tensor  # int32 [codes]
    position: Tensor  # int32 [codes]
    draw: Tensor  # int32 [codes], from 0
    values: Tensor  # float32 [codes]

    @property
    def n_features(self) -> int:
        return self.last - self.first


def latent_dtype(n_latents: int) -> torch.dtype:
    """The smaller type that holds every latent."""
    return torch.int16 if n_latents <= 1 << 15 else torch.int32


def make_chunk(tokens: CodedTokens, n_latents: int, seed: int) -> Chunk:
    """Sorts the codes of some tokens by latent."""
    n = len(tokens.document)
    row_bits = max(n - 1, 0).bit_length()
    keys = tokens.latents.long()
    fires = bincount(keys, n_latents)
    keys <<= row_bits
    keys |= tokens.rows
    keys, values = sorted_codes(keys, tokens.values, (n_latents - 1).bit_length() + row_bits)
    return Chunk(
        tokens.document,
        tokens.position,
        random_keys(tokens.document, tokens.position, seed),
        starts_of(fires).cpu(),
        (keys & ((1 << row_bits) - 1)).int(),
        values,
        starts_of(bincount(tokens.rows.long(), n)),
        tokens.latents,
    )


class Chunks(Sequence[Chunk]):
    """Chunks in memory and in files. Every pass reads all of them in order, so that the ones that
    were mapped first stay mapped: of those kept by latest use none would be met again."""

    def __init__(self, most_mapped: int | None = None) -> None:
        """`most_mapped` chunks stay mapped; as many as the process can afford by default."""
        self._room = _affordable() if most_mapped is None else most_mapped
        self._chunks: list[Chunk | tuple[Path, int]] = []

    def append(self, chunk: Chunk) -> None:
        """Keeps a chunk in memory."""
        self._chunks.append(chunk)

    def append_saved(self, folder: Path, number: int) -> None:
        """Adds a chunk that `save_chunk` wrote."""
        self._chunks.append(open_chunk(folder, number) if self._room > 0 else (folder, number))
        self._room -= 1

    def __len__(self) -> int:
        return len(self._chunks)

    @overload
    def __getitem__(self, index: int) -> Chunk: ...

    @overload
    def __getitem__(self, index: slice) -> list[Chunk]: ...

    def __getitem__(self, index: int | slice) -> Chunk | list[Chunk]:
        if isinstance(index, slice):
            return [self[n] for n in range(*index.indices(len(self)))]
        found = self._chunks[index]
        return found if isinstance(found, Chunk) else open_chunk(*found)

    def __iter__(self) -> Iterator[Chunk]:
        return (self[n] for n in range(len(self)))


def _affordable() -> int:
    """Chunks that may stay mapped: with half of the files that the process may have open."""
    try:
        import resource
    except ImportError:  # Windows, which has no such limit on maps
        return _MOST_MAPPED
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most == resource.RLIM_INFINITY:
        return _MOST_MAPPED
    return min(_MOST_MAPPED, most // (2 * len(fields(Chunk))))


class CodeStore:
    """The chunks of a whole corpus, in order of the tokens."""

    def __init__(self, folder: Path, n_latents: int, budget: int = _BUDGET) -> None:
        """`folder` is for chunks beyond `budget` bytes; its creator removes it."""
        self.n_latents = n_latents
        self.chunks: Chunks = Chunks()
        self.device: torch.device = torch.device("cpu")  # where chunks are made and blocks gathered
        self._folder = folder
        self._room = budget

    def add(self, chunk: Chunk) -> None:
        """All chunks come from one device."""
        self.device = chunk.values.device
        self._room -= chunk.bytes
        if self._room >= 0:
            self.chunks.append(chunk)
        else:
            number = len(self.chunks)
            save_chunk(chunk, self._folder, number)
            self.chunks.append_saved(self._folder, number)

    def counts(self) -> Tensor:
        """Codes of each latent: int64 [n_latents], on the CPU."""
        total = torch.zeros(self.n_latents, dtype=torch.int64)
        for chunk in self.chunks:
            total += chunk.starts.diff()
        return total

    def block_ranges(self, most_codes: int = _BLOCK_CODES) -> Iterator[tuple[int, int]]:
        """(first, last + 1) of all features in order, some at a time; one with more than
        `most_codes` codes comes by itself."""
        for first, last in segment_batches(starts_of(self.counts()), most_codes):
            for begin in range(first, last, _BLOCK_FEATURES):
                yield begin, min(begin + _BLOCK_FEATURES, last)

    def feature_blocks(self, most_codes: int = _BLOCK_CODES) -> Iterator[FeatureBlock]:
        """All features in order, a block at a time."""
        for first, last in self.block_ranges(most_codes):
            yield gather_block(self.chunks, first, last, self.device)


def save_chunk(
    chunk: Chunk, folder: Path, number: int, instead: Mapping[str, Tensor] | None = None
) -> None:
    """Writes a chunk's files; with `instead` only these, which take the place of its tensors."""
    for name, tensor in (vars(chunk) if instead is None else instead).items():
        path = _path(folder, number, name)
        path.unlink(missing_ok=True)  # it may be mapped: what is mapped stays as it was
        np.save(path, tensor.cpu().numpy())


def open_chunk(folder: Path, number: int) -> Chunk:
    """A chunk that `save_chunk` wrote, mapped from its files."""
    tensors: dict[str, Any] = {}
    for one in fields(Chunk):
        # Copy on write: torch requires writable memory.
        mapped = np.load(_path(folder, number, one.name), mmap_mode="c")
        tensors[one.name] = torch.from_numpy(mapped)
    return Chunk(**tensors)


def _path(folder: Path, number: int, name: str) -> Path:
    return folder / f"{number:06d}-{name}.npy"


def gather_block(
    chunks: Sequence[Chunk], first: int, last: int, device: torch.device | str = "cpu"
) -> FeatureBlock:
    """The codes of some features from all chunks, on `device`."""
    # Copies: a view would keep each chunk's files open.
    cuts = [chunk.starts[first : last + 1].clone() for chunk in chunks]
    starts = starts_of(sum((cut.diff() for cut in cuts), torch.zeros(last - first).long()))
    total = int(starts[-1])
    begins = starts[:-1].clone()  # where each feature's codes of the next chunk go
    columns = [
        torch.empty(total, dtype=kind, device=device)
        for kind in (torch.int32, torch.int32, torch.int32, torch.float32)
    ]
    for chunk, cut in zip(chunks, cuts, strict=True):
        length = cut.diff()
        codes = slice(int(cut[0]), int(cut[-1]))
        rows = chunk.rows[codes]
        shifts = (begins - (cut[:-1] - cut[0])).to(device)
        places = repeat(shifts, length.to(device), len(rows))
        places += torch.arange(len(rows), device=device)
        of_tokens = (chunk.document, chunk.position, chunk.draw)
        found = [*(column.index_select(0, rows) for column in of_tokens), chunk.values[codes]]
        for column, values in zip(columns, found, strict=True):
            column.scatter_(0, places, values.to(device))
        begins += length
    starts = starts.to(device)
    return FeatureBlock(first, last, starts, segment_ids(starts, total), *columns)
