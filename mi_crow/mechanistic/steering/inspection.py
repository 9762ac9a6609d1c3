"""What one text does in a model: features that fire on it, norms of a layer's activations."""

from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from mi_crow.errors import UserError
from mi_crow.language_model.capture_pass import run_raw, run_to
from mi_crow.language_model.detokenize import shown_tokens
from mi_crow.language_model.tokenize import Encoding, frame_of, start_id
from mi_crow.mechanistic.sae.fitting import check_not_signed

if TYPE_CHECKING:
    from mi_crow.language_model import HookPoint, LanguageModel
    from mi_crow.mechanistic.sae.base import SparseLatents
    from mi_crow.mechanistic.steering.loading import LoadedSae

_PER_TOKEN = 8  # features listed for each token


class _Window(NamedTuple):
    """What one pass through the model gave."""

    ids: list[int]
    special: Tensor  # [n] bool
    outlier: Tensor  # [n] bool
    latents: "SparseLatents"  # [n, k], zero where a token is special or an outlier


@torch.inference_mode()
def inspect(
    loaded: "LoadedSae", text: str, top: int = 20, bos: str = "auto", windows: bool = False
) -> dict[str, Any]:
    """Tokens of `text` and the features that fire on them.

    `features` are the `top` strongest, each with one activation per token; `per_token` the
    strongest [feature, activation] pairs of each token. On special and outlier tokens, which are
    flagged, nothing fires.

    A text longer than the model's context is cut to it, or with `windows` read in several windows:
    `tokens_read` of `tokens_total` tell how much was read, `window_starts` where in `tokens` each
    window begins. `bos` is that of `tokenize`, auto meaning as the SAE was trained; `bos_added`
    tells whether a BOS token was put in front. Raises UserError for an empty text.
    """
    lm, sae = loaded.lm, loaded.sae
    check_text(text)
    check_not_signed(sae, loaded.sae_id, "inspected")
    read = read_text(lm, text, sae.metadata.bos(bos), windows)
    found = [_window(loaded, ids) for ids in read.rows]
    latents = _joined([one.latents for one in found])
    values = latents.values
    strongest = _strongest(latents, sae.n_latents, top)
    best = values.topk(min(_PER_TOKEN, values.shape[1]), dim=1)
    best_features = latents.indices.gather(1, best.indices)
    starts = [0, *accumulate(len(one.ids) for one in found)]
    return {
        "tokens": [text for one in found for text in shown_tokens(lm.tokenizer, one.ids)],
        "special": torch.cat([one.special for one in found]).tolist(),
        "outlier": torch.cat([one.outlier for one in found]).tolist(),
        "features": [
            {"feature": feature, "concept": None, "max_act": max(acts), "acts": acts}
            for feature, acts in strongest.items()
        ],
        "per_token": [
            [[feature, act] for feature, act in zip(features, acts, strict=True) if act > 0]
            for features, acts in zip(best_features.tolist(), best.values.tolist(), strict=True)
        ],
        "tokens_total": read.total,
        "tokens_read": read.read,
        "context_length": lm.context,
        "windows": len(found),
        "window_starts": starts[:-1],
        "bos_added": read.bos_added,
    }


def _window(loaded: "LoadedSae", ids: list[int]) -> _Window:
    lm, sae, limit = loaded.lm, loaded.sae, loaded.sae.metadata.outlier_norm
    encoding = lm.padded([ids])
    x = run_to(lm, [loaded.layer], encoding.input_ids, encoding.attention_mask)[loaded.layer][0]
    special = encoding.special[0]
    outlier = torch.zeros_like(special)
    if limit is not None:
        outlier = (torch.linalg.vector_norm(x.float(), dim=-1) > limit) & ~special
    latents = sae.encode_sparse(x)
    values = latents.values.float() * ~(special | outlier)[:, None]
    return _Window(ids, special, outlier, latents._replace(values=values))


def _joined(parts: "Sequence[SparseLatents]") -> "SparseLatents":
    """All windows as one, padded with zeros where their k differs."""
    width = max(one.values.shape[1] for one in parts)
    columns = [
        torch.cat([functional.pad(one, (0, width - one.shape[1])) for one in tensors])
        for tensors in zip(*parts, strict=True)
    ]
    return parts[0]._replace(values=columns[0], indices=columns[1])


class ReadText(NamedTuple):
    """One text as the model reads it."""

    rows: list[list[int]]  # token ids of each pass
    total: int  # tokens of the whole text, special ones included
    read: int  # how many of them were read
    bos_added: bool


def read_text(lm: "LanguageModel", text: str, bos: str, windows: bool = False) -> ReadText:
    """A text cut to the model's context, or all of it in windows of that length, each with the
    special tokens around a text. Raises UserError."""
    frame = frame_of(lm.tokenizer, bos)
    encoded = lm.tokenizer(text, add_special_tokens=False, verbose=False)
    own = list(encoded["input_ids"])
    lm.check_ids(own)
    whole, context = frame.around(own), lm.context
    start = start_id(lm.tokenizer)
    bos_added = start is not None and start in frame.missing(own).before
    if context is None or len(whole) <= context:
        return ReadText([whole], len(whole), len(whole), bos_added)
    if not windows:
        row = frame.around(own, context)
        return ReadText([row], len(whole), len(row), bos_added)
    room = max(context - len(frame.before) - len(frame.after), 1)
    rows = [frame.around(own[at : at + room], context) for at in range(0, len(own), room)]
    return ReadText(rows, len(whole), len(whole), bos_added)


def _strongest(latents: "SparseLatents", n_latents: int, top: int) -> dict[int, list[float]]:
    """The `top` features by their greatest activation, each with its activation on every token."""
    maxima = latents.values.new_zeros(n_latents)
    maxima.scatter_reduce_(0, latents.indices.reshape(-1), latents.values.reshape(-1), "amax")
    strongest = maxima.topk(min(top, n_latents))
    features = strongest.indices[strongest.values > 0]
    # Only these features are made dense: tokens x latents would not fit for wide SAEs.
    acts = activations_of(latents, features).t()
    return dict(zip(features.tolist(), acts.tolist(), strict=True))


def activations_of(latents: "SparseLatents", features: Tensor) -> Tensor:
    """Activations [..., f] of the latents `features`, int64 [f], from sparse ones [..., k]."""
    columns = [
        (latents.values * (latents.indices == feature)).sum(-1) for feature in features.unbind()
    ]
    if not columns:
        return latents.values.new_zeros(*latents.values.shape[:-1], 0)
    return torch.stack(columns, dim=-1)


@torch.inference_mode()
def layer_statistics(lm: "LanguageModel", layer: str, text: str) -> dict[str, Any]:
    """Shape, norms (of the last axis) and spread of a layer's activations on `text`.

    Special tokens are left out where the layer has one row per token, unless there are no others.
    Raises UserError for an empty text, NotFoundError for an unknown layer, MiCrowError for one that
    does not run in a forward pass.
    """
    point = lm.layers.resolve(layer)
    check_text(text)
    encoding = lm.encode([text], lm.context)
    found = _activations(lm, point, encoding).float()
    rows = found.reshape(-1, found.shape[-1])
    ordinary = ~encoding.special.reshape(-1)
    if ordinary.shape[0] == rows.shape[0] and bool(ordinary.any()):
        rows = rows[ordinary]
    norms = torch.linalg.vector_norm(rows, dim=-1)
    return {
        "layer": point.name,
        "shape": list(found.shape),
        "tokens": rows.shape[0],
        "mean_norm": float(norms.mean()),
        "median_norm": float(norms.median()),
        "max_norm": float(norms.max()),
        "mean": float(rows.mean()),
        "std": float(rows.std(unbiased=False)),
    }


def _activations(lm: "LanguageModel", point: "HookPoint", encoding: Encoding) -> Tensor:
    """The value at a hook point; of a plain one the module's own tensor, whatever its shape."""
    if point.plain:
        return run_raw(lm, point, encoding.input_ids, encoding.attention_mask)
    return run_to(lm, [point], encoding.input_ids, encoding.attention_mask)[point]


def check_text(text: str) -> None:
    """Raises UserError for a text without anything in it."""
    if not text.strip():
        raise UserError("the text is empty", hint="type a few words")
