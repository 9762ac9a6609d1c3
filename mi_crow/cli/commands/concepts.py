"""`mi-crow concepts`: the names that people give to features."""

import sys
from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from mi_crow.bounds import SHARE
from mi_crow.cli.arguments import (
    add_actions,
    add_sae,
    check_new_file,
    feature_number,
    number_within,
    open_workspace,
    pick_sae,
    positive,
)
from mi_crow.cli.formatting import moment, number
from mi_crow.cli.tables import Column, print_list, print_outcome
from mi_crow.errors import NotFoundError, UserError
from mi_crow.store.workspace import Workspace, read_sae_summary

if TYPE_CHECKING:
    from mi_crow.mechanistic.concepts.annotations import Annotations


_ACTIONS = {
    "list": "list the concepts (default)",
    "set": "name a feature",
    "remove": "remove one or all names of a feature",
    "import": "read concepts from a .json or .csv file",
    "export": "write all concepts to a .json or .csv file",
    "history": "list the latest changes, with author and time",
    "undo": "undo your latest change, or the one with this id",
    "redo": "redo what you undid last",
}


def add_arguments(parser: ArgumentParser, command: str) -> None:
    for name, action in add_actions(parser, _ACTIONS):
        if name in ("list", "history"):
            action.add_argument("--sae", help="only this SAE")
        if name == "history":
            action.add_argument(
                "--limit", type=positive, default=20, help="number of changes (default: 20)"
            )
        if name == "undo":
            action.add_argument(
                "change", nargs="?", type=positive, metavar="ID", help="id in the history"
            )
        if name in ("set", "remove"):
            add_sae(action)
            action.add_argument("feature", type=feature_number, help="feature index")
        if name == "set":
            action.add_argument("name", help="name of the concept")
            action.add_argument(
                "--confidence", type=number_within(SHARE), default=1.0, help="0 to 1 (default: 1)"
            )
            action.add_argument("--note", default="", help="a note on it")
            action.add_argument("--tag", action="append", default=[], help="repeatable")
        if name == "remove":
            action.add_argument("name", nargs="?", help="name to remove (default: all)")
        if name in ("import", "export"):
            action.add_argument("path", type=Path, help="a .json or .csv file")
            what = "concepts that differ" if name == "import" else "an existing file"
            action.add_argument("--force", action="store_true", help=f"replace {what}")


def run(options: Namespace) -> int:
    from mi_crow.mechanistic.concepts.annotations import Annotations

    workspace = open_workspace(options)
    annotations = Annotations(workspace.annotations_path)
    action = {
        None: _list,
        "list": _list,
        "set": _set,
        "remove": _remove,
        "import": _import,
        "export": _export,
        "history": _history,
        "undo": _undo,
        "redo": _redo,
    }[options.action]
    action(workspace, annotations, options)
    return 0


def _list(workspace: Workspace, annotations: "Annotations", options: Namespace) -> None:
    sae_id = getattr(options, "sae", None)
    if sae_id is not None:
        workspace.sae_dir(sae_id)
    concepts = annotations.concepts(sae_id)
    if (reason := annotations.read_only()) is not None:
        print(f"note: tagging is off, {reason}", file=sys.stderr)
    columns = [
        Column("SAE", shorten=True),
        Column("feature", right=True),
        Column("concept", shorten=True),
        Column("confidence", right=True),
        Column("note", shorten=True),
    ]
    rows = ([c.sae_id, str(c.feature), c.name, number(c.confidence, 2), c.note] for c in concepts)
    print_list(options.json, [asdict(one) for one in concepts], columns, rows, "no concepts yet")


def _set(workspace: Workspace, annotations: "Annotations", options: Namespace) -> None:
    sae_id = pick_sae(workspace, options.sae)
    n_latents = read_sae_summary(workspace.sae_dir(sae_id)).n_latents
    if not 0 <= options.feature < n_latents:
        raise NotFoundError(
            f"feature {options.feature} is not in SAE {sae_id!r}",
            hint=f"its features are 0 to {n_latents - 1}",
        )
    annotations.set_concept(
        sae_id,
        options.feature,
        options.name,
        confidence=options.confidence,
        note=options.note,
        tags=tuple(options.tag),
    )
    value = {"sae_id": sae_id, "feature": options.feature, "name": options.name}
    print_outcome(
        options.json, value, f"feature {options.feature} of {sae_id} is now {options.name!r}"
    )


def _remove(workspace: Workspace, annotations: "Annotations", options: Namespace) -> None:
    sae_id = pick_sae(workspace, options.sae)
    names = [c.name for c in annotations.concepts(sae_id) if c.feature == options.feature]
    chosen = names if options.name is None else [n for n in names if n == options.name]
    if not chosen:
        known = f"it is named {', '.join(names)}" if names else "mi-crow concepts lists them all"
        wanted = repr(options.name) if names else "a name"
        raise NotFoundError(f"feature {options.feature} does not have {wanted}", hint=known)
    for name in chosen:
        annotations.remove_concept(sae_id, options.feature, name)
    value = {"sae_id": sae_id, "feature": options.feature, "removed": chosen}
    sentence = f"removed {', '.join(chosen)} from feature {options.feature}"
    print_outcome(options.json, value, sentence)


def _import(workspace: Workspace, annotations: "Annotations", options: Namespace) -> None:
    if not options.path.is_file():
        raise NotFoundError(f"file {str(options.path)!r} not found")
    _check_suffix(options.path)
    from mi_crow.mechanistic.concepts.importing import import_concepts

    done = import_concepts(workspace, annotations, options.path, force=options.force)
    value = {
        "concepts": done.concepts,
        "added": done.added,
        "replaced": done.replaced,
        "unchanged": done.unchanged,
    }
    more = f": {done.added} new, {done.replaced} replaced, {done.unchanged} unchanged"
    print_outcome(options.json, value, f"imported {done.concepts} concepts{more}")


def _export(workspace: Workspace, annotations: "Annotations", options: Namespace) -> None:
    _check_suffix(options.path)
    if not options.path.absolute().parent.is_dir():
        raise NotFoundError(f"folder {str(options.path.absolute().parent)!r} not found")
    check_new_file(options.path, force=options.force)
    annotations.export(options.path, overwrite=True)
    concepts = len(annotations.concepts())
    value = {"concepts": concepts, "path": str(options.path)}
    print_outcome(options.json, value, f"wrote {concepts} concepts to {options.path}")


def _undo(workspace: Workspace, annotations: "Annotations", options: Namespace) -> None:
    change = options.change
    undone = annotations.undo() if change is None else annotations.undo_change(change)
    if undone is None:
        raise UserError("you have no changes to undo")
    print_outcome(options.json, asdict(undone), undone.message)


def _redo(workspace: Workspace, annotations: "Annotations", options: Namespace) -> None:
    redone = annotations.redo()
    if redone is None:
        raise UserError(
            "there is nothing to redo",
            hint="an undo can be redone until you change something else; "
            "mi-crow concepts history lists all changes",
        )
    print_outcome(options.json, asdict(redone), redone.message)


def _history(workspace: Workspace, annotations: "Annotations", options: Namespace) -> None:
    if options.sae is not None:
        workspace.sae_dir(options.sae)
    changes = annotations.past_changes(options.limit, options.sae)
    columns = [
        Column("ID", right=True),
        Column("when"),
        Column("who", shorten=True),
        Column("SAE", shorten=True),
        Column("change", shorten=True),
        Column("state"),
    ]
    rows = (
        [str(c.id), moment(c.t), c.actor, c.sae_id, c.what, "undone" if c.undone else ""]
        for c in changes
    )
    print_list(options.json, [asdict(one) for one in changes], columns, rows, "no changes yet")


def _check_suffix(path: Path) -> None:
    if path.suffix not in (".json", ".csv"):
        raise UserError(
            f"{str(path)!r} is neither .json nor .csv", hint="use one of these suffixes"
        )
