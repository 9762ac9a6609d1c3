"""Real jobs handed over by submitit, whose local executor starts what slurm would start."""

import os
import signal
from pathlib import Path

import pytest

from mi_crow.jobs import cancel, follow, job_state, resume, submit
from mi_crow.jobs.distributed import slurm
from mi_crow.jobs.spec import config_as_json
from mi_crow.language_model.capture.job import capture_run
from mi_crow.language_model.config import CaptureConfig, DatasetSpec, ModelSpec
from mi_crow.mechanistic.sae import load_sae
from mi_crow.mechanistic.sae.config import SaeTrainingConfig, TrainConfig
from mi_crow.store.workspace import Workspace
from tests.helpers.process_tree import below

pytestmark = pytest.mark.slow

pytest.importorskip("submitit", reason="the extra `slurm`")

CAPTURE = CaptureConfig(
    ModelSpec("sample", dtype="fp32", device="cpu"),
    DatasetSpec("sample", limit=60),
    ("resid_post.2",),
    dtype="fp32",
)


@pytest.fixture(autouse=True)
def _local_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm, "CLUSTER", "local")


def train(
    workspace: Workspace, steps: int, nproc: int = 1, every: int = 10, minutes: int = 600
) -> str:
    settings = SaeTrainingConfig(steps=steps, batch_size=256, checkpoint_every=every)
    config = TrainConfig("run", "resid_post.2", n_latents=64, k=4, training=settings, device="cpu")
    return submit(
        workspace,
        "train",
        config_as_json(config),
        launcher="slurm",
        nproc=nproc,
        slurm={"time": minutes},
    )


@pytest.mark.parametrize("nproc", [1, 2])
def test_a_training_is_started_followed_and_finished(workspace: Workspace, nproc: int) -> None:
    capture_run(workspace, CAPTURE, run_dir=workspace.make_run_dir("run", "run"))
    job = train(workspace, 20, nproc)
    events = [event["event"] for event in follow(workspace, job)]
    state = job_state(workspace, job)
    assert state.status == "finished", state.error
    assert events[-1] == "finished"
    assert state.result is not None
    assert load_sae(workspace.sae_dir(state.result["sae_id"])).n_latents == 64
    assert "held-out FVU" in (workspace.job_dir(job) / "worker.log").read_text()


def test_a_running_training_is_stopped_and_goes_on(workspace: Workspace) -> None:
    capture_run(workspace, CAPTURE, run_dir=workspace.make_run_dir("run", "run"))
    job = train(workspace, 400)
    asked = False
    for event in follow(workspace, job):
        if event["event"] == "checkpoint" and not asked:
            asked = True
            cancel(workspace, job)
    state = job_state(workspace, job)
    assert (state.status, state.resumable) == ("cancelled", True)
    resume(workspace, job)
    last = list(follow(workspace, job))[-1]
    assert last["event"] == "finished"
    assert last["result"]["steps"] == 400
    assert job_state(workspace, job).attempt == 2


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="processes are found in /proc")
@pytest.mark.parametrize(
    ("nproc", "minutes"), [(1, 5), (1, 600), (2, 5)], ids=["time-up", "preempted", "two-ranks"]
)
def test_a_training_whose_time_is_up_saves_what_it_has(
    workspace: Workspace, nproc: int, minutes: int
) -> None:
    capture_run(workspace, CAPTURE, run_dir=workspace.make_run_dir("run", "run"))
    job = train(workspace, 20_000, nproc, every=20_000, minutes=minutes)
    told, saved = False, []
    for event in follow(workspace, job):
        if event["event"] == "progress" and event["done"] > 0 and not told:
            told = True
            for pid in below(int(slurm.slurm_number(workspace.job_dir(job)) or 0)):
                os.kill(pid, signal.SIGUSR2)  # slurm tells every process
        saved += [event["name"]] if event["event"] == "checkpoint" else []
    assert len(saved) == 1
    assert job_state(workspace, job).status == "cancelled"
    assert job_state(workspace, job).resumable


def test_jobs_that_slurm_started_do_not_wait_for_each_other(workspace: Workspace) -> None:
    capture_run(workspace, CAPTURE, run_dir=workspace.make_run_dir("run", "run"))
    first, second = train(workspace, 20_000), train(workspace, 20_000)
    next(event for event in follow(workspace, first) if event["event"] == "started")
    for event in follow(workspace, second):
        if event["event"] == "started":
            break
    assert job_state(workspace, first).status == "running"
