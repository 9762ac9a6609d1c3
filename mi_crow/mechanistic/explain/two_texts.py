"""Two texts beside each other: which tokens are in both, and the features that differ most."""

from collections.abc import Sequence
from difflib import SequenceMatcher
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mi_crow.errors import UserError
from mi_crow.mechanistic.steering.inspection import (
    Look,
    activations_of,
    firing,
    look_at,
    with_layers,
)
from mi_crow.mechanistic.steering.ranking import Firing, Order, Ranking, Scales, allowed, scores
from mi_crow.mechanistic.steering.run import named_in, scales_of

if TYPE_CHECKING:
    from mi_crow.mechanistic.steering.known import KnownFeatures
    from mi_crow.mechanistic.steering.loading import LoadedSae

_ORDERS = ("meaning", "share", "raw", "count")


@torch.inference_mode()
def compare_texts(
    known: "KnownFeatures",
    loaded: "LoadedSae",
    first: str,
    second: str,
    *,
    top: int = 40,
    bos: str = "auto",
    windows: bool = False,
    ranking: Ranking | None = None,
) -> dict[str, Any]:
    """The `top` features by how differently they fire on two texts.

    A feature's `difference` is its score for the first text minus that for the second, as
    `ranking` scores them: by `meaning` (the default) and `count` a mean over the tokens, so that a
    longer text does not count for more, by `share` and `raw` the greatest activation. Each row has
    for both texts the greatest activation, its share of that in the index, the number of tokens it
    fires on and one activation a token. `aligned` pairs the tokens, [place in the first, place in
    the second], None where a text has none; equal ones are beside each other.

    Raises UserError for an empty text or an order that is not a size, NotFoundError for a ranking
    that needs an index where there is none.
    """
    asked = ranking or Ranking()
    if asked.by not in _ORDERS:
        raise UserError(
            f"two texts cannot be compared by {asked.by}", hint=f"use {', '.join(_ORDERS)}"
        )
    scales = scales_of(known, loaded, ranking)
    looks = [look_at([loaded], text, bos, windows)[0] for text in (first, second)]
    fired = [firing(look.latents) for look in looks]
    features = torch.cat([one.features for one in fired]).unique()
    sides = [
        _spread(features, one, _score(asked.by, one, scales, look))
        for one, look in zip(fired, looks, strict=True)
    ]
    difference = sides[0] - sides[1]
    kept = allowed(asked, features, scales, named_in(known, loaded, asked))
    order = torch.where(kept, difference.abs(), -1.0).topk(min(top, len(features)))
    best = order.indices[order.values > 0]
    rows = _rows(features[best], difference[best], fired, looks, scales)
    names = known.names(loaded.sae_id, [row["feature"] for row in rows])
    for row in rows:
        row.update(names[row["feature"]])
    texts = [
        {"text": text, **look.as_json(loaded.lm)}
        for text, look in zip((first, second), looks, strict=True)
    ]
    return {
        "sae_id": loaded.sae_id,
        "model_id": loaded.lm.model_id,
        "layer": loaded.place,
        "order": asked.by if scales is not None or not asked.needs_index else "raw",
        "first": texts[0],
        "second": texts[1],
        "aligned": aligned(looks[0].ids, looks[1].ids),
        "features": with_layers(loaded.sae, rows),
    }


def _score(by: Order, fired: Firing, scales: Scales | None, look: Look) -> Tensor:
    """The scores of the features of a text, [f], 0 for what does not fire."""
    if by == "count":
        return fired.tokens.float() / max(look.counted, 1)
    found = scores(by, fired, scales)
    return found / max(look.counted, 1) if by == "meaning" and scales is not None else found


def _spread(features: Tensor, fired: Firing, values: Tensor) -> Tensor:
    """`values` of the features that fired as one value for each of `features`, 0 for the others."""
    found = torch.zeros(len(features), device=features.device)
    found[torch.searchsorted(features, fired.features)] = values.float()
    return found


def _rows(
    features: Tensor,
    difference: Tensor,
    fired: Sequence[Firing],
    looks: Sequence[Look],
    scales: Scales | None,
) -> list[dict[str, Any]]:
    ordered = features.sort()
    columns: dict[str, list[Any]] = {
        "feature": features.tolist(),
        "difference": difference.tolist(),
        "density": [None] * len(features) if scales is None else scales.density[features].tolist(),
    }
    for side, one, look in zip(("first", "second"), fired, looks, strict=True):
        inside = torch.isin(one.features, features)
        own = Firing(*(column[inside] for column in one))
        back = ordered.indices.argsort()
        most, counts = (_spread(ordered.values, own, v)[back] for v in (own.most, own.tokens))
        shares = None if scales is None else scales.shares(most, features).tolist()
        columns[side] = most.tolist()
        columns[f"{side}_share"] = shares or [None] * len(features)
        columns[f"{side}_count"] = counts.long().tolist()
        columns[f"{side}_acts"] = activations_of(look.latents, features).t().tolist()
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def aligned(first: Sequence[int], second: Sequence[int]) -> list[list[int | None]]:
    """Places of two lists of token ids, in pairs: what is equal is together, what was replaced
    one by one beside what it was replaced by."""
    matcher = SequenceMatcher(None, first, second, autojunk=False)
    return [
        list(pair)
        for _, a, b, c, d in matcher.get_opcodes()
        for pair in zip_longest(range(a, b), range(c, d))
    ]
