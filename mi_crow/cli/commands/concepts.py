"""`mi-crow concepts`: the names that people give to features."""

import sys
from argparse import ArgumentParser, Namespace
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mi_crow.bounds import SHARE
from mi_crow.cli.arguments import (
    CommandAction,
    add_actions,
    add_sae,
    add_setting,
    add_switch,
    check_new_file,
    feature_number,
    number_within,
    open_workspace,
    pick_sae,
    positive,
    tag_name,
)
from mi_crow.cli.commands.meaning import looking
from mi_crow.cli.commands.meaning.dictionary import add_import_flags, run_import
from mi_crow.cli.formatting import moment, number
from mi_crow.cli.tables import print_list, print_outcome
from mi_crow.errors import NotFoundError, UserError
from mi_crow.mechanistic.concepts.edits import remove_concepts, say
from mi_crow.mechanistic.concepts.exchange.dictionary_rows import SUFFIXES
from mi_crow.mechanistic.concepts.exchange.neuronpedia import is_explanations
from mi_crow.mechanistic.concepts.naming_line import NamingLine, parse_naming
from mi_crow.mechanistic.sae.fitting import check_has_feature
from mi_crow.store.workspace import Workspace, read_sae_summary
from mi_crow.visible import quoted

if TYPE_CHECKING:
    from mi_crow.mechanistic.concepts.annotations import Annotations


def add_arguments(parser: ArgumentParser, command: str) -> None:
    for name, action in add_actions(parser, _ACTIONS):
        if name in looking.ACTIONS:
            looking.add_flags(name, action)
        if name in ("list", "history"):
            action.add_argument("--sae", help="only this SAE")
        if name == "history":
            action.add_argument("--feature", type=feature_number, help="only this feature of --sae")
            add_setting(action, "--limit", 20, "number of changes", type=positive)
        if name == "undo":
            action.add_argument(
                "change", nargs="?", type=positive, metavar="ID", help="id in the history"
            )
        if name in ("set", "remove"):
            add_sae(action)
            action.add_argument("feature", type=feature_number, help="feature index")
        if name == "set":
            action.add_argument("name", help="its name, or a line: name #tag ~0.8 -- note")
            add_switch(action, "--literal", "the name as it is, also what looks like a tag in it")
            action.add_argument(
                "--confidence",
                type=number_within(SHARE),
                help="0 to 1 (a new name: 1.0)",
            )
            action.add_argument("--note", help="a note on it")
            action.add_argument("--tag", action="append", default=[], help="repeatable")
            add_switch(
                action,
                "--replace",
                "what is not given goes (else it stays)",
            )
        if name == "remove":
            action.add_argument("name", nargs="?", help="name to remove (default: all)")
        if name == "tag":
            add_sae(action)
            action.add_argument("query", help="query as of mi-crow features: 'label:weather'")
            action.add_argument("line", help="name #tag ~0.8 -- note, or only #tag")
        if name in ("import", "export"):
            action.add_argument("path", type=Path, help=f"a file: {', '.join(SUFFIXES)}")
        if name == "import":
            add_import_flags(action)
        if name == "export":
            action.add_argument("--sae", help="only this SAE")
            action.add_argument("--tag", type=tag_name, help="only concepts with this tag")
            action.add_argument("--model-id", metavar="ID", help="for .jsonl, such as gpt2-small")
            action.add_argument("--source-id", metavar="ID", help="for .jsonl, such as 10-res-jb")
            add_switch(action, "--force", "replace an existing file")


def run(options: Namespace) -> int:
    from mi_crow.mechanistic.concepts.annotations import Annotations

    workspace = open_workspace(options)
    annotations = Annotations(workspace.annotations_path)
    action = _ACTIONS[options.action or "list"].run
    action(workspace, annotations, options)
    return 0


def _list(workspace: Workspace, annotations: "Annotations", options: Namespace) -> None:
    from mi_crow.mechanistic.concepts.exchange.layers import layers_of

    sae_id = getattr(options, "sae", None)
    if sae_id is not None:
        workspace.sae_dir(sae_id)
    concepts = annotations.concepts(sae_id)
    if (reason := annotations.read_only()) is not None:
        print(f"note: tagging is off, {reason}", file=sys.stderr)
    features = dict.fromkeys(one.feature for one in concepts)
    layers = {} if sae_id is None else layers_of(workspace, sae_id, features)
    own = ["layer"] if layers else []
    columns = ["SAE…", ">feature", *own, "concept…", "tags…", ">confidence", "note…"]
    rows = (
        [
            c.sae_id,
            str(c.feature),
            *([layers.get(c.feature, "-")] if layers else []),
            c.name,
            " ".join(f"#{tag}" for tag in c.tags),
            number(c.confidence, 2),
            c.note,
        ]
        for c in concepts
    )
    values = [asdict(one) for one in concepts]
    if layers:
        values = [{**one, "layer": layers.get(one["feature"])} for one in values]
    print_list(options.json, values, columns, rows, "no concepts yet")


def _set(workspace: Workspace, annotations: "Annotations", options: Namespace) -> None:
    sae_id = pick_sae(workspace, options.sae)
    sae = read_sae_summary(workspace.sae_dir(sae_id))
    check_has_feature(options.feature, sae_id, sae.n_latents)
    from mi_crow.mechanistic.concepts.conflicts import same_name

    said = NamingLine(options.name) if options.literal else parse_naming(options.name)
    names = [one.name for one in annotations.concepts(sae_id, options.feature)]
    if not said.name and options.name.strip() and len(names) == 1:
        said = replace(said, name=names[0])  # `#wet` alone says more about the name that there is
    confidence = said.confidence if options.confidence is None else options.confidence
    note = said.note if options.note is None else options.note
    tags = (*said.tags, *options.tag)
    place = sae_id, options.feature, said.name
    if options.replace:
        annotations.set_concept(*place, 1.0 if confidence is None else confidence, note or "", tags)
    else:
        say(annotations, *place, confidence=confidence, note=note, tags=tags)
    folder = workspace.sae_dir(sae_id)
    others = None if said.name in names else same_name(annotations, folder, *place)
    value = {"sae_id": sae_id, "feature": options.feature, "name": said.name}
    value["same_name"] = list(others.features) if others is not None else []
    is_now = "is" if said.name in names else "is also" if names else "is now"
    sentence = f"feature {options.feature} of {sae_id} {is_now} {quoted(said.name)}"
    print_outcome(
        options.json, value, sentence if others is None else f"{sentence}; {others.words}"
    )


def _remove(workspace: Workspace, annotations: "Annotations", options: Namespace) -> None:
    sae_id = pick_sae(workspace, options.sae)
    said = annotations.concepts(sae_id, options.feature)
    names = [one.name for one in said]
    chosen = names if options.name is None else [n for n in names if n == options.name]
    if not chosen:
        known = (
            f"it is named {', '.join(map(quoted, names))}"
            if names
            else "mi-crow concepts lists them all"
        )
        wanted = quoted(str(options.name)) if names else "a name"
        raise NotFoundError(f"feature {options.feature} does not have {wanted}", hint=known)
    remove_concepts(annotations, [one for one in said if one.name in chosen])
    value = {"sae_id": sae_id, "feature": options.feature, "removed": chosen}
    sentence = f"removed {', '.join(map(quoted, chosen))} from feature {options.feature}"
    print_outcome(options.json, value, sentence)


def _tag(workspace: Workspace, annotations: "Annotations", options: Namespace) -> None:
    from mi_crow.cli.commands.features import open_store
    from mi_crow.mechanistic.concepts.marked import name_all, tag_all
    from mi_crow.mechanistic.concepts.naming_line import NamingLine, parse_naming
    from mi_crow.mechanistic.features.query_language import parse_query
    from mi_crow.mechanistic.features.records import proposed_names

    if not options.query.strip():
        raise UserError(
            "an empty query would name every feature", hint="'fires>0' finds all that ever fire"
        )
    sae_id = pick_sae(workspace, options.sae)
    store = open_store(workspace, sae_id)
    features = store.find(parse_query(options.query)).tolist()
    if not features:
        raise NotFoundError(f"no feature of {sae_id} matches {quoted(options.query)}")
    line = parse_naming(options.line)
    if line.tags and line == NamingLine("", line.tags, None, None, line.beside):
        proposed = proposed_names(store.rows(features, ["score"]))
        said = tag_all(annotations, sae_id, features, line.tags, (), proposed)
    else:
        said = name_all(annotations, sae_id, features, options.line)
    value = {"sae_id": sae_id, "features": len(features), "line": options.line}
    print_outcome(options.json, value, said.replace("; u undoes", ""))


def _export(workspace: Workspace, annotations: "Annotations", options: Namespace) -> None:
    path: Path = options.path
    check_suffix(path)
    check_new_file(path, force=options.force)
    tag = options.tag
    if tag is not None and not any(tag in one.tags for one in annotations.concepts(options.sae)):
        raise NotFoundError(f"no concept has the tag {quoted(tag)}")
    from mi_crow.mechanistic.concepts.exchange.dashboards import export_concepts
    from mi_crow.mechanistic.concepts.exchange.importing import counted

    if options.sae is not None:
        workspace.sae_dir(options.sae)
    sae_id = pick_sae(workspace, options.sae) if is_explanations(path) else options.sae
    concepts = export_concepts(
        workspace,
        annotations,
        path,
        sae_id,
        overwrite=True,
        model_id=options.model_id,
        source_id=options.source_id,
        wanted=None if tag is None else lambda one: tag in one.tags,
    )
    value = {"concepts": concepts, "path": str(path)}
    print_outcome(options.json, value, f"wrote {counted(concepts)} to {path}")


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
    sae_id = options.sae
    if options.feature is not None:
        sae_id = pick_sae(workspace, sae_id)
    changes = annotations.past_changes(options.limit, sae_id, options.feature)
    columns = [">ID", "when", "who…", "SAE…", "change…", "state"]
    rows = (
        [str(c.id), moment(c.t), c.actor, c.sae_id, c.what, "undone" if c.undone else ""]
        for c in changes
    )
    print_list(options.json, [asdict(one) for one in changes], columns, rows, "no changes yet")


def check_suffix(path: Path) -> None:
    """Raises UserError for a name that does not say what is in the file."""
    if not path.name.lower().endswith(SUFFIXES):
        raise UserError(
            f"{str(path)!r} is neither .json nor .csv", hint=f"use one of {', '.join(SUFFIXES)}"
        )


_ACTIONS = {
    "list": CommandAction("list the concepts (default)", _list),
    "set": CommandAction("name a feature", _set),
    "tag": CommandAction("name all features that a query finds", _tag),
    "remove": CommandAction("remove one or all names of a feature", _remove),
    "import": CommandAction("read concepts from .json, .csv or Neuronpedia's .jsonl", run_import),
    "export": CommandAction("write all concepts to .json, .csv or Neuronpedia's .jsonl", _export),
    **looking.ACTIONS,
    "history": CommandAction("list the latest changes, with author and time", _history),
    "undo": CommandAction("undo your latest change, or the one with this id", _undo),
    "redo": CommandAction("redo what you undid last", _redo),
}
