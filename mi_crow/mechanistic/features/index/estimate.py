"""What an index will take, before it is built: memory, disk, time, all counted. Torch-free.

Bytes of codes are those of `codes.Chunk`. Bytes a row of `features.duckdb` are measured on an index
of 1,536 features with 16 labels over 412,705 tokens, where they add up to 0.98 of the file.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any

from mi_crow.language_model.outline import Outline
from mi_crow.mechanistic.features.config import IndexConfig
from mi_crow.store.runs.manifest import RunManifest, stored_bytes
from mi_crow.store.workspace import SaeSummary

CHUNK_TOKENS = 1 << 17
_KEPT_CODES = 512 * 1024**2  # bytes of codes in memory before they go to files
_AT_ONCE = 4  # chunks that are worked on at once
_EXACT_LATENTS, _SAMPLED_TOKENS = 16_384, 200_000  # whose pairs are counted, see `coactivation`
_FEATURES_OF_DOCUMENT = 32
_USUAL_L0 = 32.0
_ROW_BYTES = {
    "features": 341,
    "examples": 39,
    "logits": 13,
    "neighbours": 14,
    "coactivations": 18,
    "documents": 764,
    "document_features": 9,
    "labels": 96,  # of a feature and a label, in all tables
}


@dataclass(frozen=True)
class IndexSizes:
    """What decides the cost of an index."""

    tokens: int
    latents: int
    width: int
    l0: float  # latents that fire on a token
    documents: int = 0
    labels: int = 0
    vocabulary: int = 0
    token_bytes: float = 0.0  # of a stored activation


@dataclass(frozen=True)
class IndexPlan:
    """Bytes, floating-point operations and seconds; seconds at the speeds that were given."""

    sizes: IndexSizes
    activations: int  # bytes read
    codes: int  # bytes of all activations kept sparse
    temporary: int  # of them in files while the index is built
    index: int  # bytes of features.duckdb
    memory: int  # bytes of weights, of codes at work and of what is kept for each latent
    encoding: float  # operations of the encoder's product
    weights: float  # operations of what comes from the weights alone
    pairs: float  # of latents that fire on the same token, to be counted
    seconds: dict[str, float]  # by part of the work; without the pairs, which depend on the device

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def expected_sizes(sae: SaeSummary, run: RunManifest | None, outline: Outline | None) -> IndexSizes:
    """Those of an SAE, of the run that would be read, and of its model, as far as they are
    known."""
    known = (sae.evaluation or {}).get("l0")
    shapes = outline.tensors if outline is not None else {}
    vocabulary = max((shape[0] for name, shape in shapes.items() if "embed" in name), default=0)
    l0 = float(known) if isinstance(known, int | float) else float(sae.k or _USUAL_L0)
    sizes = IndexSizes(0, sae.n_latents, sae.n_inputs, l0, vocabulary=vocabulary)
    if run is None:
        return sizes
    return replace(
        sizes,
        tokens=run.n_tokens,
        documents=run.n_documents,
        token_bytes=float(stored_bytes(run.dtype, sae.n_inputs)),
    )


def codes_bytes(tokens: int, codes: int, latents: int, chunks: int = 1) -> int:
    """Bytes of some tokens and their codes: a token's document, position, draw and start, a code's
    token, value and latent, and for each chunk where the codes of a latent begin."""
    latent = 2 if latents <= 1 << 15 else 4
    return tokens * 20 + codes * (8 + latent) + 8 * chunks * (latents + 2)


def plan_index(
    config: IndexConfig, sizes: IndexSizes, tflops: float, gigabytes_s: float
) -> IndexPlan:
    """The plan of an index on a device that does this many 10^12 operations a second, with a disk
    of this many 10^9 bytes a second."""
    tokens, latents, width = sizes.tokens, sizes.latents, sizes.width
    chunks = -(-tokens // CHUNK_TOKENS)
    codes = codes_bytes(tokens, round(tokens * sizes.l0), latents, chunks)
    temporary = codes if codes > _KEPT_CODES else 0
    at_work = codes_bytes(CHUNK_TOKENS, round(CHUNK_TOKENS * sizes.l0), latents)
    matrices = 4 * width * (2 * latents + sizes.vocabulary)
    # Counts, sums, reservoirs and histograms.
    of_latents = latents * 8 * (32 + config.top_examples + config.bands * config.band_examples)
    memory = matrices + min(codes, _KEPT_CODES) + _AT_ONCE * at_work + of_latents
    encoding = 2.0 * tokens * latents * width
    weights = 2.0 * latents * width * (sizes.vocabulary + (latents if config.neighbours else 0))
    activations = round(tokens * sizes.token_bytes)
    index = _index_bytes(config, sizes)
    counted = min(tokens, _SAMPLED_TOKENS) if latents > _EXACT_LATENTS else tokens
    disk = gigabytes_s * 1e9
    seconds = {
        "reading activations": activations / disk,
        "encoding": encoding / (tflops * 1e12),
        # Written once, read once by feature and once by token.
        "codes through the disk": 3 * temporary / disk,
        "logits and neighbours": weights / (tflops * 1e12),
        "writing the index": index / disk,
    }
    return IndexPlan(
        sizes=sizes,
        activations=activations,
        codes=codes,
        temporary=temporary,
        index=index,
        memory=memory,
        encoding=encoding,
        weights=weights,
        pairs=counted * sizes.l0**2,
        seconds=seconds,
    )


def _index_bytes(config: IndexConfig, sizes: IndexSizes) -> int:
    latents = sizes.latents
    rows = {
        "features": latents,
        "examples": latents * (config.top_examples + config.bands * config.band_examples),
        "logits": latents * 2 * config.top_logits if sizes.vocabulary else 0,
        "neighbours": latents * config.neighbours,
        "coactivations": latents * config.coactivations,
        "documents": sizes.documents,
        "document_features": sizes.documents * _FEATURES_OF_DOCUMENT,
        "labels": latents * sizes.labels,
    }
    return sum(rows[table] * size for table, size in _ROW_BYTES.items())
