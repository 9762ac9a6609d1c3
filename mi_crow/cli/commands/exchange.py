"""`mi-crow import` and `mi-crow export`: SAEs from and for other tools."""

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import Any

from mi_crow.bounds import SCALE
from mi_crow.cli.arguments import (
    add_device,
    add_setting,
    add_switch,
    bounded_size,
    device_of,
    intermix,
    number_within,
    open_workspace,
    pick_sae,
    plan_workspace,
    positive,
)
from mi_crow.cli.formatting import count, number, print_json, share
from mi_crow.cli.running import start_job
from mi_crow.cli.tables import print_facts, print_line, print_outcome
from mi_crow.cli.text_flags import add_bos
from mi_crow.errors import UserError
from mi_crow.jobs.checks import check_dataset, check_model
from mi_crow.language_model.config import DatasetSpec, ModelSpec
from mi_crow.mechanistic.sae.formats.config import (
    DTYPES,
    CheckConfig,
    ExportConfig,
    ImportConfig,
    path_for_a_job,
)
from mi_crow.mechanistic.sae.formats.marks import EXPORTED
from mi_crow.paths import check_folder_of, expanded
from mi_crow.same_fields import same_fields


def add_arguments(parser: ArgumentParser, command: str) -> None:
    if command == "import":
        _add_import(parser)
        return
    parser.add_argument(
        "sae_first", metavar="SAE", nargs="?", help="SAE id; optional when there is only one"
    )
    parser.add_argument("path", type=Path, metavar="PATH", help="new folder to write")
    parser.add_argument("--sae", metavar="SAE", help="SAE id, as an option")
    parser.add_argument(
        "--format",
        default=EXPORTED[0],
        choices=EXPORTED,
        metavar="FORMAT",
        help=f"{', '.join(EXPORTED[:-1])} or {EXPORTED[-1]} (default: {EXPORTED[0]})",
    )
    parser.add_argument(
        "--also",
        metavar="SAE",
        action="append",
        default=[],
        help="a further transcoder of a set of circuit-tracer, of another layer (repeatable)",
    )
    intermix(parser)
    _add_detach(parser)


def _add_import(parser: ArgumentParser) -> None:
    parser.add_argument(
        "path", help="folder, file or Hub id: org/name, or org/name/folder within the repository"
    )
    parser.add_argument("--name", help="id in the workspace (default: from the folder)")
    parser.add_argument("--layer", help="hook point, when the files have several or do not name it")
    parser.add_argument("--target-layer", metavar="LAYER", help="layer that a transcoder predicts")
    parser.add_argument("--model", help="model, when the file does not name it")
    parser.add_argument("--revision", help="branch, tag or commit of the Hub repository")
    parser.add_argument(
        "--model-revision", metavar="REVISION", help="branch, tag or commit of the model"
    )
    parser.add_argument(
        "--dtype",
        default="auto",
        choices=DTYPES,
        help="dtype of the weights (default: as in the file)",
    )
    parser.add_argument(
        "--scale",
        type=number_within(SCALE),
        help="input scale, when the file does not give it",
    )
    add_switch(
        parser,
        "--centred",
        "the SAE expects centred writing weights (center_writing_weights), which its file "
        "does not say",
    )
    add_bos(parser)
    add_switch(parser, "--names", "take Neuronpedia's explanations as concepts, where it has some")
    add_switch(parser, "--offline", "never use the network")
    group = parser.add_argument_group("check")
    add_switch(group, "--check", "run texts through the model and report the fit")
    add_setting(group, "--dataset", "sample", "texts for the check")
    add_setting(group, "--documents", 64, "number of documents", type=positive)
    group.add_argument(
        "--tokens",
        type=positive,
        help="documents until there are so many tokens, instead of --documents",
    )
    add_setting(group, "--context-length", 128, "tokens per document", type=bounded_size)
    add_device(parser)
    _add_detach(parser)


def _add_detach(parser: ArgumentParser) -> None:
    add_switch(parser, "--detach", "start a job and do not wait for it")


def run(options: Namespace) -> int:
    return _import(options) if options.command == "import" else _export(options)


def _import(options: Namespace) -> int:
    workspace = plan_workspace(options)
    device = device_of(options)
    model = None
    if options.model is not None:
        model = ModelSpec(
            options.model, revision=options.model_revision, device=device, offline=options.offline
        )
        check_model(model)
    dataset = DatasetSpec(options.dataset)
    if options.check:
        check_dataset(dataset)
    check = CheckConfig(dataset, options.documents, options.context_length, options.tokens)
    config = same_fields(
        ImportConfig,
        options,
        model=model,
        input_scale=options.scale,
        check=check if options.check else None,
        device=device,
    )
    if options.detach:
        config = replace(config, path=path_for_a_job(config.path))
        return start_job(workspace, "import", config, options)
    from mi_crow.mechanistic.concepts.exchange.published_names import import_with_names

    result = import_with_names(workspace, config)
    if options.json:
        print_json(result.as_json())
    else:
        show_import(result.as_json(), options.dataset)
    return 0


def show_import(result: Mapping[str, Any], texts: str) -> None:
    """What an import gave, by its JSON, and the command that indexes it over `texts`."""
    facts = {
        "SAE": result["sae_id"],
        "format": result["format"],
        "architecture": f"{result['architecture']}, {count(result['n_latents'])} latents, "
        f"{count(result['n_inputs'])} inputs",
        "layer": result["layer"],
        "model": result["model"] or "unknown",
    }
    if result["folded"]:
        facts["folded"] = ", ".join(word.replace("_", " ") for word in result["folded"])
    if "fvu" in result:
        facts["FVU"] = f"{number(result['fvu'])} (all tokens: {number(result['fvu_all'])})"
        facts |= _by_layer("FVU", result.get("fvu_by_layer") or {})
        facts["L0"] = number(result["l0"])
        facts |= _by_layer("L0", result.get("l0_by_layer") or {})
        facts["tokens"] = f"{count(result['tokens'])}, {share(result['outlier_share'])} outliers"
    if result["names"] is not None:
        facts["names"] = f"{count(result['names'])} from Neuronpedia"
    if result["model"]:
        facts["next"] = f"mi-crow index --sae {result['sae_id']} --dataset {quote(texts)}"
    print_facts(facts)
    for warning in result["warnings"]:
        print_line(f"warning: {warning}", style="yellow")


def _by_layer(what: str, figures: Mapping[str, float]) -> dict[str, str]:
    """A figure of each layer of an SAE over several."""
    if not figures:
        return {}
    return {f"{what} by layer": ", ".join(f"{at} {number(one)}" for at, one in figures.items())}


def show_import_of_a_job(result: Mapping[str, Any], params: Mapping[str, Any]) -> None:
    """The same for a job; the texts are those that it was checked on."""
    dataset = (params.get("check") or {}).get("dataset") or {}
    show_import(result, str(dataset.get("source") or "sample"))


def _export(options: Namespace) -> int:
    workspace = open_workspace(options)
    if options.sae and options.sae_first:
        raise UserError("the SAE is named twice", hint="leave out --sae")
    sae_id = pick_sae(workspace, options.sae or options.sae_first)
    target = expanded(options.path).absolute()
    check_folder_of(target)
    config = ExportConfig(sae_id, str(target), options.format, tuple(options.also))
    if options.detach:
        return start_job(workspace, "export", config, options)
    from mi_crow.mechanistic.sae.formats.exporting import export_from

    value = export_from(workspace, config)
    written = ", ".join((sae_id, *config.also))
    note = f"; {value['note']}" if "note" in value else ""
    print_outcome(options.json, value, f"wrote {written} to {value['folder']}{note}")
    return 0
