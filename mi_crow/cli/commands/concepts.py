"""`mi-crow concepts`: the names that people gave to features."""

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from time import localtime, strftime
from typing import TYPE_CHECKING, Any

from mi_crow.bounds import SHARE
from mi_crow.cli.arguments import (
    add_common,
    check_new_file,
    feature_number,
    number_within,
    open_workspace,
    pick_sae,
    positive,
)
from mi_crow.cli.formatting import number, print_json
from mi_crow.cli.tables import Column, print_line, print_table
from mi_crow.errors import NotFoundError, UserError
from mi_crow.store.workspace import Workspace, read_sae_summary

if TYPE_CHECKING:
    from mi_crow.mechanistic.concepts.annotations import Annotations


def add_arguments(parser: ArgumentParser, command: str) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION")
    for name, text in {
        "list": "list the concepts (the default)",
        "set": "name a feature",
        "remove": "take a name, or all names, from a feature",
        "import": "read concepts from a .json or .csv file",
        "export": "write all concepts to a .json or .csv file",
        "history": "list the latest changes, by whom and when",
        "undo": "undo your latest change, or the one with this number",
        "redo": "take back your latest undo",
    }.items():
        action = actions.add_parser(name, help=text, description=f"{text}.")
        add_common(action)
        if name == "history":
            action.add_argument("--sae", help="of this SAE only")
            action.add_argument("--limit", type=positive, default=20, help="changes (20)")
        if name == "undo":
            action.add_argument(
                "change", nargs="?", type=positive, metavar="ID", help="its number in the history"
            )
        if name in ("list", "set", "remove"):
            action.add_argument("--sae", help="the SAE; may be left out if there is one")
        if name in ("set", "remove"):
            action.add_argument("feature", type=feature_number)
        if name == "set":
            action.add_argument("name")
            action.add_argument(
                "--confidence", type=number_within(SHARE), default=1.0, help="0 to 1 (1)"
            )
            action.add_argument("--note", default="")
            action.add_argument("--tag", action="append", default=[], help="may be repeated")
        if name == "remove":
            action.add_argument("name", nargs="?", help="one name (all of the feature's)")
        if name in ("import", "export"):
            action.add_argument("path", type=Path)
            replaces = "what is said otherwise" if name == "import" else "a file that exists"
            action.add_argument("--force", action="store_true", help=f"replace {replaces}")


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
    if options.json:
        print_json([_json(concept) for concept in concepts])
    elif not concepts:
        print_line("no concepts yet")
    else:
        columns = [
            Column("SAE", shorten=True),
            Column("feature", right=True),
            Column("concept", shorten=True),
            Column("confidence", right=True),
            Column("note", shorten=True),
        ]
        print_table(
            columns,
            [[c.sae_id, str(c.feature), c.name, number(c.confidence, 2), c.note] for c in concepts],
        )


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
    _say(options, value, f"feature {options.feature} of {sae_id} is {options.name!r}")


def _remove(workspace: Workspace, annotations: "Annotations", options: Namespace) -> None:
    sae_id = pick_sae(workspace, options.sae)
    names = [c.name for c in annotations.concepts(sae_id) if c.feature == options.feature]
    chosen = names if options.name is None else [n for n in names if n == options.name]
    if not chosen:
        known = f"it is named {', '.join(names)}" if names else "mi-crow concepts lists all names"
        wanted = repr(options.name) if names else "a name"
        raise NotFoundError(f"feature {options.feature} does not have {wanted}", hint=known)
    for name in chosen:
        annotations.remove_concept(sae_id, options.feature, name)
    value = {"sae_id": sae_id, "feature": options.feature, "removed": chosen}
    _say(options, value, f"removed {', '.join(chosen)} from feature {options.feature}")


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
    more = f": {done.added} new, {done.replaced} replaced, {done.unchanged} as they were"
    _say(options, value, f"imported {done.concepts} concepts{more}")


def _export(workspace: Workspace, annotations: "Annotations", options: Namespace) -> None:
    _check_suffix(options.path)
    if not options.path.absolute().parent.is_dir():
        raise NotFoundError(f"folder {str(options.path.absolute().parent)!r} not found")
    check_new_file(options.path, force=options.force)
    annotations.export(options.path, overwrite=True)
    concepts = len(annotations.concepts())
    value = {"concepts": concepts, "path": str(options.path)}
    _say(options, value, f"wrote {concepts} concepts to {options.path}")


def _undo(workspace: Workspace, annotations: "Annotations", options: Namespace) -> None:
    change = options.change
    undone = annotations.undo() if change is None else annotations.undo_change(change)
    if undone is None:
        raise UserError("there is no change of yours to undo")
    _say(options, _json(undone), undone.message)


def _redo(workspace: Workspace, annotations: "Annotations", options: Namespace) -> None:
    redone = annotations.redo()
    if redone is None:
        raise UserError(
            "there is nothing to redo",
            hint="an undo can be redone until you change something else; "
            "mi-crow concepts history lists all changes",
        )
    _say(options, _json(redone), redone.message)


def _history(workspace: Workspace, annotations: "Annotations", options: Namespace) -> None:
    if options.sae is not None:
        workspace.sae_dir(options.sae)
    changes = annotations.past_changes(options.limit, options.sae)
    if options.json:
        print_json([_json(change) for change in changes])
    elif not changes:
        print_line("no changes yet")
    else:
        columns = [
            Column("ID", right=True),
            Column("when"),
            Column("who", shorten=True),
            Column("SAE", shorten=True),
            Column("change", shorten=True),
            Column("state"),
        ]
        print_table(
            columns,
            [
                [
                    str(one.id),
                    strftime("%Y-%m-%d %H:%M", localtime(one.t)),
                    one.actor,
                    one.sae_id,
                    one.what,
                    "undone" if one.undone else "",
                ]
                for one in changes
            ],
        )


def _check_suffix(path: Path) -> None:
    if path.suffix not in (".json", ".csv"):
        raise UserError(f"{str(path)!r} is neither .json nor .csv", hint="choose by the suffix")


def _json(item: Any) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(item)


def _say(options: Namespace, value: dict[str, Any], sentence: str) -> None:
    if options.json:
        print_json(value)
    else:
        print_line(sentence)
