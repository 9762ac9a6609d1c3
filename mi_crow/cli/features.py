"""`mi-crow features` and `mi-crow feature`: reading an SAE's index."""

from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from mi_crow.cli.arguments import open_workspace, pick_sae, positive
from mi_crow.cli.tables import Column, print_facts, print_line, print_table
from mi_crow.cli.text import count, number, print_json, share, visible
from mi_crow.store.workspace import Workspace

if TYPE_CHECKING:
    from mi_crow.mechanistic.features.queries import (
        Example,
        FeatureDetail,
        FeatureRow,
        FeatureStore,
    )

_SORTS = ("density", "feature", "fires", "max_act", "mean_act")
_SHOWN_EXAMPLES = 8
_AROUND = 10  # tokens printed either side of the strongest one


def add_arguments(parser: ArgumentParser, command: str) -> None:
    parser.add_argument("--sae", help="the SAE; may be left out if there is one")
    if command == "feature":
        parser.add_argument("feature", type=int, help="its number")
        parser.add_argument("--examples", type=positive, default=20, help="at most (20)")
        return
    parser.add_argument("--search", metavar="TEXT", help="in concepts, labels, tokens and examples")
    parser.add_argument("--sort", choices=_SORTS, default="density", help="(density)")
    parser.add_argument("--ascending", action="store_true", help="the least first")
    parser.add_argument("--limit", type=positive, default=20, help="features (20)")


def run(options: Namespace) -> int:
    workspace = open_workspace(options)
    store = open_store(workspace, pick_sae(workspace, options.sae))
    if options.command == "feature":
        return _feature(store, options)
    return _features(store, options)


def open_store(workspace: Workspace, sae_id: str) -> "FeatureStore":
    """The index of an SAE joined with the concepts of the workspace."""
    from mi_crow.mechanistic.concepts.annotations import Annotations
    from mi_crow.mechanistic.features.queries import FeatureStore

    return FeatureStore.open(workspace, sae_id, Annotations(workspace.annotations_path))


def _features(store: "FeatureStore", options: Namespace) -> int:
    ids = store.ids(
        sort=options.sort, descending=not options.ascending, search=options.search or None
    )
    rows = store.rows(ids[: options.limit])
    if options.json:
        print_json([_row_json(row) for row in rows])
        return 0
    if not rows:
        print_line("no feature matches")
        return 0
    columns = [
        Column("feature", right=True),
        Column("fires", right=True),
        Column("density", right=True),
        Column("max", right=True),
        Column("mean", right=True),
        Column("concept", shorten=True),
    ]
    print_table(
        columns,
        [
            [
                str(row.feature),
                count(row.fires),
                share(row.density),
                number(row.max_act),
                number(row.mean_act),
                row.concept or "",
            ]
            for row in rows
        ],
    )
    if len(ids) > len(rows):
        print_line(f"{count(len(rows))} of {count(len(ids))} features; more with --limit", "dim")
    return 0


def _feature(store: "FeatureStore", options: Namespace) -> int:
    detail = store.detail(options.feature)
    examples = store.examples(options.feature, limit=options.examples)
    if options.json:
        print_json(feature_json(detail, examples))
        return 0
    _show_facts(detail)
    print_line()
    for example in examples[:_SHOWN_EXAMPLES]:
        print_line(f"{number(example.activation, 3):>8}  {excerpt(example)}")
    return 0


def _row_json(row: "FeatureRow") -> dict[str, Any]:
    keys = ("feature", "fires", "density", "max_act", "mean_act", "concept")
    return {key: getattr(row, key) for key in keys}


def feature_json(detail: "FeatureDetail", examples: "list[Example]") -> dict[str, Any]:
    """One feature as the object that `--json` prints."""
    keys = ("document", "position", "activation", "text", "tokens", "acts")
    return _row_json(detail.row) | {
        "examples": [{key: getattr(example, key) for key in keys} for example in examples],
        "promoted": [{"token": token, "value": value} for token, value in detail.promoted],
        "suppressed": [{"token": token, "value": value} for token, value in detail.suppressed],
        "neighbours": [item._asdict() for item in detail.neighbours],
        "coactivations": [item._asdict() for item in detail.coactivations],
        "histogram": [int(height) for height in detail.histogram],
        "histogram_edges": [float(edge) for edge in detail.edges],
        "labels": [asdict(item) for item in detail.labels],
    }


def _show_facts(detail: "FeatureDetail") -> None:
    row = detail.row
    print_facts(
        {
            "feature": str(row.feature),
            "concept": row.concept or "(none)",
            "fires": f"{count(row.fires)} times, on {share(row.density)} of the tokens",
            "activation": f"at most {number(row.max_act)}, on average {number(row.mean_act)}",
            "promotes": _tokens(detail.promoted),
            "suppresses": _tokens(detail.suppressed),
        }
    )


def _tokens(pairs: Any) -> str:
    return "  ".join(f"{visible(token)!r}" for token, _ in list(pairs)[:10])


def excerpt(example: "Example") -> str:
    """The tokens around the strongest one of an example, which stands in «»."""
    peak = max(range(len(example.tokens)), key=lambda i: example.acts[i])
    first, last = max(0, peak - _AROUND), peak + _AROUND + 1
    tokens = example.tokens
    return (
        f"{''.join(tokens[first:peak])}«{tokens[peak]}»{''.join(tokens[peak + 1 : last])}"
    ).strip()
