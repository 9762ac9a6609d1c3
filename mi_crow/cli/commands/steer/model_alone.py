"""The SAE that a stack runs with on the command line, or the model where none is needed."""

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mi_crow.cli.arguments import pick_sae
from mi_crow.errors import UserError
from mi_crow.store.workspace import Workspace

if TYPE_CHECKING:
    from mi_crow.language_model.config import ModelSpec
    from mi_crow.mechanistic.steering.interventions import Intervention


def add_model_alone(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        help="steer this model without an SAE of its own, by vectors, layers, neurons and features "
        "written as SAE/42",
    )
    parser.add_argument("--revision", help="branch, tag or commit of a Hub model")


def sae_or_model(
    workspace: Workspace, options: Namespace, stack: "Sequence[Intervention]", device: str
) -> "str | ModelSpec":
    """The SAE of --sae, or the model of --model alone. Without either: the only SAE; where there is
    none or several, and nothing in the stack asks for one, the one model that the workspace is
    about. Raises UserError."""
    from mi_crow.jobs.checks import check_model
    from mi_crow.language_model.config import ModelSpec
    from mi_crow.mechanistic.steering.fits import needs_own_sae

    if options.model is not None:
        if options.sae is not None:
            raise UserError(
                "an SAE and a model were both given", hint="an SAE names its model: leave out one"
            )
        spec = ModelSpec(options.model, revision=options.revision, device=device)
        check_model(spec)
        return spec
    if options.revision is not None:
        raise UserError("--revision is of a --model", hint="name the model too")
    saes = workspace.list_saes()
    if options.sae is not None or len(saes) == 1 or needs_own_sae(stack):
        return pick_sae(workspace, options.sae)
    model, revision = _only_model(workspace, stack)
    return ModelSpec(model, revision=revision, device=device)


def _only_model(workspace: Workspace, stack: "Sequence[Intervention]") -> "tuple[str, str | None]":
    """Model and revision of what the stack names, or else of all runs and SAEs."""
    from mi_crow.mechanistic.vectors.stored import read_summary, vector_path
    from mi_crow.store.workspace import read_sae_summary

    found: dict[str, str | None] = {}
    for one in stack:
        if one.aim.kind == "vector":
            made = read_summary(vector_path(workspace, one.aim.name))
            found.setdefault(made.model_id, str(made.made.get("revision") or "") or None)
        if one.sae is not None:
            found.setdefault(read_sae_summary(workspace.sae_dir(one.sae)).model_id, None)
    found.pop("", None)
    if not found:
        runs = workspace.list_runs()
        found = {run.manifest.model_id: run.manifest.revision for run in runs}
        found |= {sae.model_id: None for sae in workspace.list_saes() if sae.model_id not in found}
    if len(found) == 1:
        return next(iter(found.items()))
    if not found:
        raise UserError("no model given", hint="name one with --model, or an SAE with --sae")
    raise UserError(
        f"the stack could run on {len(found)} models",
        hint=f"choose one with --model: {', '.join(found)}",
    )
