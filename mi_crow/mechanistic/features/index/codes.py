"""Everything that fired, kept sparse: sorted by feature within chunks of tokens.

A chunk holds its codes by feature, so that all codes of a few features can be read from all chunks
(`feature_blocks`), and its tokens' latents by token, for what fires together. Chunks stay on the
device that made them up to a budget; beyond it they go to files that are mapped, so that neither
its memory nor the host's grows with the corpus.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mi_crow.mechanistic.features.index.primitives import counts, repeat, where_true
from mi_crow.mechanistic.features.index.segments import (
    draws,
    owners,
    pieces,
    sorted_codes,
    starts_of,
)

_BUDGET = 512 * 1024**2  # bytes of codes held in memory before chunks go to files
_BLOCK_CODES = 1 << 20
_BLOCK_FEATURES = 4096


class Codes(NamedTuple):
    """What fired on some tokens, token after token."""

    rows: Tensor  # int32 [codes]: the token
    latents: Tensor  # int16 or int32 [codes]
    values: Tensor  # float32 [codes], all above 0


@dataclass(frozen=True)
class Tokens:
    """n tokens that count, with the latents that may be active on each; all on one device."""

    document: Tensor  # int32 [n]: number of the document in the index, ascending
    position: Tensor  # int32 [n]: place in the document, ascending within one
    values: Tensor  # float32 [n, k], 0 where inactive
    latents: Tensor  # int16 or int32 [n, k]

    @cached_property
    def active(self) -> Tensor:
        """Which of the latents fire: bool [n, k]."""
        return self.values > 0

    @cached_property
    def codes(self) -> Codes:
        n, k = self.values.shape
        numbers = torch.arange(n, dtype=torch.int32, device=self.values.device)
        if bool(self.active.all()):
            rows = numbers[:, None].expand(n, k).reshape(-1)
            return Codes(rows, self.latents.reshape(-1), self.values.reshape(-1))
        places = where_true(self.active.view(-1))
        return Codes(
            repeat(numbers, self.active.sum(1), len(places)),
            self.latents.reshape(-1).index_select(0, places),
            self.values.reshape(-1).index_select(0, places),
        )


@dataclass(frozen=True)
class Chunk:
    """Some tokens and their codes; on the device that made them, or mapped from files."""

    document: Tensor  # int32 [n]
    position: Tensor  # int32 [n]
    draw: Tensor  # int32 [n], from 0: what random choices go by
    latents: Tensor  # [n, k]: active latents of each token, n_latents where there is none
    starts: Tensor  # int64 [n_latents + 1], on the CPU: codes of f are starts[f]:starts[f + 1]
    rows: Tensor  # int32 [codes]: token of each code, ascending within a latent
    values: Tensor  # float32 [codes], all above 0

    @property
    def bytes(self) -> int:
        return sum(tensor.nbytes for tensor in vars(self).values())


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
    """The smaller type that holds every latent and the mark for none."""
    return torch.int16 if n_latents < 1 << 15 else torch.int32


def make_chunk(tokens: Tokens, n_latents: int, seed: int) -> Chunk:
    """Sorts the codes of some tokens by latent."""
    latents, codes = tokens.latents, tokens.codes
    if len(codes.values) < latents.numel():
        latents = latents.masked_fill(~tokens.active, n_latents)
    row_bits = max(len(latents) - 1, 0).bit_length()
    keys = codes.latents.long()
    fires = counts(keys, n_latents)
    keys <<= row_bits
    keys |= codes.rows
    keys, values = sorted_codes(keys, codes.values, (n_latents - 1).bit_length() + row_bits)
    return Chunk(
        tokens.document,
        tokens.position,
        draws(tokens.document, tokens.position, seed),
        latents,
        starts_of(fires).cpu(),
        (keys & ((1 << row_bits) - 1)).int(),
        values,
    )


class CodeStore:
    """The chunks of a whole corpus, in order of the tokens."""

    def __init__(self, folder: Path, n_latents: int, budget: int = _BUDGET) -> None:
        """`folder` is for chunks beyond `budget` bytes; who made it removes it."""
        self.n_latents = n_latents
        self.chunks: list[Chunk] = []
        self.device: torch.device = torch.device(
            "cpu"
        )  # where the chunks are made, and blocks are gathered
        self._folder = folder
        self._room = budget

    def add(self, chunk: Chunk) -> None:
        """All chunks come from one device."""
        self.device = chunk.values.device
        self._room -= chunk.bytes
        self.chunks.append(chunk if self._room >= 0 else self._on_disk(chunk))

    def counts(self) -> Tensor:
        """Codes of each latent: int64 [n_latents], on the CPU."""
        total = torch.zeros(self.n_latents, dtype=torch.int64)
        for chunk in self.chunks:
            total += chunk.starts.diff()
        return total

    def block_ranges(self, most_codes: int = _BLOCK_CODES) -> Iterator[tuple[int, int]]:
        """(first, last + 1) of all features in order, some at a time; one with more than
        `most_codes` codes comes alone."""
        for first, last in pieces(starts_of(self.counts()), most_codes):
            for begin in range(first, last, _BLOCK_FEATURES):
                yield begin, min(begin + _BLOCK_FEATURES, last)

    def feature_blocks(self, most_codes: int = _BLOCK_CODES) -> Iterator[FeatureBlock]:
        """All features in order, a block at a time."""
        for first, last in self.block_ranges(most_codes):
            yield gather_block(self.chunks, first, last, self.device)

    def _on_disk(self, chunk: Chunk) -> Chunk:
        tensors: dict[str, Any] = {}
        for name, tensor in vars(chunk).items():
            path = self._folder / f"{len(self.chunks):06d}-{name}.npy"
            np.save(path, tensor.cpu().numpy())
            # Copy on write: torch wants memory that may be written to.
            tensors[name] = torch.from_numpy(np.load(path, mmap_mode="c"))
        return Chunk(**tensors)


def gather_block(
    chunks: Sequence[Chunk], first: int, last: int, device: torch.device | str = "cpu"
) -> FeatureBlock:
    """The codes of some features from all chunks, on `device`."""
    cuts = [chunk.starts[first : last + 1] for chunk in chunks]
    lengths = [cut.diff() for cut in cuts]
    starts = starts_of(sum(lengths, torch.zeros(last - first, dtype=torch.int64)))
    total = int(starts[-1])
    begins = starts[:-1].clone()  # where each feature's codes of the next chunk go
    columns = [
        torch.empty(total, dtype=kind, device=device)
        for kind in (torch.int32, torch.int32, torch.int32, torch.float32)
    ]
    for chunk, cut, length in zip(chunks, cuts, lengths, strict=True):
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
    return FeatureBlock(first, last, starts, owners(starts, total), *columns)
