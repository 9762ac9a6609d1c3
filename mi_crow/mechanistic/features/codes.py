"""Everything that fired, kept sparse: sorted by feature within chunks of tokens.

A chunk holds its codes by feature, so that all codes of a few features can be read from all chunks
(`feature_blocks`), and its tokens' latents by token, for what fires together. Beyond a budget
chunks go to files that are mapped, so memory does not grow with the corpus.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mi_crow.mechanistic.features.segments import draws, owners, pieces, sorted_codes, starts_of

_BUDGET = 512 * 1024**2  # bytes of codes held in memory before chunks go to files
_BLOCK_CODES = 1 << 20
_BLOCK_FEATURES = 4096


@dataclass(frozen=True)
class Tokens:
    """n tokens that count, with the latents that may be active on each."""

    document: np.ndarray  # int32 [n]: number of the document in the index, ascending
    position: np.ndarray  # int32 [n]: place in the document, ascending within one
    values: np.ndarray  # float32 [n, k], 0 where inactive
    latents: np.ndarray  # int32 or uint16 [n, k]


@dataclass(frozen=True)
class Chunk:
    """Some tokens and their codes."""

    document: np.ndarray  # int32 [n]
    position: np.ndarray  # int32 [n]
    draw: np.ndarray  # uint32 [n]: what random choices go by
    latents: np.ndarray  # [n, k]: active latents of each token, n_latents where there is none
    starts: np.ndarray  # int64 [n_latents + 1]: codes of latent f are starts[f]:starts[f + 1]
    rows: np.ndarray  # int32 [codes]: token of each code, ascending within a latent
    values: np.ndarray  # float32 [codes], all above 0

    @property
    def bytes(self) -> int:
        return sum(array.nbytes for array in vars(self).values())


@dataclass(frozen=True)
class FeatureBlock:
    """All codes of the features first .. last - 1, by feature and then in order of the tokens."""

    first: int
    last: int
    starts: np.ndarray  # int64 [features + 1]
    feature: np.ndarray  # int64 [codes]: counted from `first`
    document: np.ndarray  # int32 [codes]
    position: np.ndarray  # int32 [codes]
    draw: np.ndarray  # uint32 [codes]
    values: np.ndarray  # float32 [codes]

    @property
    def n_features(self) -> int:
        return self.last - self.first


def latent_dtype(n_latents: int) -> Any:
    """The smallest type that holds every latent and the mark for none."""
    return np.uint16 if n_latents < 1 << 16 else np.int32


def make_chunk(tokens: Tokens, n_latents: int, seed: int) -> Chunk:
    """Sorts the codes of some tokens by latent."""
    n, k = tokens.values.shape
    active = tokens.values > 0
    latents = np.where(active, tokens.latents, n_latents).astype(latent_dtype(n_latents))
    rows = np.repeat(np.arange(n, dtype=np.int32), k).reshape(n, k)
    features, ordered_rows, values = sorted_codes(
        latents[active], rows[active], tokens.values[active], n_latents, max(n, 1)
    )
    counts = np.bincount(features, minlength=n_latents)
    return Chunk(
        tokens.document,
        tokens.position,
        draws(tokens.document, tokens.position, seed),
        latents,
        starts_of(counts),
        ordered_rows,
        values,
    )


class CodeStore:
    """The chunks of a whole corpus, in order of the tokens."""

    def __init__(self, folder: Path, n_latents: int, budget: int = _BUDGET) -> None:
        """`folder` is for chunks beyond `budget` bytes; who made it removes it."""
        self.n_latents = n_latents
        self.chunks: list[Chunk] = []
        self._folder = folder
        self._room = budget

    def add(self, chunk: Chunk) -> None:
        self._room -= chunk.bytes
        self.chunks.append(chunk if self._room >= 0 else self._on_disk(chunk))

    def counts(self) -> np.ndarray:
        """Codes of each latent: int64 [n_latents]."""
        total = np.zeros(self.n_latents, dtype=np.int64)
        for chunk in self.chunks:
            total += np.diff(chunk.starts)
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
            yield gather_block(self.chunks, first, last)

    def _on_disk(self, chunk: Chunk) -> Chunk:
        arrays = {}
        for name, array in vars(chunk).items():
            path = self._folder / f"{len(self.chunks):06d}-{name}.npy"
            np.save(path, array)
            arrays[name] = np.load(path, mmap_mode="r")
        return Chunk(**arrays)


def gather_block(chunks: Sequence[Chunk], first: int, last: int) -> FeatureBlock:
    """The codes of some features from all chunks."""
    cuts = [np.asarray(chunk.starts[first : last + 1]) for chunk in chunks]
    lengths = [np.diff(cut) for cut in cuts]
    starts = starts_of(sum(lengths, np.zeros(last - first, dtype=np.int64)))
    total = int(starts[-1])
    document, position = np.empty(total, dtype=np.int32), np.empty(total, dtype=np.int32)
    draw, values = np.empty(total, dtype=np.uint32), np.empty(total, dtype=np.float32)
    begins = starts[:-1].copy()  # where each feature's codes of the next chunk go
    for chunk, cut, length in zip(chunks, cuts, lengths, strict=True):
        codes = slice(int(cut[0]), int(cut[-1]))
        rows = chunk.rows[codes]
        places = np.repeat(begins - (cut[:-1] - cut[0]), length)
        places += np.arange(len(places))
        document[places] = chunk.document[rows]
        position[places] = chunk.position[rows]
        draw[places] = chunk.draw[rows]
        values[places] = chunk.values[codes]
        begins += length
    return FeatureBlock(first, last, starts, owners(starts), document, position, draw, values)
