"""`mi-crow contrast`: the features that tell two sets of texts apart."""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mi_crow.cli.arguments import (
    add_device,
    add_sae,
    add_seed,
    add_setting,
    device_of,
    open_workspace,
    pick_sae,
    positive,
)
from mi_crow.cli.commands.meaning.feature_rows import layer_cells
from mi_crow.cli.formatting import count, features_counted, number
from mi_crow.cli.tables import print_line, print_result, print_table
from mi_crow.cli.text_flags import add_bos
from mi_crow.errors import UserError
from mi_crow.mechanistic.vectors.texts import is_of_run
from mi_crow.store.workspace import Workspace
from mi_crow.visible import quoted

_SOURCES = (
    "texts, files of texts (in .txt, empty lines part them; without any, each line is one), "
    "label:NAME or documents:3,7-12 of --run"
)


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
    add_setting(parser, "--texts", 200, "maximum number of texts on each side", type=positive)
    add_setting(parser, "--top", 20, "features to list", type=positive)
    parser.add_argument(
        "--tag",
        help="tag the listed features that are stronger on the first set and have a name or a "
        "proposed one",
    )
    add_bos(parser)
    add_device(parser)
    add_seed(parser)


def run(options: Namespace) -> int:
    workspace = open_workspace(options)
    check_run_is_used(options.run, [*options.texts_for, *options.against])
    if options.tag is not None:
        from mi_crow.mechanistic.concepts.annotations import Annotations

        Annotations(workspace.annotations_path).check_writable()
    sae_id = pick_sae(workspace, options.sae)
    from mi_crow.mechanistic.explain.two_sets import contrast_sets, sets_of
    from mi_crow.mechanistic.steering.known import KnownFeatures
    from mi_crow.mechanistic.steering.loading import load_for_work
    from mi_crow.store.workspace import read_sae_summary

    run_id = options.run or read_sae_summary(workspace.sae_dir(sae_id)).run_id
    words = options.texts_for, options.against
    texts = sets_of(workspace, *words, run_id, options.texts, options.seed)
    found = contrast_sets(
        KnownFeatures(workspace),
        load_for_work(workspace, sae_id, device_of(options)),
        *texts,
        top=options.top,
        bos=options.bos,
        seed=options.seed,
    )
    return finish(workspace, found, options, print_contrast)


def check_run_is_used(run_id: str | None, words: Sequence[str]) -> None:
    """Raises UserError for a run where no text is of one."""
    if run_id is not None and not any(map(is_of_run, words)):
        raise UserError(
            "--run is for labels and documents of a run",
            hint="leave it out, or compare sets such as label:NAME or documents:3,7-12",
        )


def finish(
    workspace: Workspace,
    found: dict[str, Any],
    options: Namespace,
    show: Callable[[dict[str, Any]], None],
) -> int:
    """Tags what was found, if that was asked for, and prints it, also where it cannot be
    tagged. Raises UserError."""
    tagged, failed = 0, None
    try:
        tagged = tag_found(workspace, found, options.tag)
    except UserError as error:
        failed = error
    print_result(options.json, {**found, "tagged": tagged}, show)
    if failed is not None:
        raise failed
    if options.tag and not options.json:
        print_line(f"tagged {features_counted(tagged)} {quoted(options.tag.lstrip('#'))}")
    return 0


def tag_found(workspace: Workspace, found: dict[str, Any], tag: str | None) -> int:
    """Tags the features of a result that are stronger on the first of two sets and have a name;
    those with a proposed one get it, as from `auto`. Raises UserError where none has one."""
    if not tag:
        return 0
    from mi_crow.mechanistic.concepts.annotations import Annotations
    from mi_crow.mechanistic.concepts.marked import tag_named
    from mi_crow.mechanistic.explain.two_sets import meanings
    from mi_crow.mechanistic.features.records import proposed_names
    from mi_crow.mechanistic.steering.known import KnownFeatures

    sae_id = found["sae_id"]
    features = [row["feature"] for row in found["features"] if not _is_of_second(row)]
    known = KnownFeatures(workspace)
    names, store = meanings(known, sae_id, features), known.store(sae_id)
    if not names:
        raise UserError("none of these features has a name", hint=f"mi-crow explain --sae {sae_id}")
    proposed = proposed_names(store.rows(features, ["score"])) if store is not None else {}
    return tag_named(Annotations(workspace.annotations_path), sae_id, names, tag, proposed)


def _is_of_second(row: Mapping[str, Any]) -> bool:
    """Whether a feature is stronger on the second set; of two texts that is not measured."""
    auroc = row.get("auroc")
    return auroc is not None and auroc <= 0.5


def print_contrast(found: dict[str, Any]) -> None:
    """What `two_sets.contrast_sets` found."""
    layers = layer_cells(found["features"])
    print_table(
        [">feature", *layers.title, ">AUROC", ">effect", ">for", ">against", "name…"],
        [
            [
                str(one["feature"]),
                *layers.of(one),
                f"{one['auroc']:.2f}",
                f"{one['effect']:+.2f}",
                number(one["mean_for"]),
                number(one["mean_against"]),
                one["name"] or "-",
            ]
            for one in found["features"]
        ],
    )
    print_line(
        f"{count(found['texts_for'])} texts for, {count(found['texts_against'])} against; AUROC "
        "and effect on the half that features were not chosen by, in the order of the other half: "
        "above 0.5 stronger on the first set, below on the second. Shuffled sets: "
        f"{found['chance']:.2f}",
        "dim",
    )
