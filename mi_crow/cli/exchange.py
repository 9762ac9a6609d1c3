"""`mi-crow import` and `mi-crow export`: SAEs in and out, in the SAELens layout."""

import shutil
from argparse import ArgumentParser, Namespace
from pathlib import Path

from mi_crow.cli.arguments import open_workspace, pick_sae, plan_workspace
from mi_crow.cli.tables import print_facts, print_line
from mi_crow.cli.text import print_json
from mi_crow.errors import NotFoundError, UserError
from mi_crow.store.atomic import whole_folder
from mi_crow.store.ids import timestamp_id, validate_id
from mi_crow.store.workspace import read_sae_summary

_FILES = ("cfg.json", "sae_weights.safetensors")
_DEEPEST = 3  # folders above the files: Gemma Scope's layer, width and average_l0


def add_arguments(parser: ArgumentParser, command: str) -> None:
    if command == "import":
        parser.add_argument("path", type=Path, help="the SAE's folder (SAELens layout)")
        parser.add_argument("--name", help="its id here (the folder's name)")
        return
    parser.add_argument("--sae", help="the SAE; may be left out if there is one")
    parser.add_argument("path", type=Path, help="a new folder")


def run(options: Namespace) -> int:
    return _import(options) if options.command == "import" else _export(options)


def _import(options: Namespace) -> int:
    source: Path = options.path.expanduser()
    _check_format(source)
    workspace = plan_workspace(options)
    name = options.name or _id_from(source)
    target = workspace.saes_dir / validate_id(name, "SAE")
    if target.exists():
        raise UserError(f"SAE {name!r} exists already", hint="choose another --name")
    from mi_crow.mechanistic.sae import load_sae

    sae = load_sae(source)  # read whole before anything is written
    workspace.ensure()
    with whole_folder(target) as folder:
        sae.save(folder)
    summary = read_sae_summary(target)
    facts = {
        "sae_id": summary.sae_id,
        "architecture": summary.architecture,
        "n_inputs": summary.n_inputs,
        "n_latents": summary.n_latents,
        "model_id": summary.model_id,
        "layer": summary.layer,
    }
    if options.json:
        print_json(facts)
    else:
        print_facts({key: str(value) for key, value in facts.items()})
    return 0


def _export(options: Namespace) -> int:
    workspace = open_workspace(options)
    sae_id = pick_sae(workspace, options.sae)
    source = workspace.sae_dir(sae_id)
    target: Path = options.path.expanduser().absolute()
    if target.exists():
        raise UserError(f"{str(options.path)!r} exists already", hint="give a new folder")
    try:
        with whole_folder(target) as folder:
            for file in _FILES:
                shutil.copyfile(source / file, folder / file)
    except OSError as error:
        raise UserError(f"{str(options.path)!r} cannot be written ({error.strerror})") from error
    if options.json:
        print_json({"sae_id": sae_id, "path": str(target)})
    else:
        print_line(f"wrote {sae_id} to {target}")
    return 0


def _id_from(source: Path) -> str:
    name = source.resolve().name
    try:
        return validate_id(name, "SAE")
    except UserError:
        return timestamp_id(name)


def _check_format(source: Path) -> None:
    """Raises UserError, naming the format, for anything but the SAELens layout."""
    if not source.exists():
        raise NotFoundError(f"{str(source)!r} not found", hint="give an SAE's folder")
    found = foreign_format(source)
    if found is not None:
        raise UserError(
            f"{str(source)!r} is in the {found} format, which cannot be imported",
            hint=f"give a folder in the SAELens layout ({' and '.join(_FILES)})",
        )
    missing = [file for file in _FILES if not (source / file).is_file()]
    if missing:
        raise UserError(
            f"{str(source)!r} holds no {' and no '.join(missing)}",
            hint="give a folder in the SAELens layout",
        )


def foreign_format(source: Path) -> str | None:
    """The name of a known format other than ours, by the files it consists of; None otherwise."""
    if (source / _FILES[1]).is_file():
        return None
    marks = {
        "sparsify": "sae.safetensors",
        "Gemma Scope": "params.npz",
        "Llama Scope": "hyperparams.json",
        "dictionary_learning": "ae.pt",
    }
    if source.is_file():
        by_name = {mark: format for format, mark in marks.items()}
        plain = {".pt": "PyTorch", ".npz": "NumPy", ".safetensors": "bare safetensors"}
        return by_name.get(source.name) or plain.get(source.suffix, f"{source.suffix or 'unknown'}")
    for name, mark in marks.items():
        if any(any(source.glob(f"{'*/' * depth}{mark}")) for depth in range(_DEEPEST + 1)):
            return name
    return None
