"""What the figures of an inspection are called, and when a prediction fails. Torch-free."""

from collections.abc import Mapping
from typing import Any

FIGURES: dict[str, str] = {
    "features": "features",
    "error": "SAE error",
    "bias": "bias",
    "other_tokens": "special and outlier tokens",
    "outside": "outside",
    "together": "ablated together",
    "predicted_sum": "predicted sum",
    "correlation": "correlation",
    "rank_correlation": "rank correlation",
    "without_features": "without any feature",
    "faithfulness": "faithfulness",
    "random_faithfulness": "faithfulness of random features",
    "completeness": "completeness",
    "random_completeness": "completeness of random features",
}
"""The parts and the check as people read them, by the keys of `as_json`."""

MEANINGS: tuple[tuple[str, str], ...] = (
    (
        "effect",
        "predicted by the gradient: what the feature adds to the target, to first order",
    ),
    (
        "ablated",
        "measured: the target minus the target without the feature; above 0 the feature raises it",
    ),
    (
        "layer",
        "the hook point that a feature reads; of a crosscoder whose features read several the one "
        "that it writes to most",
    ),
    ("outside", "what is left of the target once features, SAE error, bias and tokens are counted"),
    (
        "faithfulness",
        "the share of the target that remains with only the listed features: 1 is all, 0 none",
    ),
    ("completeness", "how much of it the others keep up without them: 0 where none is missing"),
)
"""What the words in an answer mean, each with its sign or its best value."""

ORDERS: dict[str, str] = {
    "meaning": "meaning, the share of the feature's maximum times surprise over all tokens",
    "share": "the share of the feature's maximum",
    "surprise": "surprise, -log density, where it fires",
    "raw": "the greatest activation",
    "count": "the tokens on which it fires",
    "first": "the first token on which it fires",
}
"""What each order of features compares."""

_LEAST_RANK = 0.5  # rank correlation below which the order is not predicted
_FACTOR = 3.0  # between the predicted sum and the measured one
_LEAST_SHARE = 0.01  # of the target: sums below it are not compared


def figure_name(key: str) -> str:
    """What a figure is called."""
    return FIGURES.get(key, key.replace("_", " "))


def difference_words(order: str) -> str:
    """What the figures of two texts are: the difference is not that of the other two."""
    return (
        f"difference: of {ORDERS.get(order, order)}, above 0 more on the first text; "
        "first, second: the greatest activation"
    )


def doubt(check: Mapping[str, Any], value: float) -> str:
    """One sentence where the prediction fails: what the gradient predicts and what ablating
    measures rank the features differently or are far apart. Else nothing. `value` is the
    target's."""
    parts = []
    predicted, together = check.get("predicted_sum"), check.get("together")
    if predicted is not None and together is not None:
        small, large = sorted((abs(predicted), abs(together)))
        apart = predicted * together < 0 or large > _FACTOR * small
        if apart and large > _LEAST_SHARE * abs(value):
            parts.append(f"of the sum ({predicted:+.3g}; ablated together {together:+.3g})")
    rank = check.get("rank_correlation")
    if rank is not None and rank < _LEAST_RANK:
        parts.append(f"of the order (rank correlation {rank:.2f})")
    if not parts:
        return ""
    return (
        f"the prediction {' and '.join(parts)} fails here: go by what was ablated, or try "
        "integrated gradients (steps)"
    )


def which_token(found: Mapping[str, Any]) -> str:
    """Why this next token is the target: `the likeliest`, `the text's own`, or both; empty for
    another, and for a feature."""
    target = found["target"]
    tokens, token = found["tokens"], target.get("token")
    if token is None:
        return ""
    following = tokens[target["position"] + 1 : target["position"] + 2]
    said = found.get("predictions") or ()
    words = ["the likeliest"] if said and said[0]["token"] == token else []
    words += ["the text's own"] if following and following[0] == token else []
    return " and ".join(words)


def without_causes(sae: Mapping[str, Any]) -> str:
    """Why an answer lists no cause of an SAE, in words; what was saved earlier does not say how
    many features fire."""
    firing = sae.get("firing")
    if firing == 0:
        return "no feature fires on this text"
    if firing is None:
        return "no feature has an effect on this target"
    one = firing == 1
    fire, none = ("feature fires", "it has no") if one else ("features fire", "none has an")
    return f"{firing:,} {fire} on this text, {none} effect on this target"
