"""A job through all that slurm would run: submitit's script, its process on the node, the worker.

The stand-ins for slurm's commands start the script here; a job's number is its process's.
"""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from mi_crow.jobs import cancel, follow, job_state, list_jobs, resume, submit
from mi_crow.jobs.distributed import slurm
from mi_crow.jobs.events import read_events
from mi_crow.jobs.spec import config_as_json
from mi_crow.language_model.capture.job import capture_run
from mi_crow.language_model.config import CaptureConfig, DatasetSpec, ModelSpec
from mi_crow.mechanistic.sae.config import SaeTrainingConfig, TrainConfig
from mi_crow.store.workspace import Workspace
from tests.helpers.process_tree import below

pytest.importorskip("submitit", reason="the extra `slurm`")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self").exists(), reason="processes are found in /proc"),
]

CAPTURE = CaptureConfig(
    ModelSpec("sample", dtype="fp32", device="cpu"),
    DatasetSpec("sample", limit=60),
    ("resid_post.2",),
    dtype="fp32",
)
COMMANDS = {
    "sbatch": """
(export SLURM_JOB_ID=$BASHPID; exec setsid bash "$1" >/dev/null 2>&1 </dev/null) &
echo "Submitted batch job $!"
""",
    "srun": """shift 5; exec "$@" """,  # --unbuffered --output FILE --error FILE
    "squeue": """kill -0 "$3" 2>/dev/null && echo RUNNING; exit 0""",
    "scancel": """kill -TERM -- "-$1" """,
    "scontrol": """echo "$@" >> "$(dirname "$0")/requeued" """,
}


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "slurm-commands"
    folder.mkdir()
    for name, text in COMMANDS.items():
        (folder / name).write_text(f"#!/bin/bash\n{text}\n")
        (folder / name).chmod(0o700)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


@pytest.fixture
def workspace(workspace: Workspace, commands: Path) -> Iterator[Workspace]:
    capture_run(workspace, CAPTURE, run_dir=workspace.make_run_dir("run", "run"))
    yield workspace
    slurm._known.cache_clear()
    for state in list_jobs(workspace):
        number = slurm.slurm_number(workspace.job_dir(state.job_id))
        for pid in below(int(number)) if number else ():
            with suppress(ProcessLookupError):  # it ended by itself
                os.kill(pid, signal.SIGKILL)


def train(workspace: Workspace, nproc: int = 1) -> str:
    settings = SaeTrainingConfig(steps=3_000, batch_size=64, checkpoint_every=5_000)
    config = TrainConfig("run", "resid_post.2", n_latents=64, k=4, training=settings, device="cpu")
    return submit(workspace, "train", config_as_json(config), launcher="slurm", nproc=nproc)


def signal_in_the_middle(workspace: Workspace, job: str, signals: list[int]) -> list[str]:
    """Signals all processes once the training runs, and gives the names of its events."""
    names, told = [], False
    for event in follow(workspace, job):
        names.append(event["event"])
        if event["event"] == "progress" and event["done"] > 0 and not told:
            told = True
            number = slurm.slurm_number(workspace.job_dir(job))
            assert number is not None
            for pid in below(int(number)):
                with suppress(ProcessLookupError):  # one may end with another
                    for one in signals:
                        os.kill(pid, one)
    return names


@pytest.mark.parametrize(
    "signals",
    [
        [signal.SIGUSR2],
        [signal.SIGCONT, signal.SIGTERM, signal.SIGUSR2],
        [signal.SIGUSR1, signal.SIGCONT, signal.SIGTERM],
    ],
    ids=["time-up", "preempted", "another-signal"],
)
def test_what_slurm_ends_is_saved_never_queued_again_and_goes_on(
    workspace: Workspace, commands: Path, signals: list[int]
) -> None:
    job = train(workspace)
    names = signal_in_the_middle(workspace, job, signals)
    assert names.count("checkpoint") == 1
    state = job_state(workspace, job)
    assert (state.status, state.resumable) == ("cancelled", True)
    assert "ended by Slurm" in (state.error or "")
    assert not (commands / "requeued").exists()
    resume(workspace, job)
    assert list(follow(workspace, job))[-1]["event"] == "finished"
    state = job_state(workspace, job)
    assert (state.attempt, state.error, state.result and state.result["steps"]) == (2, None, 3_000)


def test_ranks_that_slurm_ends_without_notice_leave_a_job_that_goes_on(
    workspace: Workspace, commands: Path
) -> None:
    job = train(workspace, nproc=2)
    signal_in_the_middle(workspace, job, [signal.SIGCONT, signal.SIGTERM])
    state = job_state(workspace, job)
    assert (state.status, state.resumable) == ("cancelled", True)
    assert not (commands / "requeued").exists()


def test_an_ended_attempt_that_a_cluster_starts_again_does_nothing(
    workspace: Workspace, commands: Path
) -> None:
    job = train(workspace)
    for event in follow(workspace, job):
        if event["event"] == "started":
            cancel(workspace, job)
    job_dir = workspace.job_dir(job)
    assert job_state(workspace, job).error is None  # its user asked for it
    before = read_events(job_dir)
    again = ("sh", "-c", 'SLURM_JOB_ID=$1 exec bash "$2"', "sh")
    number = slurm.slurm_number(job_dir)
    assert number is not None
    script = job_dir / "slurm" / f"{number}_submission.sh"
    assert subprocess.run([*again, number, str(script)], check=False, timeout=60).returncode == 0
    assert "has already ended" in (job_dir / "worker.log").read_text()
    assert read_events(job_dir) == before
    assert job_state(workspace, job).status == "cancelled"
