"""Fills the tables that come from activations, a block of features at a time."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mi_crow.language_model.loading import torch_device
from mi_crow.mechanistic.features.coactivation import TokenSample, coactivations
from mi_crow.mechanistic.features.codes import CodeStore, FeatureBlock
from mi_crow.mechanistic.features.config import IndexConfig
from mi_crow.mechanistic.features.encode_pass import Corpus
from mi_crow.mechanistic.features.examples import choose, pool, with_windows
from mi_crow.mechanistic.features.labels import LabelScores, label_scores, labelled_documents
from mi_crow.mechanistic.features.statistics import HistogramBins, moments
from mi_crow.mechanistic.features.write import IndexWriter, equal_lists, lists
from mi_crow.progress import Progress, raise_if_stopped


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
        sample = TokenSample(self._corpus.n_tokens, codes.n_latents)
        self._sampled = sample.count(codes.chunks)
        sampled_fires = sample.fires(codes.chunks, codes.n_latents)
        device = torch_device(self._config.device)
        for block in codes.feature_blocks():
            raise_if_stopped(progress)
            self._write_block(block)
            features = range(block.first, block.last)
            found = coactivations(
                codes.chunks, sample, sampled_fires, features, self._config.coactivations, device
            )
            self._writer.append("coactivations", vars(found))

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

    def _write_block(self, block: FeatureBlock) -> None:
        config, found = self._config, moments(block)
        pooled = pool(block)
        scores = label_scores(pooled, self._documents)
        top_label, top_auroc = _best(scores.auroc, self._documents.names, found.fires)
        self._writer.append(
            "features",
            {
                "feature": np.arange(block.first, block.last, dtype=np.int32),
                **vars(found),
                "density": found.fires / max(self._corpus.n_tokens, 1),
                "histogram": equal_lists(self._bins.histograms(block)),
                "top_label": top_label,
                "top_auroc": top_auroc,
                **{
                    name: column[block.first : block.last] for name, column in self._weights.items()
                },
            },
        )
        self._write_scores(block, scores)
        chosen = choose(block, pooled, config.top_examples, config.bands, config.band_examples)
        examples = dict(vars(with_windows(block, chosen, self._lengths, config.window)))
        acts = lists(examples.pop("acts"), examples.pop("window_length"))
        self._writer.append("examples", examples | {"acts": acts})

    def _write_scores(self, block: FeatureBlock, scores: LabelScores) -> None:
        import pyarrow as pa

        names = self._documents.names
        if not names:
            return
        features = np.arange(block.first, block.last, dtype=np.int32)
        places = np.tile(np.arange(len(names), dtype=np.int32), len(features))
        self._writer.append(
            "feature_labels",
            {
                "feature": np.repeat(features, len(names)),
                "label": pa.DictionaryArray.from_arrays(places, pa.array(names)),
                **{name: _nullable(values.ravel()) for name, values in vars(scores).items()},
            },
        )


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
