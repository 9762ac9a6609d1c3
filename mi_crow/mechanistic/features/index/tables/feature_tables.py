"""Fills the tables that depend on activations, a block of features at a time."""

from collections.abc import Mapping
from contextlib import closing
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mi_crow.mechanistic.features.config import IndexConfig
from mi_crow.mechanistic.features.index.codes import CodeStore, FeatureBlock, gather_block
from mi_crow.mechanistic.features.index.encode_pass import Corpus
from mi_crow.mechanistic.features.index.in_order import map_in_order
from mi_crow.mechanistic.features.index.primitives import columns
from mi_crow.mechanistic.features.index.tables.coactivation import TokenSample, coactivations
from mi_crow.mechanistic.features.index.tables.examples import choose, pool, with_windows
from mi_crow.mechanistic.features.index.tables.labels import (
    LabelledDocuments,
    label_scores,
    labelled_documents,
)
from mi_crow.mechanistic.features.index.tables.statistics import HistogramBins, moments
from mi_crow.mechanistic.features.index.write import TableWriter, equal_lists, lists
from mi_crow.progress import Progress, raise_if_stopped
from mi_crow.share import WHOLE, Share

# Blocks processed at once, which bounds the memory. Other devices than the CPU serialise their work
# anyway: one thread prepares a block while the previous one is written.
_BLOCKS_AT_ONCE = {"cpu": 2}

_Tables = list[tuple[str, dict[str, Any]]]  # rows for each table, by column


class FeatureTables:
    """Writes `features`, `examples`, `labels`, `feature_labels` and `coactivations`."""

    def __init__(
        self,
        writer: TableWriter,
        config: IndexConfig,
        corpus: Corpus,
        bins: HistogramBins,
        weights: Mapping[str, np.ndarray],
        share: Share = WHOLE,
    ) -> None:
        """`weights`: columns of `features` [n_latents] that the weights gave. `share`: the blocks
        of features that are written here."""
        self._share = share
        self._writer = writer
        self._config = config
        self._corpus = corpus
        self._bins = bins
        self._weights = weights
        heldout = np.concatenate(corpus.heldout) if corpus.heldout else np.zeros(0, dtype=bool)
        lengths = np.concatenate(corpus.lengths) if corpus.lengths else np.zeros(0, dtype=np.int64)
        self._lengths = torch.from_numpy(lengths)
        self._documents = labelled_documents(corpus.labels, heldout)
        self._sampled = 0

    def write(self, codes: CodeStore, progress: Progress) -> None:
        """Raises CancelledError between two blocks when asked to stop."""
        if self._share.is_first:
            self._write_labels()
        chunks = codes.chunks
        sample = TokenSample(self._corpus.n_tokens, codes.n_latents)
        self._sampled = sample.count(chunks)
        device = codes.device
        fires = sample.fires(chunks, codes.n_latents).to(device)
        documents, lengths = self._documents.to(device), self._lengths.to(device)

        @torch.inference_mode()
        def block_tables(features: tuple[int, int]) -> _Tables:
            block = gather_block(chunks, *features, device)
            tables = self._block_tables(block, documents, lengths)
            count = self._config.coactivations
            found = coactivations(chunks, sample, fires, range(*features), count)
            return [*tables, ("coactivations", dict(columns(found)))]

        at_once = _BLOCKS_AT_ONCE.get(device.type, 1)
        own = (one for n, one in enumerate(codes.block_ranges()) if self._share.mine(n))
        with closing(map_in_order(block_tables, own, at_once)) as blocks:
            for tables in blocks:
                raise_if_stopped(progress)
                for table, filled in tables:
                    self._writer.append(table, filled)

    def facts(self) -> dict[str, Any]:
        """For `meta`."""
        return {
            "histogram_edges": self._bins.edges,
            "coactivation_tokens": self._sampled,
            "labels_left_out": self._documents.left_out,
        }

    def _write_labels(self) -> None:
        names = self._documents.names
        counts = torch.bincount(self._documents.label + 1, minlength=len(names) + 1)
        of_names = counts[1 : len(names) + 1].numpy()
        self._writer.append("labels", {"label": list(names), "documents": of_names})

    def _block_tables(
        self, block: FeatureBlock, documents: LabelledDocuments, lengths: Tensor
    ) -> _Tables:
        """What a block adds to each table. `lengths` [documents] counts tokens; all arguments are
        on one device."""
        config, found = self._config, columns(moments(block))
        pooled = pool(block)
        scores = columns(label_scores(pooled, documents))
        top_label, top_auroc = _best(scores["auroc"], documents.names, found["fires"])
        features = {
            "feature": np.arange(block.first, block.last, dtype=np.int32),
            **found,
            "density": found["fires"] / max(self._corpus.n_tokens, 1),
            "histogram": equal_lists(self._bins.histograms(block).cpu().numpy()),
            "top_label": top_label,
            "top_auroc": top_auroc,
            **{name: column[block.first : block.last] for name, column in self._weights.items()},
        }
        chosen = choose(block, pooled, config.top_examples, config.bands, config.band_examples)
        examples = columns(with_windows(block, chosen, lengths, config.window))
        acts = lists(examples.pop("acts"), examples.pop("window_length"))
        tables: _Tables = [("features", features), ("examples", {**examples, "acts": acts})]
        if documents.names:
            tables.append(("feature_labels", _score_rows(block, scores, documents.names)))
        return tables


def _score_rows(
    block: FeatureBlock, scores: Mapping[str, np.ndarray], names: tuple[str, ...]
) -> dict[str, Any]:
    import pyarrow as pa

    features = np.arange(block.first, block.last, dtype=np.int32)
    places = np.tile(np.arange(len(names), dtype=np.int32), len(features))
    return {
        "feature": np.repeat(features, len(names)),
        "label": pa.DictionaryArray.from_arrays(places, pa.array(names)),
        **{name: _nullable(values.ravel()) for name, values in scores.items()},
    }


def _best(auroc: np.ndarray, names: tuple[str, ...], fires: np.ndarray) -> tuple[Any, Any]:
    """The label of the highest AUROC of each feature that fires, and that AUROC."""
    import pyarrow as pa

    if not names:
        return pa.nulls(len(fires), pa.string()), pa.nulls(len(fires), pa.float64())
    known = np.where(np.isnan(auroc), -1.0, auroc)
    place = known.argmax(1)
    value = known[np.arange(len(fires)), place]
    missing = (value < 0) | (fires == 0)
    label = pa.array(names).take(pa.array(place, mask=missing))
    return label, pa.array(value, mask=missing)


def _nullable(values: np.ndarray) -> Any:
    import pyarrow as pa

    return pa.array(values, mask=np.isnan(values))
