"""`mi-crow inspections`: what was found out about texts and saved; and the flag that saves it."""

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mi_crow.cli.arguments import add_actions, open_workspace
from mi_crow.cli.formatting import moment, print_json
from mi_crow.cli.tables import print_line, print_list, print_outcome
from mi_crow.errors import UserError
from mi_crow.progress import counted
from mi_crow.store.workspace import Workspace

if TYPE_CHECKING:
    from mi_crow.mechanistic.concepts.annotations import Annotations
    from mi_crow.mechanistic.concepts.annotations_inspections import InspectionKind

# Arguments that are kept elsewhere, or change nothing about what is found. All others are saved.
_NO_SETTINGS = frozenset(
    (
        *("command", "workspace", "json", "debug", "fresh", "save", "tag", "left_out"),
        *("text", "clean", "sae", "model", "device", "offline", "trust_remote_code"),
    )
)


def add_arguments(parser: ArgumentParser, command: str) -> None:
    for name, action in add_actions(
        parser,
        {
            "list": "list the saved inspections (default)",
            "show": "show a saved inspection",
            "rename": "give a saved inspection another name",
            "rm": "delete a saved inspection",
            "export": "write saved inspections to a .json or .md file",
        },
    ):
        if name == "export":
            action.add_argument("file", type=Path, help="a .json or .md file")
            action.add_argument("name", nargs="*", help="which (default: all)")
            action.add_argument("--force", action="store_true", help="replace the file")
        elif name != "list":
            action.add_argument("name")
        if name == "rename":
            action.add_argument("new_name", metavar="NEW-NAME")


def run(options: Namespace) -> int:
    from mi_crow.mechanistic.concepts.annotations import Annotations

    annotations = Annotations(open_workspace(options).annotations_path)
    if options.action in (None, "list"):
        _list(annotations, options)
    elif options.action == "show":
        _show(annotations, options)
    elif options.action == "rename":
        new = annotations.rename_inspection(options.name, options.new_name)
        print_outcome(options.json, {"renamed": new}, f"renamed to {new!r}")
    elif options.action == "rm":
        annotations.delete_inspection(options.name)
        print_outcome(options.json, {"removed": options.name}, f"deleted {options.name!r}")
    else:
        _export(annotations, options)
    return 0


def _list(annotations: "Annotations", options: Namespace) -> None:
    found = annotations.inspections()
    columns = ["inspection…", "kind", "saved", "SAE…", "text…"]
    rows = (
        [one.name, one.kind, moment(one.created), ", ".join(one.sae_ids), one.text] for one in found
    )
    empty = "no saved inspections yet; inspect, attribute, lens and patch save with --save NAME"
    print_list(options.json, [asdict(one) for one in found], columns, rows, empty)


def _show(annotations: "Annotations", options: Namespace) -> None:
    from mi_crow.mechanistic.concepts.inspection_files import as_markdown

    one = annotations.inspection(options.name)
    if options.json:
        print_json(asdict(one))
        return
    for line in as_markdown(one).splitlines():
        print_line(line)


def _export(annotations: "Annotations", options: Namespace) -> None:
    from mi_crow.mechanistic.concepts.inspection_files import write_inspections

    names = options.name or [one.name for one in annotations.inspections()]
    if not names:
        raise UserError("there are no saved inspections", hint="--save NAME saves one")
    if options.file.exists() and not options.force:
        raise UserError(f"{str(options.file)!r} exists", hint="--force replaces it")
    found = [annotations.inspection(name) for name in names]
    path = write_inspections(options.file, found)
    print_outcome(
        options.json,
        {"path": str(path), "inspections": [one.name for one in found]},
        f"wrote {counted(len(found), 'inspection')} to {path}",
    )


def add_save(parser: ArgumentParser) -> None:
    """--save, for a command that finds something out about a text."""
    parser.add_argument(
        "--save", metavar="NAME", help="keep the text, the settings and what was found as NAME"
    )


def check_save(options: Namespace) -> None:
    """Refuses what cannot be saved or tagged, before a model loads. Raises UserError."""
    if options.save is None and getattr(options, "tag", None) is None:
        return
    from mi_crow.mechanistic.concepts.annotations import Annotations

    annotations = Annotations(open_workspace(options).annotations_path)
    annotations.check_writable()
    if options.save is not None:
        annotations.check_new(options.save)


def save(
    options: Namespace,
    kind: "InspectionKind",
    text: str,
    result: Mapping[str, Any],
    sae_ids: Sequence[str] = (),
) -> None:
    """Saves a result that has been printed, if that was asked for, with every flag that had a
    say in it."""
    if options.save is None:
        return
    from mi_crow.mechanistic.concepts.annotations import Annotations

    workspace: Workspace = open_workspace(options)
    name = Annotations(workspace.annotations_path).save_inspection(
        options.save,
        kind,
        text,
        result,
        settings=_settings(options),
        model_id=str(result.get("model_id") or ""),
        sae_ids=sae_ids,
    )
    if not options.json:
        print_line(f"saved as {name!r}", "dim")


def _settings(options: Namespace) -> dict[str, Any]:
    """The flags that were given or have a default, 0 among them; not those that are off."""
    return {
        name: value
        for name, value in vars(options).items()
        if name not in _NO_SETTINGS and value is not None and value is not False and value != []
    }
