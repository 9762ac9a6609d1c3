"""`mi-crow contrast`: the features that tell two sets of texts apart."""

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from mi_crow.cli.arguments import (
    add_device,
    add_sae,
    add_seed,
    device_of,
    open_workspace,
    pick_sae,
    positive,
)
from mi_crow.cli.commands.features import open_store
from mi_crow.cli.formatting import count, number, print_json
from mi_crow.cli.tables import Column, print_line, print_table
from mi_crow.cli.text_flags import add_bos
from mi_crow.errors import NotFoundError, UserError
from mi_crow.store.workspace import Workspace

if TYPE_CHECKING:
    from mi_crow.mechanistic.explain.contrast import Contrast

_SOURCES = "texts, files of texts, label:NAME or documents:3,7-12 of --run"


def add_arguments(parser: ArgumentParser, command: str) -> None:
    add_sae(parser)
    parser.add_argument(
        "--for", dest="texts_for", nargs="+", required=True, metavar="TEXTS", help=_SOURCES
    )
    parser.add_argument(
        "--against",
        nargs="+",
        required=True,
        metavar="TEXTS",
        help=f"{_SOURCES}, or `others`: the run's other documents",
    )
    parser.add_argument("--run", help="the run of labels and documents (default: the SAE's)")
    parser.add_argument(
        "--texts", type=positive, default=200, help="at most so many on each side (default: 200)"
    )
    parser.add_argument("--top", type=positive, default=20, help="features to list (default: 20)")
    parser.add_argument("--tag", help="tag the listed features that have a name or a proposed one")
    add_bos(parser)
    add_device(parser)
    add_seed(parser)


def run(options: Namespace) -> int:
    workspace = open_workspace(options)
    sae_id = pick_sae(workspace, options.sae)
    from mi_crow.mechanistic.explain.contrast import contrast
    from mi_crow.mechanistic.steering.loading import load_for_work
    from mi_crow.mechanistic.vectors.texts import texts_of
    from mi_crow.store.workspace import read_sae_summary

    run_id = options.run or read_sae_summary(workspace.sae_dir(sae_id)).run_id
    wanted = options.texts, options.seed
    texts_for = texts_of(workspace, options.texts_for, run_id, *wanted, not_those=options.against)
    against = texts_of(workspace, options.against, run_id, *wanted, not_those=options.texts_for)
    loaded = load_for_work(workspace, sae_id, device_of(options))
    found = contrast(
        loaded, texts_for, against, top=options.top, bos=options.bos, seed=options.seed
    )
    names = _names(workspace, sae_id, [one.feature for one in found.features])
    tagged = _tag(workspace, sae_id, names, options.tag) if options.tag else 0
    if options.json:
        rows = [{**row, "name": names.get(row["feature"])} for row in found.as_json()["features"]]
        print_json({**found.as_json(), "sae_id": sae_id, "features": rows, "tagged": tagged})
        return 0
    _print(found, names)
    if options.tag:
        print_line(f"tagged {count(tagged)} features {options.tag!r}")
    return 0


def _names(workspace: Workspace, sae_id: str, features: list[int]) -> dict[int, str]:
    """The name, the proposed name or the label of features, where there is an index."""
    try:
        rows = open_store(workspace, sae_id).rows(features)
    except NotFoundError:
        return {}
    found = {row.feature: row.meaning for row in rows}
    return {feature: name for feature, name in found.items() if name}


def _tag(workspace: Workspace, sae_id: str, names: dict[int, str], tag: str) -> int:
    """Tags the features that have a name; those with a proposed one get it, as from `auto`."""
    from mi_crow.mechanistic.concepts.annotations import Annotations

    if not names:
        raise UserError("none of these features has a name", hint=f"mi-crow explain --sae {sae_id}")
    annotations = Annotations(workspace.annotations_path)
    with annotations.one_change():
        for feature, name in names.items():
            old = annotations.concepts(sae_id, feature)
            if not old:
                annotations.set_concept(sae_id, feature, name, tags=[tag], source="auto")
            for one in old:
                annotations.set_concept(
                    sae_id,
                    feature,
                    one.name,
                    one.confidence,
                    one.note,
                    tuple(dict.fromkeys((*one.tags, tag))),
                    one.source,
                )
    return len(names)


def _print(found: "Contrast", names: dict[int, str]) -> None:
    titles = ("feature", "AUROC", "effect", "for", "against")
    print_table(
        [*(Column(title, right=True) for title in titles), Column("name", shorten=True)],
        [
            [
                str(one.feature),
                f"{one.auroc:.2f}",
                f"{one.effect:+.2f}",
                number(one.mean_for),
                number(one.mean_against),
                names.get(one.feature, "-"),
            ]
            for one in found.features
        ],
    )
    print_line(
        f"{count(found.texts_for)} texts for, {count(found.texts_against)} against; AUROC and "
        "effect on the half that features were not chosen by: above 0.5 stronger on the first "
        f"set, below on the second. Shuffled sets: {found.chance:.2f}",
        "dim",
    )
