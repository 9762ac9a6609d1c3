"""Tables that depend only on the weights, copied from the previous index."""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mi_crow.mechanistic.features.config import IndexConfig
from mi_crow.mechanistic.features.index.write import IndexWriter
from mi_crow.mechanistic.features.schema import INDEX_SCHEMA_VERSION
from mi_crow.mechanistic.sae.base import SparseAutoencoder

if TYPE_CHECKING:
    from mi_crow.language_model.language_model import LanguageModel

_TABLES = ("neighbours", "logits", "tokens", "feature_layers")
_COLUMNS = ("decoder_norm", "encoder_decoder_cosine", "skew", "kurtosis", "map_x", "map_y")


def weights_digest(
    content: str, sae: SparseAutoencoder, lm: "LanguageModel", config: IndexConfig
) -> str:
    """SHA-256 of all that those tables depend on: the weights (`content_digest`), the model's
    tokenizer, and how much is kept."""
    settings: dict[str, Any] = {
        "schema": INDEX_SCHEMA_VERSION,
        "weights": content,
        "tokenizer": lm.tokenizer_hash,
        "transcodes": sae.transcodes,
        "logits": config.top_logits,
        "neighbours": config.neighbours,
        "map": [config.map, config.seed if config.map == "umap" else 0],
    }
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def content_digest(sae: SparseAutoencoder, lm: "LanguageModel") -> str:
    """SHA-256 of the SAE's matrices and of the model's last norm and output embedding."""
    norm, head = lm.layers.unembedding()
    digest = hashlib.sha256()
    # A transcoder's encoder is in no table.
    tensors = [sae.decoder_rows, *([] if sae.transcodes else [sae.encoder_rows])]
    tensors += head.parameters()
    tensors += [] if norm is None else list(norm.parameters())
    for tensor in tensors:
        digest.update(f"{tensor.dtype}{list(tensor.shape)}".encode())
        digest.update(_content(tensor))
    return digest.hexdigest()


def copy_weights(writer: IndexWriter, before: Path, digest: str) -> dict[str, np.ndarray] | None:
    """Copies the tables from the index `before` if they would be the same; returns the columns of
    `features`, or None if they must be computed."""
    import duckdb

    with duckdb.connect(str(before), read_only=True) as connection:
        found = connection.execute("SELECT value FROM meta WHERE key = 'weights'").fetchall()
        if found != [(digest,)]:
            return None
        for table in _TABLES:
            rows = connection.sql(f"SELECT * FROM {table}").to_arrow_table()
            writer.append(table, {name: rows[name] for name in rows.column_names})
        names = ", ".join(_COLUMNS)
        columns = connection.sql(f"SELECT {names} FROM features ORDER BY feature").to_arrow_table()
    # Columns that the weights did not give are NULL in every row.
    return {name: columns[name].to_numpy() for name in _COLUMNS if columns[name].null_count == 0}


def _content(tensor: Tensor) -> memoryview:
    """The tensor's bytes."""
    flat = tensor.detach().cpu().contiguous().view(-1)
    return flat.view(torch.uint8).numpy().data
