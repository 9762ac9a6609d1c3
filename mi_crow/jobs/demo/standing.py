"""What there is of the demo already: its run and SAE have fixed names. Torch-free."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from mi_crow.errors import UserError
from mi_crow.jobs.demo.run import LAYER, RUN_ID, SAE_ID
from mi_crow.jobs.status import JobState, list_jobs
from mi_crow.store.runs.manifest import RunManifest
from mi_crow.store.workspace import RunSummary, SaeSummary, Workspace


@dataclass(frozen=True)
class Standing:
    """Whether the demo can be started, and what stands in its way."""

    state: Literal["absent", "active", "stopped", "there", "taken"]
    job: str = ""  # the one that is active, or was stopped


def standing(
    runs: Iterable[RunSummary], saes: Iterable[SaeSummary], jobs: Iterable[JobState]
) -> Standing:
    """The standing of the demo in a workspace that holds these.

    `stopped`: a job has begun it and can be resumed. `taken`: its run's name belongs to another
    run. What an earlier demo left without a job is `absent`: a new one goes on from there.
    """
    demos = [job for job in jobs if job.kind == "demo"]
    active = next((job for job in demos if job.active), None)
    if active is not None:
        return Standing("active", active.job_id)
    there = any(sae.sae_id == SAE_ID for sae in saes)
    named = next((run.manifest for run in runs if run.run_id == RUN_ID), None)
    if demos and demos[-1].resumable and (there or named is not None):
        return Standing("stopped", demos[-1].job_id)
    if there:
        return Standing("there")
    return Standing("taken" if named is not None and not _is_ours(named) else "absent")


def _is_ours(manifest: RunManifest) -> bool:
    of_the_sample = manifest.model_id == manifest.dataset.get("source") == "sample"
    return of_the_sample and any(layer.point == LAYER for layer in manifest.layers)


def check_demo(workspace: Workspace, _: object) -> None:
    """Raises UserError for a demo that would not start from the beginning."""
    found = standing(workspace.list_runs(), workspace.list_saes(), list_jobs(workspace))
    if found.state == "active":
        raise UserError(
            f"the demo is running already, as job {found.job}",
            hint=f"follow it: mi-crow jobs watch {found.job}",
        )
    if found.state == "stopped":
        raise UserError(
            f"job {found.job} started the demo and did not finish it",
            hint=f"resume it: mi-crow jobs resume {found.job}",
        )
    if found.state == "there":
        raise UserError(
            f"the demo is in this workspace already, as SAE {SAE_ID!r}",
            hint=f"remove {SAE_ID!r} to run it again, or rename it to keep it",
        )
    if found.state == "taken":
        raise UserError(
            f"{RUN_ID!r}, which the demo calls its run, is the name of another run",
            hint=f"rename that one: mi-crow runs rename {RUN_ID} NAME",
        )
