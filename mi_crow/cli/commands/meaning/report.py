"""`mi-crow report`: features with their examples in one self-contained file."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from mi_crow.cli.arguments import (
    add_sae,
    add_setting,
    add_switch,
    feature_number,
    open_workspace,
    pick_sae,
    positive,
    tag_name,
)
from mi_crow.cli.commands.features import open_store
from mi_crow.cli.formatting import count, features_counted
from mi_crow.cli.tables import print_outcome
from mi_crow.errors import NotFoundError
from mi_crow.visible import quoted

_MOST = 100


def add_arguments(parser: ArgumentParser, command: str) -> None:
    add_sae(parser)
    parser.add_argument("path", type=Path, help="a .html page, or a .json file")
    parser.add_argument("query", nargs="?", default="", help="query as of mi-crow features")
    parser.add_argument("--tag", type=tag_name, help="features with this tag")
    parser.add_argument(
        "--feature", type=feature_number, action="append", default=[], help="repeatable"
    )
    add_setting(parser, "--limit", _MOST, "features at most", type=positive)
    add_switch(parser, "--force", "replace the file")


def run(options: Namespace) -> int:
    workspace = open_workspace(options)
    sae_id = pick_sae(workspace, options.sae)
    from mi_crow.mechanistic.features.query_language import parse_query
    from mi_crow.mechanistic.features.records import FeatureFilter
    from mi_crow.mechanistic.features.report.write import write_features

    store = open_store(workspace, sae_id)
    if options.feature and not options.query and not options.tag:
        features = list(dict.fromkeys(options.feature))
    else:
        found = store.find(parse_query(options.query), flt=FeatureFilter(tag=options.tag)).tolist()
        features = [*options.feature, *(one for one in found if one not in options.feature)]
    if not features:
        asked = (
            f"with the tag {quoted(options.tag)}" if options.tag else f"for {quoted(options.query)}"
        )
        raise NotFoundError(f"no feature of {sae_id} {asked}", hint="mi-crow features lists them")
    chosen = features[: options.limit]
    written = write_features(store, chosen, options.path, overwrite=options.force)
    value = {"path": str(options.path), "features": written, "found": len(features)}
    left = len(features) - written
    rest = f"; --limit left out {count(left)}" if left else ""
    said = f"wrote {features_counted(written)} to {options.path}{rest}"
    print_outcome(options.json, value, said)
    return 0
