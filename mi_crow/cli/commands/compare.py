"""`mi-crow compare`: how many features two SAEs share."""

from argparse import ArgumentParser, Namespace

from mi_crow.cli.arguments import plan_workspace
from mi_crow.cli.formatting import count, number, print_json, share
from mi_crow.cli.tables import print_facts


def add_arguments(parser: ArgumentParser, command: str) -> None:
    for place in ("first", "second"):
        parser.add_argument(place, metavar="SAE", help="SAE id or path")


def run(options: Namespace) -> int:
    workspace = plan_workspace(options)
    folders = [workspace.sae_or_path(name) for name in (options.first, options.second)]
    from mi_crow.mechanistic.sae.evaluation.compare import compare_saes
    from mi_crow.mechanistic.sae.formats.load import load_sae

    found = compare_saes(load_sae(folders[0]), load_sae(folders[1]))
    if options.json:
        print_json({"first": options.first, "second": options.second, **found.as_json()})
        return 0
    print_facts(
        {
            "features": f"{count(found.features)} of {options.first}, "
            f"{count(found.others)} of {options.second}",
            "cosine": f"{number(found.mean_max_cosine)} to the nearest feature, on average",
            "close": f"{share(found.share_close)} have a feature at cosine 0.7 or more",
            "same": f"{share(found.share_same)} have a feature at cosine 0.9 or more",
            "stability": f"{share(found.stability)} match one to one at cosine 0.7 or more",
        }
    )
    return 0
