"""What several processes found in the corpus, as one process would have found it."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mi_crow.mechanistic.features.index.codes import Chunk, CodeStore, open_chunk, save_chunk
from mi_crow.mechanistic.features.index.encode_pass import Corpus
from mi_crow.mechanistic.features.index.ranked.numbering import (
    Numbering,
    Place,
    in_order,
    numberings,
)
from mi_crow.mechanistic.features.index.segments import random_keys
from mi_crow.mechanistic.features.index.tables.statistics import BinFitter
from mi_crow.share import Share


class ChunkFiles:
    """The chunks of one process, in files of its folder."""

    def __init__(self, folder: Path) -> None:
        self.folder: Path = folder
        self.firsts: list[int] = []  # document of the first token of each chunk

    def add(self, chunk: Chunk) -> None:
        if len(chunk.document):
            save_chunk(chunk, self.folder, len(self.firsts))
            self.firsts.append(int(chunk.document[0]))

    def renumber(self, numbering: Numbering, seed: int) -> None:
        """Gives the documents their numbers in the index, and what is drawn by them."""
        for number, first in enumerate(self.firsts):
            chunk = open_chunk(self.folder, number)
            document = torch.from_numpy(numbering.of(chunk.document.numpy()))
            draw = random_keys(document, chunk.position, seed)
            save_chunk(chunk, self.folder, number, {"document": document, "draw": draw})
            self.firsts[number] = int(numbering.of(np.array([first]))[0])


@dataclass
class Merged:
    """The whole corpus, the same in every process."""

    corpus: Corpus
    bins: BinFitter
    numberings: tuple[Numbering, ...]  # of each process
    codes: CodeStore = field(repr=False)


def merged(
    share: Share,
    corpus: Corpus,
    bins: BinFitter,
    files: ChunkFiles,
    n_latents: int,
    seed: int,
    device: torch.device,
) -> Merged:
    """Joins what every process found. All call it. Raises RankLostError."""
    found = share.gather(_as_arrays(corpus, bins))
    places = [[_place(row) for row in one["places"]] for one in found]
    counts = [one["documents"] for one in found]
    order = in_order(places)
    of_ranks = numberings(order, counts)
    whole, all_bins = _joined(found, order), BinFitter()
    for one in found:
        all_bins.add(torch.from_numpy(one["bins"]))
    files.renumber(of_ranks[share.ranks.rank], seed)
    codes = CodeStore(share.folder, n_latents)
    codes.device = device
    firsts = share.gather({"firsts": np.array(files.firsts, dtype=np.int64)})
    chunks = sorted(
        (first, rank, number)
        for rank, one in enumerate(firsts)
        for number, first in enumerate(one["firsts"].tolist())
    )
    for _, rank, number in chunks:
        codes.chunks.append_saved(share.own_folder(rank), number)
    return Merged(whole, all_bins, of_ranks, codes)


def _as_arrays(corpus: Corpus, bins: BinFitter) -> dict[str, np.ndarray]:
    documents = [len(lengths) for lengths in corpus.lengths]
    labels = json.dumps(corpus.labels).encode()
    return {
        "places": np.array(corpus.places, dtype=np.int64).reshape(-1, 3),
        "documents": np.array(documents, dtype=np.int64),
        "heldout": np.concatenate([np.zeros(0, dtype=bool), *corpus.heldout]),
        "lengths": np.concatenate([np.zeros(0, dtype=np.int64), *corpus.lengths]),
        "labels": np.frombuffer(labels, dtype=np.uint8),
        "tokens": np.array([corpus.n_tokens, corpus.n_outliers], dtype=np.int64),
        "bins": _on_host(bins.counts),
    }


def _joined(found: list[dict[str, np.ndarray]], order: list[tuple[int, int]]) -> Corpus:
    """The corpus in the order in which one process reads it."""
    labels = [json.loads(one["labels"].tobytes()) for one in found]
    ends = [np.cumsum(one["documents"]) for one in found]
    whole = Corpus()
    for rank, part in order:
        some = slice(int(ends[rank][part] - found[rank]["documents"][part]), int(ends[rank][part]))
        whole.labels.extend(labels[rank][some])
        whole.heldout.append(found[rank]["heldout"][some])
        whole.lengths.append(found[rank]["lengths"][some])
        whole.places.append(_place(found[rank]["places"][part]))
    whole.n_tokens, whole.n_outliers = (int(sum(one["tokens"][n] for one in found)) for n in (0, 1))
    return whole


def _place(row: np.ndarray) -> Place:
    source, part, piece = row.tolist()
    return source, part, piece


def _on_host(counts: Tensor) -> np.ndarray:
    return counts.cpu().numpy()
