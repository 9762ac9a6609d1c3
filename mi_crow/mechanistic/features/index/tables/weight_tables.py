"""Fills the tables that depend only on the weights."""

from typing import TYPE_CHECKING

import numpy as np

from mi_crow.mechanistic.features.config import IndexConfig
from mi_crow.mechanistic.features.index.tables.directions import (
    directions,
    neighbours,
    plane,
    umap_points,
    unit_rows,
)
from mi_crow.mechanistic.features.index.tables.logits import LogitEffects, LogitLens
from mi_crow.mechanistic.features.index.tables.token_texts import vocabulary_texts
from mi_crow.mechanistic.features.index.write import IndexWriter
from mi_crow.mechanistic.sae.base import SparseAutoencoder
from mi_crow.progress import Progress, raise_if_stopped

if TYPE_CHECKING:
    from mi_crow.language_model.language_model import LanguageModel


def write_directions(
    writer: IndexWriter, config: IndexConfig, sae: SparseAutoencoder, progress: Progress
) -> dict[str, np.ndarray]:
    """Writes `neighbours`; returns columns of `features`: norms, cosines and the map.

    A transcoder has no encoder-decoder cosine: the two are in different spaces.
    """
    decoder = sae.decoder_rows.detach()
    for found in neighbours(decoder, config.neighbours):
        raise_if_stopped(progress)
        n, count = found.other.shape
        writer.append(
            "neighbours",
            {
                "feature": _repeated(found.first, n, count),
                "rank": np.tile(np.arange(count, dtype=np.int16), n),
                "other": found.other.numpy().astype(np.int32).ravel(),
                "cosine": found.cosine.numpy().ravel(),
            },
        )
    umap = config.map == "umap"
    points = umap_points(decoder, config.seed) if umap else plane(unit_rows(decoder))
    facts = directions(decoder, None if sae.transcodes else sae.encoder_rows.detach())
    columns = {
        "decoder_norm": facts.decoder_norm.numpy(),
        "map_x": points[:, 0].numpy(),
        "map_y": points[:, 1].numpy(),
    }
    if facts.encoder_decoder_cosine is not None:
        columns["encoder_decoder_cosine"] = facts.encoder_decoder_cosine.numpy()
    return columns


def write_logits(
    writer: IndexWriter,
    config: IndexConfig,
    sae: SparseAutoencoder,
    lm: "LanguageModel",
    progress: Progress,
) -> dict[str, np.ndarray]:
    """Writes `logits` and their `tokens`; returns columns of `features`: the shape of the effect.

    Nothing where the layer that the SAE writes to is not as wide as the residual stream.
    """
    norm, head = lm.layers.unembedding()
    lens = LogitLens(norm, head)
    if lens.width != sae.decoder_rows.shape[1]:
        progress.log("no logit effects: the layer is not as wide as the output embedding")
        return {}
    if norm is None:
        progress.log(
            "logit effects are without a final norm: no module between the last block and the "
            "output embedding is one"
        )
    skew, kurtosis = [], []
    used = np.zeros(lens.vocabulary, dtype=bool)
    for effects in lens.effects(sae.decoder_rows.detach(), config.top_logits):
        raise_if_stopped(progress)
        used[effects.promoted.numpy().ravel()] = True
        used[effects.suppressed.numpy().ravel()] = True
        _write_effects(writer, effects)
        skew.append(effects.skew.numpy())
        kurtosis.append(effects.kurtosis.numpy())
    ids = np.flatnonzero(used)
    texts = vocabulary_texts(lm.tokenizer, ids.tolist())
    writer.append("tokens", {"token_id": ids.astype(np.int32), "token": texts})
    return {"skew": np.concatenate(skew), "kurtosis": np.concatenate(kurtosis)}


def _write_effects(writer: IndexWriter, effects: LogitEffects) -> None:
    n, count = effects.promoted.shape
    signs = np.tile(np.repeat(np.array([1, -1], dtype=np.int8), count), n)
    both = np.concatenate([effects.promoted.numpy(), effects.suppressed.numpy()], axis=1)
    values = np.concatenate(
        [effects.promoted_value.numpy(), effects.suppressed_value.numpy()], axis=1
    )
    writer.append(
        "logits",
        {
            "feature": _repeated(effects.first, n, 2 * count),
            "sign": signs,
            "rank": np.tile(np.arange(count, dtype=np.int16), 2 * n),
            "token_id": both.astype(np.int32).ravel(),
            "value": values.ravel(),
        },
    )


def _repeated(first: int, n: int, times: int) -> np.ndarray:
    return np.repeat(np.arange(first, first + n, dtype=np.int32), times)
