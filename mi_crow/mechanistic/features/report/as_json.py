"""Features as plain values, as `--json` prints them and an export writes them."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from mi_crow.mechanistic.features.catalogue import column_named

if TYPE_CHECKING:
    from mi_crow.mechanistic.features.comparing import Alone, Comparison
    from mi_crow.mechanistic.features.records import Example, FeatureDetail, FeatureRow


def row_json(row: "FeatureRow") -> dict[str, Any]:
    """One row of the table, with all columns that were asked for under their names in the index."""
    more = {column_named(name).key: value for name, value in row.more.items()}
    values = asdict(row)
    del values["more"]
    return values | more


def feature_json(detail: "FeatureDetail", examples: "Sequence[Example]") -> dict[str, Any]:
    """Everything about one feature."""
    written = {"decoder_norms": [one._asdict() for one in detail.written]} if detail.written else {}
    return row_json(detail.row) | {
        "layer": detail.layer or None,
        **written,
        **({} if detail.models is None else detail.models._asdict()),
        "examples": [_example_json(example) for example in examples],
        "promoted": [{"token": token, "value": value} for token, value in detail.promoted],
        "suppressed": [{"token": token, "value": value} for token, value in detail.suppressed],
        "neighbours": [item._asdict() for item in detail.neighbours],
        "coactivations": [item._asdict() for item in detail.coactivations],
        "cofiring": detail.cofiring._asdict() | {"over": detail.cofiring.words()},
        "histogram": [int(height) for height in detail.histogram],
        "histogram_edges": [float(edge) for edge in detail.edges],
        "proposal": None if detail.proposal is None else asdict(detail.proposal),
        "explanation": None if detail.explanation is None else detail.explanation.as_json(),
        "labels": [asdict(item) | {"auroc_heldout": item.auroc_heldout} for item in detail.labels],
    }


def _example_json(example: "Example") -> dict[str, Any]:
    keys = ("document", "position", "activation", "text", "tokens", "acts")
    return {key: getattr(example, key) for key in keys}


def comparison_json(found: "Comparison", limit: int) -> dict[str, Any]:
    """Features side by side; at most `limit` examples and texts in each list."""

    def alone(texts: "Sequence[Alone]") -> list[dict[str, Any]]:
        return [_example_json(one.example) | {"at_most": one.at_most} for one in texts[:limit]]

    return {
        "features": [feature_json(one.detail, one.examples[:limit]) for one in found.sides],
        "pairs": [
            {
                "features": [pair.first, pair.second],
                "cosine": pair.cosine,
                "jaccard": pair.jaccard,
                "jaccard_is_bound": pair.jaccard_is_bound,
                "promoted": [token._asdict() for token in pair.promoted],
                "only_first": alone(pair.only_first),
                "only_second": alone(pair.only_second),
            }
            for pair in found.pairs
        ],
        "no_cosine": found.no_cosine or None,
    }
