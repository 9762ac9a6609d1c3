"""Fills the tables that come from activations, a block of features at a time."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import torch

from mi_crow.language_model.loading import torch_device
from mi_crow.mechanistic.features.coactivation import TokenSample, coactivations
from mi_crow.mechanistic.features.codes import CodeStore, FeatureBlock, gather_block
from mi_crow.mechanistic.features.config import IndexConfig
from mi_crow.mechanistic.features.encode_pass import Corpus
from mi_crow.mechanistic.features.examples import choose, pool, with_windows
from mi_crow.mechanistic.features.labels import LabelScores, label_scores, labelled_documents
from mi_crow.mechanistic.features.statistics import HistogramBins, moments
from mi_crow.mechanistic.features.write import IndexWriter, equal_lists, lists
from mi_crow.progress import Progress, raise_if_stopped

_BLOCKS_AT_ONCE = 2  # what bounds the memory

_In = TypeVar("_In")
_Out = TypeVar("_Out")


class FeatureTables:
    """Writes `features`, `examples`, `labels`, `feature_labels` and `coactivations`."""

    def __init__(
        self,
        writer: IndexWriter,
        config: IndexConfig,
        corpus: Corpus,
        bins: HistogramBins,
        weights: Mapping[str, np.ndarray],
    ) -> None:
        """`weights`: columns of `features` [n_latents] that the weights gave."""
        self._writer = writer
        self._config = config
        self._corpus = corpus
        self._bins = bins
        self._weights = weights
        heldout = np.concatenate(corpus.heldout) if corpus.heldout else np.zeros(0, dtype=bool)
        self._lengths = np.concatenate(corpus.lengths) if corpus.lengths else heldout
        self._documents = labelled_documents(corpus.labels, heldout)
        self._sampled = 0

    def write(self, codes: CodeStore, progress: Progress) -> None:
        """Raises CancelledError between two blocks when asked to stop."""
        self._write_labels()
        chunks = codes.chunks
        sample = TokenSample(self._corpus.n_tokens, codes.n_latents)
        self._sampled = sample.count(chunks)
        fires = sample.fires(chunks, codes.n_latents)
        device = torch_device(self._config.device)

        def block_tables(features: tuple[int, int]) -> list[tuple[str, dict[str, Any]]]:
            tables = self._block_tables(gather_block(chunks, *features))
            count = self._config.coactivations
            found = coactivations(chunks, sample, fires, range(*features), count, device)
            return [*tables, ("coactivations", dict(vars(found)))]

        for tables in _in_order(block_tables, codes.block_ranges()):
            raise_if_stopped(progress)
            for table, columns in tables:
                self._writer.append(table, columns)

    def facts(self) -> dict[str, Any]:
        """For `meta`."""
        return {
            "histogram_edges": self._bins.edges,
            "coactivation_tokens": self._sampled,
            "labels_left_out": self._documents.left_out,
        }

    def _write_labels(self) -> None:
        names = self._documents.names
        counts = np.bincount(self._documents.label + 1, minlength=len(names) + 1)
        self._writer.append(
            "labels", {"label": list(names), "documents": counts[1 : len(names) + 1]}
        )

    def _block_tables(self, block: FeatureBlock) -> list[tuple[str, dict[str, Any]]]:
        """What a block adds to each table."""
        config, found = self._config, moments(block)
        pooled = pool(block)
        scores = label_scores(pooled, self._documents)
        top_label, top_auroc = _best(scores.auroc, self._documents.names, found.fires)
        features = {
            "feature": np.arange(block.first, block.last, dtype=np.int32),
            **vars(found),
            "density": found.fires / max(self._corpus.n_tokens, 1),
            "histogram": equal_lists(self._bins.histograms(block)),
            "top_label": top_label,
            "top_auroc": top_auroc,
            **{name: column[block.first : block.last] for name, column in self._weights.items()},
        }
        chosen = choose(block, pooled, config.top_examples, config.bands, config.band_examples)
        examples = dict(vars(with_windows(block, chosen, self._lengths, config.window)))
        acts = lists(examples.pop("acts"), examples.pop("window_length"))
        tables = [("features", features), ("examples", examples | {"acts": acts})]
        if self._documents.names:
            tables.append(("feature_labels", _score_rows(block, scores, self._documents.names)))
        return tables


def _in_order(work: Callable[[_In], _Out], given: Iterable[_In]) -> Iterator[_Out]:
    """work(one) for each of `given` in order, a few at once in threads.

    NumPy and torch work outside the interpreter's lock. Each takes one thread of torch's own: where
    another process has a core, many small operations wait for each other longer than they work.
    """
    own = torch.get_num_threads()
    torch.set_num_threads(1)
    waiting: deque[Future[_Out]] = deque()
    try:
        with ThreadPoolExecutor(_BLOCKS_AT_ONCE) as workers:
            for one in given:
                waiting.append(workers.submit(work, one))
                if len(waiting) > _BLOCKS_AT_ONCE:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
    finally:
        torch.set_num_threads(own)


def _score_rows(block: FeatureBlock, scores: LabelScores, names: tuple[str, ...]) -> dict[str, Any]:
    import pyarrow as pa

    features = np.arange(block.first, block.last, dtype=np.int32)
    places = np.tile(np.arange(len(names), dtype=np.int32), len(features))
    return {
        "feature": np.repeat(features, len(names)),
        "label": pa.DictionaryArray.from_arrays(places, pa.array(names)),
        **{name: _nullable(values.ravel()) for name, values in vars(scores).items()},
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
