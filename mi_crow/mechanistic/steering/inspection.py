"""What one text does to a model: features that fire on it, norms of a layer's activations."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mi_crow.errors import UserError
from mi_crow.language_model.capture_pass import run_to
from mi_crow.language_model.detokenize import token_texts
from mi_crow.language_model.tokenize import Encoding, encode_batch

if TYPE_CHECKING:
    from mi_crow.language_model import LanguageModel
    from mi_crow.mechanistic.sae import SparseLatents
    from mi_crow.mechanistic.steering.loading import LoadedSae

_PER_TOKEN = 8  # features listed for each token


@torch.inference_mode()
def inspect(loaded: "LoadedSae", text: str, top: int = 20) -> dict[str, Any]:
    """Tokens of `text` and the features that fire on them.

    `features` holds the `top` strongest, each with one activation a token; `per_token` the
    strongest [feature, activation] pairs of each token. Special and outlier tokens count as silent
    and are flagged. The text is cut to the model's context. Raises UserError for an empty text.
    """
    lm, sae, limit = loaded.lm, loaded.sae, loaded.sae.metadata.outlier_norm
    encoding = _encode(lm, text)
    x = run_to(lm, [loaded.layer], encoding.input_ids, encoding.attention_mask)[loaded.layer][0]
    special = encoding.special[0]
    outlier = torch.zeros_like(special)
    if limit is not None:
        outlier = (torch.linalg.vector_norm(x.float(), dim=-1) > limit) & ~special
    latents = sae.encode_sparse(x)
    values = latents.values.float() * ~(special | outlier)[:, None]
    latents = latents._replace(values=values)
    found = _strongest(latents, sae.n_latents, top)
    best = values.topk(min(_PER_TOKEN, values.shape[1]), dim=1)
    best_features = latents.indices.gather(1, best.indices)
    return {
        "tokens": token_texts(lm.tokenizer, encoding.input_ids[0].tolist()),
        "special": special.tolist(),
        "outlier": outlier.tolist(),
        "features": [
            {"feature": feature, "concept": None, "max_act": max(acts), "acts": acts}
            for feature, acts in found.items()
        ],
        "per_token": [
            [[feature, act] for feature, act in zip(features, acts, strict=True) if act > 0]
            for features, acts in zip(best_features.tolist(), best.values.tolist(), strict=True)
        ],
    }


def _strongest(latents: "SparseLatents", n_latents: int, top: int) -> dict[int, list[float]]:
    """The `top` features by their greatest activation, each with its activation on every token."""
    maxima = latents.values.new_zeros(n_latents)
    maxima.scatter_reduce_(0, latents.indices.reshape(-1), latents.values.reshape(-1), "amax")
    strongest = maxima.topk(min(top, n_latents))
    features = strongest.indices[strongest.values > 0]
    # Only the shown features are made dense: tokens x latents would not fit for wide SAEs.
    acts = activations_of(latents, features).t()
    return dict(zip(features.tolist(), acts.tolist(), strict=True))


def activations_of(latents: "SparseLatents", features: Tensor) -> Tensor:
    """Activations of some latents, int64 [f], out of sparse ones [..., k]: [..., f]."""
    columns = [
        (latents.values * (latents.indices == feature)).sum(-1) for feature in features.unbind()
    ]
    if not columns:
        return latents.values.new_zeros(*latents.values.shape[:-1], 0)
    return torch.stack(columns, dim=-1)


@torch.inference_mode()
def layer_statistics(lm: "LanguageModel", layer: str, text: str) -> dict[str, Any]:
    """Shape, norms (of the last axis) and spread of a layer's activations on `text`.

    Special tokens are left out where the layer has one row a token, unless there is nothing else.
    Raises UserError for an empty text, NotFoundError for an unknown layer, MiCrowError for one that
    does not run in a forward pass.
    """
    point = lm.layers.resolve(layer)
    encoding = _encode(lm, text)
    found = run_to(lm, [point], encoding.input_ids, encoding.attention_mask)[point].float()
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


def _encode(lm: "LanguageModel", text: str) -> Encoding:
    """One text on the model's device, cut to its context."""
    if not text.strip():
        raise UserError("the text is empty", hint="type a few words")
    context = getattr(lm.model.config, "max_position_embeddings", None)
    return encode_batch(lm.tokenizer, [text], context if isinstance(context, int) else None).to(
        lm.device
    )
