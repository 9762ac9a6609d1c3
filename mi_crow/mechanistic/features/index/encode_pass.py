"""The pass over a corpus: documents to the writer, activations to sorted sparse codes."""

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from mi_crow.language_model.placement.batch_size import BatchSize
from mi_crow.mechanistic.features.index.codes import (
    Chunk,
    CodedTokens,
    latent_dtype,
    make_chunk,
)
from mi_crow.mechanistic.features.index.in_order import map_in_order
from mi_crow.mechanistic.features.index.live_run import LiveRun
from mi_crow.mechanistic.features.index.primitives import (
    arithmetic_device,
    columns,
    nonzero,
)
from mi_crow.mechanistic.features.index.ranked.numbering import Place
from mi_crow.mechanistic.features.index.segments import CODE_KEY_BITS
from mi_crow.mechanistic.features.index.sources import Sources
from mi_crow.mechanistic.features.index.tables.document_features import strongest_features
from mi_crow.mechanistic.features.index.tables.statistics import BinFitter
from mi_crow.mechanistic.features.index.tables.token_texts import document_token_texts
from mi_crow.mechanistic.features.index.write import TableWriter
from mi_crow.mechanistic.sae.base import SparseAutoencoder
from mi_crow.mechanistic.sae.kernels.entries import Entries
from mi_crow.mechanistic.sae.source import device_batches, not_finite
from mi_crow.progress import Progress, raise_if_stopped
from mi_crow.share import WHOLE, Share
from mi_crow.store.runs.joined import JoinedPart, JoinedReader
from mi_crow.store.runs.parts import Part, RunPart, held_out
from mi_crow.store.runs.reader import RunReader

_BATCH = {"cpu": 2048, "cuda": 16_384}
# More on a CPU for small SAEs, since every batch has a fixed cost: this bounds the time of a batch
# (its latents) and its memory (the activations and a copy).
_BATCH_CELLS = {"cpu": 1 << 26}
_CHUNK_TOKENS = 1 << 17
_MOST_AT_ONCE = 4  # pieces processed at once on a CPU: each needs a chunk and a block
_LEAST_TOKENS = 1024  # of a piece where a part is cut so that every thread gets one


@dataclass
class Corpus:
    """What the pass finds about the documents, by their number in the index."""

    labels: list[str | None] = field(default_factory=list)
    heldout: list[np.ndarray] = field(default_factory=list)  # bool, one array per part
    lengths: list[np.ndarray] = field(default_factory=list)  # int64: tokens, special ones included
    n_tokens: int = 0  # outliers left out
    n_outliers: int = 0
    places: list[Place] = field(default_factory=list)  # one per part

    @property
    def n_documents(self) -> int:
        return len(self.labels)


class _Piece(NamedTuple):
    """Rows of whole documents."""

    part: Part
    rows: slice
    first: int  # number of the part's first document


@dataclass(frozen=True)
class _Encoded:
    """The results of a piece."""

    rows: int
    tokens: int  # that count
    chunk: Chunk
    activations: Tensor  # as BinFitter counts them
    document_features: dict[str, np.ndarray]


class Chunks(Protocol):
    """Takes the chunks of the corpus, in order."""

    def add(self, chunk: Chunk) -> None: ...


class EncodePass:
    """Reads every source once, or this process's share of the parts. Documents are numbered
    consecutively over all that is read."""

    def __init__(
        self,
        sae: SparseAutoencoder,
        codes: Chunks,
        writer: TableWriter,
        tokenizer: Any,
        seed: int,
        batch_size: int | None = None,
        share: Share = WHOLE,
        log: Callable[[str], None] | None = None,
    ) -> None:
        """`batch_size` tokens are encoded at once (None: what suits the device), fewer once memory
        runs out, which `log` hears of."""
        self._share = share
        self.corpus: Corpus = Corpus()
        self.bins: BinFitter = BinFitter()
        self._sae = sae
        self._codes = codes
        self._writer = writer
        self._tokenizer = tokenizer
        self._seed = seed
        self.size: BatchSize = BatchSize(
            batch_size or _batch_size(sae), log or _unheard, "token", "use another --device"
        )
        # Small enough for the packed sort of `make_chunk`, but at least some documents.
        spare = CODE_KEY_BITS - (sae.n_latents - 1).bit_length()
        self._chunk_tokens = min(_CHUNK_TOKENS, 1 << max(spare, 12))

    def run(self, sources: Sources, progress: Progress) -> None:
        """Raises CancelledError between two batches when asked to stop, CorruptDataError when some
        activations are not finite."""
        begun, done, total = perf_counter(), 0, sources.n_tokens
        for source, reader in enumerate(sources.readers):
            with closing(self._all_encoded(source, reader, progress)) as pieces:
                for found in pieces:
                    self._keep(found)
                    done += found.rows * self._share.ranks.world  # the others do as much
                    rate = done / max(perf_counter() - begun, 1e-9)
                    progress.update(min(done, total), total, "token", {"tokens_s": rate})

    def _all_encoded(
        self, source: int, reader: RunReader | JoinedReader | LiveRun, progress: Progress
    ) -> Generator[_Encoded, None, None]:
        """Every piece in order. On a CPU several at once, except from the running model, which
        needs all threads."""
        work = partial(self._encoded, progress=progress)
        if self._sae.device.type != "cpu" or isinstance(reader, LiveRun):
            yield from map(work, self._pieces(source, reader))
            return
        own = torch.get_num_threads()
        at_once = min(own, _MOST_AT_ONCE)
        # Cut as for the most threads: what is encoded together does not depend on their number.
        pieces = self._pieces(source, reader, _MOST_AT_ONCE)
        yield from map_in_order(work, pieces, at_once, round(own / at_once))

    def _pieces(
        self, source: int, reader: RunReader | JoinedReader | LiveRun, at_once: int = 1
    ) -> Iterator[_Piece]:
        """All rows of this process's parts; the documents of a part are written before its first
        piece is yielded. A part is cut into about equal pieces, `at_once` or a multiple of that, so
        that no thread waits long for another at the end."""
        for place, part in self._own_parts(source, reader):
            first = self.corpus.n_documents
            self.corpus.places.append(place)
            self._take_documents(part)
            for rows in _cut(part, self._shares(len(part), at_once)):
                yield _Piece(part, rows, first)

    def _own_parts(
        self, source: int, reader: RunReader | JoinedReader | LiveRun
    ) -> Iterator[tuple[Place, Part]]:
        """The parts that are read here, with their places in the order of all."""
        if isinstance(reader, LiveRun):
            for part in reader.parts(self._share.ranks):
                yield (source, *part.place), part
            return
        first, step = self._share.turn
        for number, part in enumerate(reader.parts(first, step)):
            yield (source, first + number * step, 0), part

    def _shares(self, rows: int, at_once: int) -> int:
        """How many pieces a part of `rows` rows is cut into."""
        most = self._chunk_tokens * 7 // 8  # pieces end with a document, and are a little longer
        shares = -(-rows // (most * at_once)) * at_once
        return min(shares, max(rows // min(_LEAST_TOKENS, most), 1))

    def _take_documents(self, part: Part) -> None:
        corpus, table = self.corpus, part.table
        token_ids = table["token_ids"].combine_chunks()
        texts, labels = table["text"].to_pylist(), table["label"].to_pylist()
        n = len(texts)
        pieces = document_token_texts(self._tokenizer, texts, token_ids.to_pylist())
        lengths = np.diff(token_ids.offsets.to_numpy()).astype(np.int64)
        self._writer.append(
            "documents",
            {
                "document": np.arange(corpus.n_documents, corpus.n_documents + n, dtype=np.int32),
                "text": texts,
                "label": table["label"],
                "split": table["split"],
                "token_ids": token_ids,
                "token_texts": pieces,
            },
        )
        corpus.labels.extend(labels)
        corpus.heldout.append(held_out(table))
        corpus.lengths.append(lengths)

    @torch.inference_mode()
    def _encoded(self, piece: _Piece, progress: Progress) -> _Encoded:
        tokens, n_latents = self._tokens(piece, progress), self._sae.n_latents
        return _Encoded(
            piece.rows.stop - piece.rows.start,
            len(tokens.document),
            make_chunk(tokens, n_latents, self._seed),
            self.bins.counted(tokens.values),
            columns(strongest_features(tokens, n_latents)),
        )

    def _keep(self, found: _Encoded) -> None:
        self.corpus.n_tokens += found.tokens
        self.corpus.n_outliers += found.rows - found.tokens
        self.bins.add(found.activations)
        self._codes.add(found.chunk)
        self._writer.append("document_features", found.document_features)

    def _tokens(self, piece: _Piece, progress: Progress) -> CodedTokens:
        """A piece's rows with their latents, outliers left out."""
        part, limit = piece.part, self._sae.metadata.outlier_norm
        norms = part.norms[piece.rows]
        keep = norms <= limit if limit is not None else torch.ones_like(norms, dtype=torch.bool)
        rows = keep.nonzero()[:, 0] + piece.rows.start
        split = rows.split(self.size.size)
        batches = (part.take(_as_slice(batch)) for batch in split if len(batch))
        codes: list[tuple[Tensor, Tensor, Tensor]] = []
        kind, encoded = latent_dtype(self._sae.n_latents), 0
        finite = torch.ones((), dtype=torch.bool, device=self._sae.device)
        for x in device_batches(
            batches, self._sae.device, live=not isinstance(part, RunPart | JoinedPart)
        ):
            raise_if_stopped(progress)
            # A sum of fp16 may overflow. Read once per piece, so that nothing waits for the device.
            finite &= (x.float() if x.dtype == torch.float16 else x).sum().isfinite()
            for n, values, entries in self.size.pieces(len(x), partial(self._codes_of, x)):
                tokens = entries.rows.int().add_(encoded)
                codes.append((tokens, entries.columns.to(kind), values.float()))
                encoded += n
        if not bool(finite):
            raise not_finite()
        # Numbered by position, as in `documents`: a run's own numbers may have gaps, and windows of
        # one document share theirs.
        device = arithmetic_device(self._sae.device)
        return CodedTokens(
            (piece.first + part.table_row[rows]).int().to(device),
            part.row_position[rows].int().to(device),
            *_firing_codes(codes, kind, device),
        )

    def _codes_of(self, x: Tensor, rows: slice) -> tuple[int, Tensor, Entries]:
        """How many rows of x [n, d] these are, their latents' values, and where they belong."""
        some = x[rows]
        return len(some), *self._sae.encode_entries(some)


def _unheard(_: str) -> None:
    pass


def _batch_size(sae: SparseAutoencoder) -> int:
    """Tokens encoded at once."""
    kind, of_token = sae.device.type, sae.n_latents + 2 * sae.n_inputs
    return max(_BATCH.get(kind, 4096), _BATCH_CELLS.get(kind, 0) // of_token)


def _cut(part: Part, shares: int) -> Iterator[slice]:
    """Rows of whole documents in `shares` pieces of about equal size, fewer where documents are
    longer."""
    ends = np.cumsum(part.kept_counts)
    wanted = np.arange(1, shares + 1) * len(part) // shares
    begin = 0
    for end in np.unique(ends[np.searchsorted(ends, wanted)]) if len(part) else ():
        yield slice(begin, int(end))
        begin = int(end)


def _as_slice(rows: Tensor) -> slice | Tensor:
    """Consecutive row numbers as a slice, which needs no copy."""
    begin, end = int(rows[0]), int(rows[-1]) + 1
    return slice(begin, end) if end - begin == len(rows) else rows


def _firing_codes(
    batches: list[tuple[Tensor, Tensor, Tensor]], kind: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Rows, latents and values [codes] of all batches on `device`, those of value 0 left out."""
    if not batches:
        none = torch.zeros(0, dtype=torch.int32, device=device)
        return none, none.to(kind), none.float()
    rows, latents, values = (torch.cat(of).to(device) for of in zip(*batches, strict=True))
    fires = values > 0
    if bool(fires.all()):
        return rows, latents, values
    places = nonzero(fires)
    return rows.index_select(0, places), latents[places], values[places]
