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
from mi_crow.mechanistic.features.index.write import TableWriter
from mi_crow.mechanistic.sae.base import SparseAutoencoder
from mi_crow.progress import Progress, raise_if_stopped
from mi_crow.share import WHOLE, Share

if TYPE_CHECKING:
    from mi_crow.language_model.language_model import LanguageModel


def write_directions(
    writer: TableWriter,
    config: IndexConfig,
    sae: SparseAutoencoder,
    progress: Progress,
    share: Share = WHOLE,
) -> dict[str, np.ndarray]:
    """Writes `neighbours`; returns columns of `features`, in the first process: norms, cosines and
    the map.

    A transcoder has no encoder-decoder cosine: the two are in different spaces.
    """
    decoder = sae.decoder_rows.detach()
    for found in neighbours(decoder, config.neighbours, share.turn):
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
    if not share.is_first:
        return {}
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
    writer: TableWriter,
    config: IndexConfig,
    sae: SparseAutoencoder,
    lm: "LanguageModel",
    progress: Progress,
    share: Share = WHOLE,
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
    rows = sae.decoder_rows.detach()
    own = {name: np.zeros(len(rows), dtype=np.float32) for name in ("skew", "kurtosis")}
    done, used = np.zeros(len(rows), dtype=bool), np.zeros(lens.vocabulary, dtype=bool)
    for effects in lens.effects(rows, config.top_logits, share.turn):
        raise_if_stopped(progress)
        used[effects.promoted.numpy().ravel()] = True
        used[effects.suppressed.numpy().ravel()] = True
        _write_effects(writer, effects)
        some = slice(effects.first, effects.first + len(effects.skew))
        own["skew"][some], own["kurtosis"][some] = effects.skew.numpy(), effects.kurtosis.numpy()
        done[some] = True
    for other in share.gather({**own, "done": done, "used": used}):
        used |= other["used"]
        for name, column in own.items():
            column[other["done"]] = other[name][other["done"]]
    if share.is_first:
        ids = np.flatnonzero(used)
        texts = vocabulary_texts(lm.tokenizer, ids.tolist())
        writer.append("tokens", {"token_id": ids.astype(np.int32), "token": texts})
    return own


def _write_effects(writer: TableWriter, effects: LogitEffects) -> None:
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
