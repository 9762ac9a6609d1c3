"""A feature index of any size from random numbers, written by the project's own writer.

What a reader's speed depends on is as in a real index: rows in feature order, documents of Zipf
words with their tokens, windows whose activations are zero but for the peak and a few others.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from mi_crow.mechanistic.features.index.write import IndexWriter, equal_lists, lists, writing_index

BANDS, BAND_EXAMPLES = 4, 5
REACH = 32  # tokens either side of an example
LABELS = tuple(f"label-{number:02d}" for number in range(16))
EDGES = [0.0, *np.geomspace(0.05, 40.0, 48).tolist()]
BLOCK = 8192  # features that are written at once
_SYLLABLES = [f"{first}{second}" for first in "bdfgklmnprstvz" for second in "aeiou"]


@dataclass(frozen=True)
class Size:
    """How much there is of everything."""

    features: int = 131_072
    tokens: int = 1_000_000
    top: int = 20
    logits: int = 20
    vocabulary: int = 49_152
    per_document: int = 100  # tokens, on average


def write_synthetic(path: Path, sae_id: str, size: Size, seed: int = 0) -> None:
    """Writes an index; about a minute for the default size."""
    rng = np.random.default_rng(seed)
    words = _words(size.vocabulary, rng)
    with writing_index(path) as writer:
        lengths = _write_documents(writer, size, words, rng)
        writer.append("labels", {"label": list(LABELS), "documents": [len(lengths) // 16] * 16})
        writer.append(
            "tokens", {"token_id": np.arange(size.vocabulary, dtype=np.int32), "token": words}
        )
        for features in _blocks(size.features):
            _write_features(writer, features, size, rng)
            _write_examples(writer, features, size, lengths, rng)
            _write_relations(writer, features, size, rng)
        writer.write_meta(
            {
                "sae_id": sae_id,
                "model_id": "synthetic",
                "layer": "model.layers.15",
                "n_features": size.features,
                "n_tokens": int(lengths.sum()),
                "n_documents": len(lengths),
                "built_at": time.time(),
                "sources": [{"run_id": "synthetic", "parts": []}],
                "histogram_edges": EDGES,
                "bands": BANDS,
            }
        )


def _blocks(n: int) -> Iterator[np.ndarray]:
    for first in range(0, n, BLOCK):
        yield np.arange(first, min(first + BLOCK, n), dtype=np.int32)


def _words(count: int, rng: np.random.Generator) -> list[str]:
    """Made-up words of two to four syllables, some with a capital, each with its leading space."""
    found: dict[str, None] = {}
    while len(found) < count:
        word = "".join(rng.choice(_SYLLABLES, int(rng.integers(2, 5))))
        found[f" {word.capitalize() if rng.random() < 0.1 else word}"] = None
    return list(found)


def _write_documents(
    writer: IndexWriter, size: Size, words: list[str], rng: np.random.Generator
) -> np.ndarray:
    """Gives the tokens of each document."""
    mean = size.per_document
    lengths = rng.integers(mean // 2, mean + mean // 2 + 1, size.tokens // mean)
    ranks = np.minimum(rng.zipf(1.2, int(lengths.sum())) - 1, size.vocabulary - 1)
    texts = pa.array(words).take(pa.array(ranks)).to_pylist()
    ends = np.cumsum(lengths)
    pieces = [texts[end - n : end] for end, n in zip(ends.tolist(), lengths.tolist(), strict=True)]
    n = len(lengths)
    writer.append(
        "documents",
        {
            "document": np.arange(n, dtype=np.int32),
            "text": ["".join(some) for some in pieces],
            "label": [LABELS[number % 16] for number in range(n)],
            "split": ["heldout" if number % 10 == 0 else "train" for number in range(n)],
            "token_ids": lists(ranks.astype(np.int32), lengths),
            "token_texts": pieces,
        },
    )
    writer.append(
        "document_features",
        {
            "document": np.repeat(np.arange(n, dtype=np.int32), 32),
            "feature": rng.integers(0, size.features, n * 32).astype(np.int32),
            "max_act": np.sort(rng.gamma(4.0, 1.0, (n, 32)), axis=1)[:, ::-1].ravel(),
            "fires": rng.integers(1, 9, n * 32).astype(np.int32),
        },
    )
    return lengths


def _write_features(
    writer: IndexWriter, features: np.ndarray, size: Size, rng: np.random.Generator
) -> None:
    n = len(features)
    fires = rng.lognormal(5.0, 1.2, n).astype(np.int64)
    best = rng.integers(0, 16, n)
    auroc = rng.beta(5.0, 5.0, (n, 16))
    auroc[np.arange(n), best] = rng.uniform(0.9, 1.0, n)
    writer.append(
        "features",
        {
            "feature": features,
            "fires": fires,
            "density": fires / size.tokens,
            "max_act": rng.gamma(8.0, 1.0, n).astype(np.float32),
            "mean_act": rng.gamma(4.0, 1.0, n),
            "std_act": rng.gamma(2.0, 1.0, n),
            "decoder_norm": np.ones(n, dtype=np.float32),
            "encoder_decoder_cosine": rng.uniform(0.4, 1.0, n).astype(np.float32),
            "histogram": equal_lists(rng.poisson(5.0, (n, len(EDGES) - 1)).astype(np.int32)),
            **{
                name: rng.normal(size=n).astype(np.float32)
                for name in ("skew", "kurtosis", "map_x", "map_y")
            },
            "top_label": pa.array(LABELS).take(pa.array(best)),
            "top_auroc": auroc[np.arange(n), best],
        },
    )
    writer.append(
        "feature_labels",
        {
            "feature": np.repeat(features, 16),
            "label": pa.array(LABELS).take(pa.array(np.tile(np.arange(16), n))),
            "auroc": auroc.ravel(),
            "mean_act": rng.gamma(2.0, 1.0, 16 * n),
            "lift": rng.gamma(1.0, 1.0, 16 * n),
            "auroc_heldout": rng.beta(5.0, 5.0, 16 * n),
        },
    )


def _write_examples(
    writer: IndexWriter,
    features: np.ndarray,
    size: Size,
    lengths: np.ndarray,
    rng: np.random.Generator,
) -> None:
    """Every feature has all its examples, as one that fires often enough."""
    band = np.concatenate(
        [np.zeros(size.top, dtype=np.int8), np.repeat(np.arange(1, BANDS + 1), BAND_EXAMPLES)]
    ).astype(np.int8)
    rank = np.concatenate([np.arange(size.top), np.tile(np.arange(BAND_EXAMPLES), BANDS)])
    n, count = len(features), len(band)
    document = rng.integers(0, len(lengths), n * count)
    position = (rng.random(n * count) * lengths[document]).astype(np.int64)
    start = np.maximum(position - REACH, 0)
    window = np.minimum(position + REACH + 1, lengths[document]) - start
    activation = -np.sort(-rng.gamma(8.0, 1.0, (n, count)), axis=1).astype(np.float32).ravel()
    begins = np.concatenate([[0], np.cumsum(window)])
    acts = np.zeros(int(begins[-1]), dtype=np.float32)
    others = rng.integers(0, len(acts), 2 * n * count)  # two more firings a window
    acts[others] = rng.gamma(2.0, 1.0, len(others))
    acts[begins[:-1] + position - start] = activation
    writer.append(
        "examples",
        {
            "feature": np.repeat(features, count),
            "band": np.tile(band, n),
            "rank": np.tile(rank, n).astype(np.int16),
            "document": document.astype(np.int32),
            "position": position.astype(np.int32),
            "activation": activation,
            "window_start": start.astype(np.int32),
            "acts": lists(acts, window),
        },
    )


def _write_relations(
    writer: IndexWriter, features: np.ndarray, size: Size, rng: np.random.Generator
) -> None:
    n, count = len(features), size.logits
    value = np.sort(rng.gamma(2.0, 1.0, (n, 2, count)), axis=2)[:, :, ::-1]
    sign = np.array([1, -1], dtype=np.int8)
    writer.append(
        "logits",
        {
            "feature": np.repeat(features, 2 * count),
            "sign": np.tile(np.repeat(sign, count), n),
            "rank": np.tile(np.arange(count, dtype=np.int16), 2 * n),
            "token_id": rng.integers(0, size.vocabulary, n * 2 * count).astype(np.int32),
            "value": (value * sign[:, None]).astype(np.float32).ravel(),
        },
    )
    keys = {
        "feature": np.repeat(features, 10),
        "rank": np.tile(np.arange(10, dtype=np.int16), n),
        "other": rng.integers(0, size.features, 10 * n).astype(np.int32),
    }
    falling = -np.sort(-rng.random((n, 10)), axis=1).astype(np.float32).ravel()
    writer.append("neighbours", keys | {"cosine": falling})
    both = rng.integers(1, 200, 10 * n)
    writer.append("coactivations", keys | {"count": both, "jaccard": falling})
