"""The stored layers that an SAE over several layers reads, of one run or of two models' runs."""

from collections.abc import Sequence

from mi_crow.errors import UserError
from mi_crow.mechanistic.sae.cross_layer.record import BASE, TUNED
from mi_crow.mechanistic.sae.cross_layer.sae import CrossLayerSae
from mi_crow.mechanistic.sae.cross_layer.two_models import TwoModelCrosscoder
from mi_crow.mechanistic.sae.cross_layer.two_runs import check_same_tokens
from mi_crow.mechanistic.sae.stored_layers import stored_layer
from mi_crow.store.runs.manifest import RunManifest
from mi_crow.store.runs.reader import RunReader
from mi_crow.store.workspace import Workspace


def layers_read(
    workspace: Workspace,
    sae: CrossLayerSae,
    sae_id: str,
    run_id: str,
    tuned_run: str | None = None,
    points: Sequence[str] = (),
) -> list[RunReader]:
    """A reader for each input of the SAE, in order, and for `points` of the run after them.

    `run_id` is the run, of two models that of the base model; `tuned_run` that of the tuned one
    (None: the one it was trained on). Raises UserError where two runs hold other tokens, or a
    second run was given for an SAE of one model; NotFoundError for a layer that a run lacks.
    """
    run_dir = workspace.run_dir(run_id)
    base = RunManifest.load(run_dir)
    if not isinstance(sae, TwoModelCrosscoder):
        if tuned_run is not None:
            raise UserError(
                f"SAE {sae_id!r} reads one model", hint="leave out --tuned-run: --run is enough"
            )
        names = [stored_layer(base, name).name for name in (*sae.layers, *points)]
        return [RunReader(run_dir, name) for name in names]
    known = tuned_run or sae.models[TUNED].run_id
    if known is None:
        raise UserError(
            f"SAE {sae_id!r} does not say which run of the tuned model it belongs to",
            hint="name it with --tuned-run",
        )
    tuned_dir = workspace.run_dir(known)
    tuned = RunManifest.load(tuned_dir)
    for role, manifest in ((BASE, base), (TUNED, tuned)):
        _check_role(sae, sae_id, role, manifest)
    check_same_tokens([run_dir, tuned_dir], base, tuned)
    return [
        RunReader(folder, stored_layer(manifest, name).name)
        for role, folder, manifest in ((BASE, run_dir, base), (TUNED, tuned_dir, tuned))
        for name in sae.points_of(role).values()
    ]


def _check_role(sae: TwoModelCrosscoder, sae_id: str, role: str, manifest: RunManifest) -> None:
    """Raises UserError for a run of the other model; a model may have further names."""
    other = TUNED if role == BASE else BASE
    if manifest.model_id == sae.models[other].name != sae.models[role].name:
        raise UserError(
            f"run {manifest.run_id!r} is of the {other} model of SAE {sae_id!r}, not of the {role} "
            "one",
            hint="give the run of the base model with --run, that of the tuned one with "
            "--tuned-run",
        )
