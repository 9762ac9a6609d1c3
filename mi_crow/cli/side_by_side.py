"""`mi-crow feature 3 17`: two to four features side by side."""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mi_crow.cli.excerpt import excerpt, short_token
from mi_crow.cli.formatting import count, number, print_json, share
from mi_crow.cli.tables import print_facts, print_line, print_table
from mi_crow.mechanistic.features.comparing import Alone, Comparison, Pair, compare_features
from mi_crow.mechanistic.features.records import auroc_text
from mi_crow.mechanistic.features.report.as_json import comparison_json
from mi_crow.visible import visible

if TYPE_CHECKING:
    from mi_crow.mechanistic.features.queries import FeatureStore

_TEXTS = 3  # printed of each list
_TOKENS = 10


def print_comparison(
    store: "FeatureStore", features: Sequence[int], folder: Path, options: Namespace
) -> int:
    """Prints the features of `store`, whose SAE is in `folder`, and what each two share."""
    found = compare_features(store, features, folder)
    if options.json:
        print_json(comparison_json(found, options.examples))
        return 0
    _print_sides(found)
    for pair in found.pairs:
        print_line()
        _print_pair(pair, found)
    if found.no_cosine:
        print_line()
        print_line(f"no cosine: {found.no_cosine}", "dim")
    return 0


def _print_sides(found: Comparison) -> None:
    several = any(side.detail.several for side in found.sides)
    own = ["layer"] if several else []
    columns = [">feature", *own, ">fires", ">density", ">max", "meaning…", "positive logits…"]
    lines = []
    for side in found.sides:
        row = side.detail.row
        label = f"{row.top_label} {auroc_text(row.top_auroc or 0)}" if row.top_label else ""
        lines.append(
            [
                str(row.feature),
                *([side.detail.layer or "-"] if several else []),
                count(row.fires),
                share(row.density),
                number(row.max_act),
                row.concept or label or "-",
                _tokens([token for token, _ in side.detail.promoted]),
            ]
        )
    print_table(columns, lines)


def _print_pair(pair: Pair, found: Comparison) -> None:
    bound = "at most " if pair.jaccard_is_bound else ""
    print_facts(
        {
            "features": f"#{pair.first} and #{pair.second}",
            "cosine": "-" if pair.cosine is None else f"{pair.cosine:.3f}",
            "Jaccard": f"{bound}{pair.jaccard:.3f}, counted over {found.cofiring.words()}",
            "promoted by both": _tokens([one.token for one in pair.promoted]) or "(none)",
        }
    )
    _print_alone(pair.first, pair.second, pair.only_first)
    _print_alone(pair.second, pair.first, pair.only_second)


def _print_alone(feature: int, other: int, texts: Sequence[Alone]) -> None:
    if not texts:
        print_line(f"#{feature} without #{other}: no such text among its examples", "dim")
        return
    bounded = texts[0].at_most > 0
    instead = f": no text for certain; #{other} not among the strongest:" if bounded else ""
    print_line(f"#{feature} without #{other}{instead}")
    for one in texts[:_TEXTS]:
        sure = f"  (#{other} at most {number(one.at_most, 2)})" if one.at_most else ""
        print_line(f"{number(one.example.activation, 3):>8}  {excerpt(one.example)}{sure}")


def _tokens(tokens: Sequence[str]) -> str:
    return "  ".join(repr(visible(short_token(token))) for token in tokens[:_TOKENS])
