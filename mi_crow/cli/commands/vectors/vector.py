"""`mi-crow vector`: directions made, listed, shown, taken apart, refined, exchanged."""

from argparse import ArgumentParser, Namespace
from functools import partial
from pathlib import Path
from typing import Any

from mi_crow.cli.arguments import (
    CommandAction,
    add_actions,
    add_device,
    add_fields,
    add_job_flags,
    add_sae,
    add_seed,
    add_setting,
    add_switch,
    check_new_file,
    device_of,
    open_workspace,
    pick_sae,
    positive,
)
from mi_crow.cli.commands.vectors import showing
from mi_crow.cli.display import shown_progress
from mi_crow.cli.formatting import print_json
from mi_crow.cli.running import run_job
from mi_crow.cli.tables import print_outcome
from mi_crow.cli.text_flags import add_bos
from mi_crow.errors import UserError
from mi_crow.mechanistic.vectors import stored
from mi_crow.mechanistic.vectors.config import MakeConfig
from mi_crow.mechanistic.vectors.job import summary_json
from mi_crow.mechanistic.vectors.noting import note_vector
from mi_crow.paths import expanded
from mi_crow.same_fields import same_fields
from mi_crow.store.workspace import Workspace


def add_arguments(parser: ArgumentParser, command: str) -> None:
    for name, action in add_actions(parser, _ACTIONS):
        if name != "list":
            action.add_argument("name", help="of the vector")
        if (flags := _ACTIONS[name].flags) is not None:
            flags(action)


def _options_of_make(parser: ArgumentParser) -> None:
    parser.add_argument("--run", help="run whose labels, documents and model are meant")
    parser.add_argument("--model", help="Hugging Face id, folder, .gguf file or `sample`")
    parser.add_argument("--revision", help="branch, tag or commit of a Hub model")
    parser.add_argument(
        "--layer", action="append", default=[], help="hook point; repeatable, e.g. resid_post.2"
    )
    _add_texts(parser)
    add_fields(
        parser,
        MakeConfig,
        {
            "method": "difference of means (the default), principal component, logistic probe, or "
            "ReFT-r1, which is trained",
            "pool": "of the tokens of a text: their mean (the default), or the last one",
            "limit": "most texts of each side",
            "steps": "training steps of reft-r1",
        },
    )
    add_seed(parser)
    add_device(parser)
    add_bos(parser)
    _add_force(parser)
    add_job_flags(parser)


def _add_texts(parser: ArgumentParser) -> None:
    what = "label:NAME or documents:3,7-12 of the run, a file of texts, or a text; repeatable"
    parser.add_argument(
        "--for", dest="texts_for", action="append", default=[], metavar="TEXTS", help=what
    )
    parser.add_argument(
        "--against",
        action="append",
        default=[],
        metavar="TEXTS",
        help="the same for what it is not (default: the run's other documents)",
    )


def _options_of_features(parser: ArgumentParser) -> None:
    parser.add_argument("features", metavar="FEATURES", help="42, or with weights 3+0.5*7-12")
    add_sae(parser)
    _add_force(parser)


def _options_of_show(parser: ArgumentParser) -> None:
    parser.add_argument("--sae", help="as features of this SAE")
    parser.add_argument("--layer", help="of a vector for several layers")
    add_setting(parser, "--top", 10, "features", type=positive)


def _options_of_texts(parser: ArgumentParser) -> None:
    parser.add_argument("--run", required=True, help="whose texts are ranked")
    parser.add_argument("--layer", help="of a vector for several layers")
    add_setting(parser, "--top", 20, "texts", type=positive)


def _options_of_refine(parser: ArgumentParser) -> None:
    add_sae(parser)
    add_setting(parser, "--keep", 10, "features to keep", type=positive, metavar="K")
    parser.add_argument(
        "--as", dest="new_name", metavar="NEW", help="name of the new vector (default: NAME-K)"
    )
    parser.add_argument("--run", help="run whose labels are meant (default: the vector's)")
    _add_texts(parser)
    add_device(parser)
    _add_force(parser)


def _options_of_import(parser: ArgumentParser) -> None:
    parser.add_argument("path", type=Path, help="a .safetensors or .gguf file")
    parser.add_argument("--layer", help="hook point of a single direction, e.g. resid_post.12")
    parser.add_argument("--model", help="the model that it is for")
    _add_force(parser)


def _options_of_export(parser: ArgumentParser) -> None:
    parser.add_argument("path", type=Path, help="a new .safetensors or .gguf file")
    _add_force(parser)


def _options_of_rename(parser: ArgumentParser) -> None:
    parser.add_argument("new_name", metavar="NEW", help="its new name")


def _options_of_note(parser: ArgumentParser) -> None:
    parser.add_argument("text", help="the note; an empty one removes it")


def _add_force(parser: ArgumentParser) -> None:
    add_switch(parser, "--force", "replace what exists")


def run(options: Namespace) -> int:
    return _ACTIONS[options.action or "list"].run(open_workspace(options), options) or 0


def _list(workspace: Workspace, options: Namespace) -> None:
    showing.print_vectors(stored.list_vectors(workspace), as_json=options.json)


def _make(workspace: Workspace, options: Namespace) -> int:
    config = same_fields(
        MakeConfig,
        options,
        layers=tuple(options.layer),
        texts_for=tuple(options.texts_for),
        against=tuple(options.against),
        run_id=options.run,
        replace=options.force,
        device=device_of(options),
    )

    def show(result: dict[str, Any]) -> None:
        showing.print_summary(stored.read_summary(stored.vector_path(workspace, result["name"])))

    return run_job(workspace, "vector", config, options, show)


def _from_feature(workspace: Workspace, options: Namespace) -> None:
    _check_name(workspace, options.name, options)
    from mi_crow.mechanistic.steering.targets import parse_target
    from mi_crow.mechanistic.vectors.from_sae import vector_of_features

    target = parse_target(options.features)
    if target.kind not in ("feature", "group"):
        raise UserError(f"{options.features!r} is not features", hint="write 42 or 3+0.5*7")
    sae_id = pick_sae(workspace, target.sae or options.sae)
    _save(workspace, vector_of_features(workspace, options.name, sae_id, target.features), options)


def _show(workspace: Workspace, options: Namespace) -> None:
    summary = stored.read_summary(stored.vector_path(workspace, options.name))
    value: dict[str, Any] = summary_json(summary)
    if options.sae is None:
        if options.json:
            print_json(value)
        else:
            showing.print_summary(summary)
        return
    from mi_crow.mechanistic.steering.run import concept_names
    from mi_crow.mechanistic.vectors.from_sae import decomposed

    vector = stored.load_vector(workspace, options.name)
    sae_id = pick_sae(workspace, options.sae)
    found = decomposed(workspace, vector, sae_id, options.layer, options.top)
    names = concept_names(workspace, sae_id)
    for one in (*found["nearest"], *found["pursuit"]):
        one["concept"] = names.get(one["feature"])
    if options.json:
        print_json({**value, **found})
    else:
        showing.print_summary(summary)
        showing.print_features(found)


def _texts(workspace: Workspace, options: Namespace) -> None:
    from mi_crow.mechanistic.vectors.top_texts import top_texts

    vector = stored.load_vector(workspace, options.name)
    with shown_progress(quiet=True) as progress:
        report = partial(progress.update, unit="token")
        found = top_texts(workspace, vector, options.run, options.layer, options.top, report)
    showing.print_texts(found, as_json=options.json)


def _refine(workspace: Workspace, options: Namespace) -> None:
    name = options.new_name or f"{options.name}-{options.keep}"
    _check_name(workspace, name, options)
    from mi_crow.mechanistic.vectors.from_sae import refine_vector

    vector = stored.load_vector(workspace, options.name)
    new = refine_vector(
        workspace,
        vector,
        name,
        pick_sae(workspace, options.sae),
        options.keep,
        texts_for=tuple(options.texts_for),
        against=tuple(options.against),
        run_id=options.run,
        device=device_of(options),
    )
    _save(workspace, new, options)


def _import(workspace: Workspace, options: Namespace) -> None:
    _check_name(workspace, options.name, options)
    from mi_crow.mechanistic.vectors.exchange import import_vector

    vector = import_vector(expanded(options.path), options.name, options.layer, options.model)
    _save(workspace, vector, options)


def _export(workspace: Workspace, options: Namespace) -> None:
    from mi_crow.mechanistic.vectors.exchange import export_vector

    path = expanded(options.path)
    check_new_file(path, force=options.force)
    export_vector(stored.load_vector(workspace, options.name), path)
    result = {"vector": options.name, "path": str(path)}
    print_outcome(options.json, result, f"exported vector {options.name!r} to {str(path)!r}")


def _rename(workspace: Workspace, options: Namespace) -> None:
    stored.rename_vector(workspace, options.name, options.new_name)
    result = {"vector": options.new_name, "was": options.name}
    said = f"vector {options.name!r} is called {options.new_name!r} now"
    print_outcome(options.json, result, said)


def _note(workspace: Workspace, options: Namespace) -> None:
    note_vector(workspace, options.name, options.text)
    said = f"{'wrote' if options.text.strip() else 'removed'} the note on vector {options.name!r}"
    print_outcome(options.json, {"vector": options.name, "note": options.text.strip()}, said)


def _remove(workspace: Workspace, options: Namespace) -> None:
    stored.remove_vector(workspace, options.name)
    print_outcome(options.json, {"removed": options.name}, f"deleted vector {options.name!r}")


def _check_name(workspace: Workspace, name: str, options: Namespace) -> None:
    """Raises UserError for a name that is not valid or taken, before the work begins."""
    stored.new_path(workspace, name, replace=options.force)


def _save(workspace: Workspace, vector: stored.SteeringVector, options: Namespace) -> None:
    path = stored.save_vector(workspace, vector, replace=options.force)
    summary = stored.read_summary(path)
    if options.json:
        print_json(summary_json(summary))
    else:
        showing.print_summary(summary)


_ACTIONS = {
    "list": CommandAction("list the vectors (default)", _list),
    "make": CommandAction("make a vector from two sets of texts", _make, _options_of_make),
    "from-feature": CommandAction(
        "make a vector of an SAE's features", _from_feature, _options_of_features
    ),
    "show": CommandAction("show a vector; with --sae as features", _show, _options_of_show),
    "texts": CommandAction(
        "show the texts of a run that are most along a vector", _texts, _options_of_texts
    ),
    "refine": CommandAction(
        "keep only the features that tell a vector's texts apart best", _refine, _options_of_refine
    ),
    "import": CommandAction(
        "import a .safetensors file or a GGUF control vector", _import, _options_of_import
    ),
    "export": CommandAction(
        "export a vector as .safetensors or as a GGUF control vector", _export, _options_of_export
    ),
    "rename": CommandAction("give a vector another name", _rename, _options_of_rename),
    "note": CommandAction("write a note on a vector", _note, _options_of_note),
    "rm": CommandAction("delete a vector", _remove),
}
