"""What one text does in a model: features that fire on it, norms of a layer's activations."""

from collections.abc import Collection, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from mi_crow.errors import UserError
from mi_crow.language_model.capture_pass import run_raw, run_to
from mi_crow.language_model.detokenize import shown_tokens
from mi_crow.language_model.tokenize import Encoding, frame_of, start_id
from mi_crow.mechanistic.sae.cross_layer.kinds import own_layers
from mi_crow.mechanistic.sae.cross_layer.sae import CrossLayerSae
from mi_crow.mechanistic.sae.fitting import check_not_signed, check_width
from mi_crow.mechanistic.sae.outputs import activations_of
from mi_crow.mechanistic.steering.ranking import (
    BY_ACTIVATION,
    Firing,
    Ranking,
    Scales,
    allowed,
    scores,
)
from mi_crow.mechanistic.text_memory import naming_a_length, pass_bytes

if TYPE_CHECKING:
    from mi_crow.language_model import HookPoint, LanguageModel
    from mi_crow.mechanistic.sae.base import SparseAutoencoder, SparseLatents
    from mi_crow.mechanistic.steering.loading import LoadedSae
    from mi_crow.mechanistic.vectors.stored import SteeringVector

_PER_TOKEN = 8  # features listed for each token


class _Window(NamedTuple):
    """What one pass through the model gave for one SAE."""

    ids: list[int]
    special: Tensor  # [n] bool
    outlier: Tensor  # [n] bool
    latents: "SparseLatents"  # [n, k], zero where a token is special or an outlier
    explained: Tensor | None  # [n]; None for a transcoder


def inspect(
    loaded: "LoadedSae",
    text: str,
    top: int = 20,
    bos: str = "auto",
    windows: bool = False,
    ranking: Ranking = BY_ACTIVATION,
    scales: Scales | None = None,
    named: Collection[int] = (),
) -> dict[str, Any]:
    """Tokens of `text` and the features that fire on them.

    `features` are the first `top` in the order of `ranking`, each with its greatest activation, how
    many tokens it fires on, the first of them, one activation per token, and from `scales` its
    share of the greatest activation in the index and its density there; `per_token` the first
    [feature, activation] pairs of each token. On special and outlier tokens, which are flagged,
    nothing fires. `named` are the features that a ranking of named ones only keeps.

    A text longer than the model's context is cut to it, or with `windows` read in several windows:
    `tokens_read` of `tokens_total` tell how much was read, `window_starts` where in `tokens` each
    window begins. `bos` is that of `tokenize`, auto meaning as the SAE was trained; `bos_added`
    tells whether a BOS token was put in front. Raises UserError for an empty text.
    """
    return inspect_all([loaded], text, top, bos, windows, ranking, [scales], [named])[0]


@torch.inference_mode()
def inspect_all(
    loaded: "Sequence[LoadedSae]",
    text: str,
    top: int,
    bos: str,
    windows: bool,
    ranking: Ranking,
    scales: Sequence[Scales | None],
    named: Sequence[Collection[int]],
) -> list[dict[str, Any]]:
    """`inspect` for several SAEs of one model, which reads the text once.

    `explained` is for each token 1 - |x - x_hat|^2 / |x|^2, None on tokens that are not read; a
    transcoder, which explains another layer, has none.
    """
    looks = look_at(loaded, text, bos, windows)
    return [
        report(one, look, top, ranking, scale, names)
        for one, look, scale, names in zip(loaded, looks, scales, named, strict=True)
    ]


@torch.inference_mode()
def look_at(loaded: "Sequence[LoadedSae]", text: str, bos: str, windows: bool) -> "list[Look]":
    """A text as each of several SAEs of one model sees it. Raises UserError for an empty text,
    MachineError naming a length that would fit when memory runs out."""
    lm = loaded[0].lm
    check_text(text)
    for one in loaded:
        check_not_signed(one.sae, one.sae_id, "inspected")
    read = read_text(lm, text, loaded[0].sae.metadata.bos(bos), windows)
    longest, latents = max(map(len, read.rows)), max(one.sae.n_latents for one in loaded)

    def needed(tokens: int) -> int:
        return pass_bytes(lm, tokens, latents=latents)

    with naming_a_length(lm, "inspecting", longest, needed):
        passes = [_windows(loaded, ids) for ids in read.rows]
        return [Look(read, windows) for windows in zip(*passes, strict=True)]


@torch.inference_mode()
def vector_activations(
    lm: "LanguageModel",
    vectors: "Sequence[SteeringVector]",
    text: str,
    bos: str = "auto",
    windows: bool = False,
) -> list[dict[str, Any]]:
    """How far along each vector the tokens of `text` are, read as `inspect` reads it: for each
    layer of a vector `acts`, the projections x.v / |v|^2, 0 on special tokens, and `max_act`.

    Raises UserError for an empty text and for a vector of another width.
    """
    check_text(text)
    places = [(one, layer, lm.layers.resolve(layer)) for one in vectors for layer in one.directions]
    for one, layer, point in places:
        width, size = lm.layers.width(point), len(one.directions[layer])
        check_width(f"vector {one.name!r}", size, f"layer {layer!r}", width)
    acts: list[list[float]] = [[] for _ in places]
    points = list(dict.fromkeys(point for _, _, point in places))
    for ids in read_text(lm, text, bos, windows).rows if places else ():
        encoding = lm.padded([ids])
        found = run_to(lm, points, encoding.input_ids, encoding.attention_mask)
        own = ~encoding.special[0]
        for along, (one, layer, point) in zip(acts, places, strict=True):
            v = one.directions[layer].to(lm.device)
            along += (found[point][0].float() @ v / v.square().sum() * own).tolist()
    return [
        {"vector": one.name, "layer": layer, "max_act": max(along), "acts": along}
        for along, (one, layer, _) in zip(acts, places, strict=True)
    ]


def _windows(loaded: "Sequence[LoadedSae]", ids: list[int]) -> list[_Window]:
    """One window of the text, as each SAE sees it."""
    lm = loaded[0].lm
    encoding = lm.padded([ids])
    points = list(dict.fromkeys(point for one in loaded for point in one.points))
    read = run_to(lm, points, encoding.input_ids, encoding.attention_mask)
    special = encoding.special[0]
    found = []
    for one in loaded:
        layers = [read[point][0] for point in one.points]
        if one.other is not None:
            layers = one.other.beside(layers, encoding.input_ids, encoding.attention_mask)
        found.append(_window(one, ids, layers, special))
    return found


def _window(
    loaded: "LoadedSae", ids: list[int], layers: Sequence[Tensor], special: Tensor
) -> _Window:
    x = torch.cat([*layers], dim=-1)
    sae, limit = loaded.sae, loaded.sae.metadata.outlier_norm
    outlier = torch.zeros_like(special)
    if limit is not None:
        norms = [torch.linalg.vector_norm(rows.float(), dim=-1) for rows in layers]
        outlier = (torch.stack(norms).amax(dim=0) > limit) & ~special
    latents = sae.encode_sparse(x)
    explained = None
    if not sae.transcodes:
        rest = (x - sae.decode_sparse(latents, x)).float().square().sum(-1)
        share = 1 - rest / x.float().square().sum(-1).clamp_min(1e-12)
        explained = share.masked_fill(special | outlier, torch.nan)
    values = latents.values.float() * ~(special | outlier)[:, None]
    return _Window(ids, special, outlier, latents._replace(values=values), explained)


class Look(NamedTuple):
    """One text as one SAE sees it."""

    read: "ReadText"
    windows: tuple[_Window, ...]

    @property
    def latents(self) -> "SparseLatents":
        """Those of all windows, padded with zeros where their k differs."""
        return _joined([one.latents for one in self.windows])

    @property
    def ids(self) -> list[int]:
        return [number for one in self.windows for number in one.ids]

    @property
    def counted(self) -> int:
        """The tokens on which something can fire."""
        return sum(int((~(one.special | one.outlier)).sum()) for one in self.windows)

    def as_json(self, lm: "LanguageModel") -> dict[str, Any]:
        """The tokens, and how the text was read."""
        found = self.windows
        starts = [0, *accumulate(len(one.ids) for one in found)]
        return {
            "tokens": [text for one in found for text in shown_tokens(lm.tokenizer, one.ids)],
            "special": torch.cat([one.special for one in found]).tolist(),
            "outlier": torch.cat([one.outlier for one in found]).tolist(),
            "tokens_total": self.read.total,
            "tokens_read": self.read.read,
            "context_length": lm.context,
            "windows": len(found),
            "window_starts": starts[:-1],
            "bos_added": self.read.bos_added,
        }


@torch.inference_mode()
def report(
    loaded: "LoadedSae",
    look: Look,
    top: int,
    ranking: Ranking,
    scales: Scales | None,
    named: Collection[int],
) -> dict[str, Any]:
    """What `inspect` says of one SAE."""
    latents = look.latents
    shares = [one.explained for one in look.windows if one.explained is not None]
    found = _features(latents, top, ranking, scales, named)
    return {
        **look.as_json(loaded.lm),
        "features": with_layers(loaded.sae, found),
        "per_token": _per_token(latents, ranking, scales, named),
        "order": ranking.by if scales is not None or not ranking.needs_index else "raw",
        "sae_id": loaded.sae_id,
        "layer": loaded.place,
        "point": loaded.place if loaded.further else loaded.layer.point,
        "explained": [None if value != value else value for value in torch.cat(shares).tolist()]
        if shares
        else None,
    }


def with_layers(sae: "SparseAutoencoder", rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of features of an SAE over several layers, each with the `layer` that it is of."""
    if not isinstance(sae, CrossLayerSae):
        return rows
    layers = own_layers(sae, [row["feature"] for row in rows])
    return [{**row, "layer": layer} for row, layer in zip(rows, layers, strict=True)]


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


def _features(
    latents: "SparseLatents",
    top: int,
    ranking: Ranking,
    scales: Scales | None,
    named: Collection[int],
) -> list[dict[str, Any]]:
    """The first `top` features in the order of the ranking."""
    fired = firing(latents)
    features, most, counts, first = fired.features, fired.most, fired.tokens, fired.first
    order = scores(ranking.by, fired, scales)
    order = order.masked_fill(~allowed(ranking, features, scales, named), -torch.inf)
    best = order.topk(min(top, len(features)))
    chosen = best.indices[best.values > -torch.inf]
    # Only these features are made dense: tokens x latents would not fit for wide SAEs.
    acts = activations_of(latents, features[chosen]).t().tolist()
    numbers = features[chosen]
    known = [None] * len(chosen), [None] * len(chosen)
    if scales is not None:
        shares = scales.shares(most[chosen], numbers)
        known = shares.tolist(), scales.density[numbers].tolist()
    columns = numbers.tolist(), most[chosen].tolist(), counts[chosen].tolist()
    rows = zip(*columns, first[chosen].tolist(), *known, acts, strict=True)
    names = "feature", "max_act", "count", "first", "share", "density", "acts"
    return [dict(zip(names, row, strict=True)) for row in rows]


def firing(latents: "SparseLatents") -> Firing:
    """How each feature that fires does so, by ascending number."""
    fires = latents.values > 0
    tokens = fires.nonzero()[:, 0]
    values = latents.values[fires]
    features, place = latents.indices[fires].unique(return_inverse=True)
    most = values.new_zeros(len(features)).scatter_reduce_(0, place, values, "amax")
    counts = torch.bincount(place, minlength=len(features))
    first = tokens.new_full((len(features),), len(latents.values))
    first = first.scatter_reduce_(0, place, tokens, "amin")
    total = torch.zeros_like(most).index_add_(0, place, values)
    return Firing(features, most, total, counts, first)


def _per_token(
    latents: "SparseLatents", ranking: Ranking, scales: Scales | None, named: Collection[int]
) -> list[list[list[float]]]:
    """The first features of each token with their activations there."""
    values, indices = latents
    by = "raw" if ranking.by in ("count", "first") else ranking.by
    order = scores(by, Firing(indices, values, values, indices, indices), scales)
    kept = allowed(ranking, indices, scales, named) & (values > 0)
    order = order.masked_fill(~kept, -torch.inf)
    best = order.topk(min(_PER_TOKEN, order.shape[1]), dim=1)
    features, acts = indices.gather(1, best.indices), values.gather(1, best.indices)
    rows = zip(features.tolist(), acts.tolist(), best.values.tolist(), strict=True)
    return [
        [[feature, act] for feature, act, score in zip(*row, strict=True) if score > -torch.inf]
        for row in rows
    ]


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
