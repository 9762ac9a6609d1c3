"""Jobs through slurm, with stand-ins for slurm's commands: what they are told, and what their
answers mean for the job."""

import json
import os
import shutil
import signal
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mi_crow.cli import main
from mi_crow.cli.arguments import add_job_flags, slurm_of
from mi_crow.errors import CancelledError, MiCrowError, UserError
from mi_crow.jobs import cancel, job_state, launch, list_jobs, resume, submit
from mi_crow.jobs.distributed import slurm
from mi_crow.jobs.distributed.slurm import check_slurm, minutes
from mi_crow.jobs.events import read_events
from mi_crow.jobs.kinds import KINDS, Kind
from mi_crow.jobs.process import LOCK_NAME, take_lock
from mi_crow.store.workspace import Workspace
from tests.helpers.jobs_worker import StepsConfig, count_steps

pytest.importorskip("submitit", reason="the extra `slurm`")

# Slurm's commands note how they were called; a file each says what they answer.
COMMAND = """#!/bin/sh
echo "$0 $*" >> {folder}/calls
[ -f "$1" ] && cp "$1" {folder}/script
cat {folder}/{name}.out; cat {folder}/{name}.err >&2
exit $(cat {folder}/{name}.code)
"""


class Slurm:
    """The stand-ins: what they were asked, and what they are to answer."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("sbatch", "squeue", "scancel", "srun"):
            path = folder / name
            path.write_text(COMMAND.format(folder=folder, name=name))
            path.chmod(0o700)
            self.answers(name)
        self.answers("sbatch", "Submitted batch job 77\n")
        self.answers("squeue", "PENDING\n")

    def answers(self, name: str, out: str = "", err: str = "", code: int = 0) -> None:
        slurm._known.cache_clear()
        for suffix, text in (("out", out), ("err", err), ("code", str(code))):
            (self.folder / f"{name}.{suffix}").write_text(text)

    def calls(self, name: str) -> list[str]:
        lines = (self.folder / "calls").read_text().splitlines()
        return [line for line in lines if Path(line.split()[0]).name == name]

    @property
    def script(self) -> list[str]:
        return (self.folder / "script").read_text().splitlines()


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Slurm]:
    folder = tmp_path / "slurm-commands"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setitem(KINDS, "steps", Kind(StepsConfig, count_steps))
    yield Slurm(folder)
    slurm._known.cache_clear()


def start(workspace: Workspace, **more: Any) -> str:
    return submit(workspace, "steps", {"folder": ""}, launcher="slurm", **more)


def test_a_job_asks_for_its_resources(workspace: Workspace, cluster: Slurm) -> None:
    resources = {"partition": "gpu", "time": 90, "args": {"account": "lab", "cpus-per-task": "6"}}
    job = start(workspace, device="cuda", slurm=resources)
    wanted = (
        *("partition=gpu", "time=90", "account=lab", "cpus-per-task=6", "gpus-per-node=1"),
        "no-requeue",
        *("nodes=1", f"job-name=mi-crow-{job}"),
    )
    assert {f"#SBATCH --{line}" for line in wanted} <= set(cluster.script)
    spec = json.loads((workspace.jobs_dir / job / "spec.json").read_text())
    assert (spec["launcher"], spec["slurm"]) == ("slurm", resources)


def test_no_gpu_is_asked_for_the_cpu(workspace: Workspace, cluster: Slurm) -> None:
    start(workspace, device="cpu")
    assert not [line for line in cluster.script if "--gpus" in line]


def test_a_job_in_slurms_queue_is_queued_and_not_lost(workspace: Workspace, cluster: Slurm) -> None:
    job = start(workspace)
    state = job_state(workspace, job)
    assert (state.status, state.waiting_for) == ("queued", "Slurm (job 77)")
    cluster.answers("squeue", err="slurm_load_jobs error: Unable to contact slurm\n", code=1)
    assert job_state(workspace, job).status == "queued"


@pytest.mark.parametrize(
    "answer",
    [
        {"out": ""},
        {"out": "CANCELLED\n"},
        {"err": "slurm_load_jobs error: Invalid job id specified", "code": 1},
    ],
)
def test_a_job_that_slurm_does_not_know_is_lost_and_can_be_resumed(
    workspace: Workspace, cluster: Slurm, answer: dict[str, Any]
) -> None:
    job = start(workspace, slurm={"partition": "gpu"})
    cluster.answers("squeue", **answer)
    state = job_state(workspace, job)
    assert (state.status, state.resumable) == ("lost", True)
    cluster.answers("sbatch", "Submitted batch job 78\n")
    resume(workspace, job)
    cluster.answers("squeue", "PENDING\n")
    state = job_state(workspace, job)
    assert (state.status, state.waiting_for, state.attempt) == ("queued", "Slurm (job 78)", 2)
    assert "#SBATCH --partition=gpu" in cluster.script


def test_a_waiting_job_is_taken_from_slurms_queue(workspace: Workspace, cluster: Slurm) -> None:
    job = start(workspace)
    cancel(workspace, job)
    assert cluster.calls("scancel")[0].endswith(" 77")
    state = job_state(workspace, job)
    assert (state.status, state.resumable) == ("cancelled", True)
    assert read_events(workspace.jobs_dir / job)[-1]["event"] == "cancelled"


def test_what_slurm_refuses_leaves_nothing(workspace: Workspace, cluster: Slurm) -> None:
    cluster.answers("sbatch", err="sbatch: error: invalid partition specified: gpux\n", code=1)
    with pytest.raises(UserError, match=r"Slurm did not accept the job .*invalid partition"):
        start(workspace, slurm={"partition": "gpux"})
    assert list(workspace.jobs_dir.iterdir()) == []


def test_a_job_is_queued_while_sbatch_has_not_answered(
    workspace: Workspace, cluster: Slurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    hand_over = launch.hand_over

    def look_first(*given: Any) -> str:
        seen.extend(state.status for state in list_jobs(workspace))
        return hand_over(*given)

    monkeypatch.setattr(launch, "hand_over", look_first)
    job = start(workspace)
    cluster.answers("squeue", "")
    assert job_state(workspace, job).status == "lost"
    resume(workspace, job)
    assert seen == ["queued", "queued"]


def test_a_resume_that_slurm_refuses_is_a_failure_that_can_be_resumed(
    workspace: Workspace, cluster: Slurm
) -> None:
    job = start(workspace)
    cancel(workspace, job)
    cluster.answers("sbatch", err="sbatch: error: the queue is closed\n", code=1)
    with pytest.raises(UserError, match="the queue is closed"):
        resume(workspace, job)
    state = job_state(workspace, job)
    assert (state.status, state.resumable) == ("failed", True)
    assert "the queue is closed" in (state.error or "")


def test_a_job_that_slurm_does_not_end_is_not_called_cancelled(
    workspace: Workspace, cluster: Slurm
) -> None:
    job = start(workspace)
    cluster.answers("scancel", err="scancel: error: no controller\n", code=1)
    with pytest.raises(MiCrowError, match=r"did not end its job 77 .*no controller"):
        cancel(workspace, job)
    state = job_state(workspace, job)
    assert (state.status, state.stopping) == ("queued", True)


def test_the_hand_over_holds_a_command_and_no_secret(
    workspace: Workspace, cluster: Slurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefghijklmnopqrstuvwxyz")
    job = start(workspace)
    files = [path for path in (workspace.jobs_dir / job).rglob("*") if path.is_file()]
    assert any(b"mi_crow.jobs.runner" in path.read_bytes() for path in files)
    assert not any(b"hf_abcdef" in path.read_bytes() for path in files)


@pytest.mark.parametrize(
    ("find", "words"),
    [
        (lambda _: None, "--launcher slurm needs a package that is missing"),
        (lambda _: object(), "Slurm's command sbatch is not on this machine"),
    ],
)
def test_a_machine_without_slurm_is_told(
    find: Callable[[str], object], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm, "find_spec", find)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(UserError, match=words):
        check_slurm({})


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("90", 90), ("90:00", 90), ("0:30", 1), ("8:00:00", 480), ("1-12", 2160), ("1-1:30", 1530)],
)
def test_time_limits_are_written_as_slurm_takes_them(text: str, wanted: int) -> None:
    assert minutes(text) == wanted


@pytest.mark.parametrize("text", ["soon", "0", "1-", "1:2:3:4", "-5"])
def test_other_time_limits_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="time limit"):
        minutes(text)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--partition gpu", "need --launcher slurm"),
        ("--launcher slurm --slurm-arg account", "'account' is not KEY=VALUE"),
        ("--launcher slurm --slurm-arg cpus-per-task=many", "cpus-per-task must be a whole number"),
        ("--launcher slurm --time soon", "'soon' is not a valid time limit"),
        ("--launcher slurm --time 0", "less than a minute"),
        ("--launcher slurm --slurm-arg array=0-3", "'array' cannot be set"),
        ("--launcher slurm --slurm-arg requeue=1", "'requeue' cannot be set"),
        ("--launcher slurm --slurm-arg time=9", "use --time"),
        ("--launcher slurm --slurm-arg Mem=1", "'Mem' is not a valid option of sbatch"),
        ("--launcher slurm --slurm-arg signal=KILL@9", "jobs do not save at"),
    ],
)
def test_flags_that_make_no_sense_are_explained(
    flags: str, words: str, tmp_path: Path, cluster: Slurm, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--workspace", str(tmp_path / "new"), "capture", "--layer", "resid_post.1"]
    assert main([*command, "--limit", "5", *flags.split()]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("sbatch: error: invalid partition specified: gpux", "invalid partition specified: gpux"),
        (
            "sbatch: unrecognized option '--foo=1'\nTry \"sbatch --help\" for more information",
            "unrecognized option '--foo=1'",
        ),
    ],
)
def test_what_sbatch_refuses_is_one_sentence_and_leaves_nothing(
    said: str, words: str, tmp_path: Path, cluster: Slurm, capfd: pytest.CaptureFixture[str]
) -> None:
    cluster.answers("sbatch", err=f"{said}\n", code=1)
    command = ["--workspace", str(tmp_path / "new"), "capture", "--layer", "resid_post.1"]
    assert main([*command, "--limit", "5", "--launcher", "slurm", "--slurm-arg", "foo=1"]) == 2
    told = capfd.readouterr().err
    assert words in told
    assert told.count("sbatch") == 1
    assert "Traceback" not in told
    assert not (tmp_path / "new").exists()


def test_a_cluster_without_srun_is_told(
    workspace: Workspace, cluster: Slurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    (cluster.folder / "srun").unlink()
    monkeypatch.setenv("PATH", str(cluster.folder))
    with pytest.raises(UserError, match=r"Slurm did not accept the job .*srun"):
        start(workspace)
    assert list(workspace.jobs_dir.iterdir()) == []


def test_ctrl_c_while_sbatch_is_asked_leaves_nothing(
    workspace: Workspace, cluster: Slurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("submitit.AutoExecutor.submit", interrupted)
    with pytest.raises(CancelledError, match="before Slurm had the job"):
        start(workspace)
    assert list(workspace.jobs_dir.iterdir()) == []


@pytest.mark.parametrize(
    ("resources", "words"),
    [
        ({"time": "soon"}, "whole number of minutes"),
        ({"time": 0}, "whole number of minutes"),
        ({"partition": " "}, "must have a name"),
        ({"partition": "gpu\nrm"}, "one line of plain text"),
        ({"args": {"account": "a\nb"}}, "one line of plain text"),
        ({"nodes": 2}, "'nodes' is not known"),
    ],
)
def test_resources_that_make_no_sense_are_refused(
    workspace: Workspace, cluster: Slurm, resources: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        start(workspace, slurm=resources)
    assert not list(workspace.jobs_dir.glob("*"))


def test_the_users_words_replace_ours(workspace: Workspace, cluster: Slurm) -> None:
    asked = {"gpus-per-node": "a100:2", "signal": "USR2@600", "cpus-per-task": 3}
    start(workspace, device="cuda", slurm={"args": asked})
    for name, value in asked.items():
        lines = [line for line in cluster.script if f"--{name}=" in line]
        assert lines == [f"#SBATCH --{name}={value}"]


def test_the_signal_to_save_at_is_always_the_same(
    workspace: Workspace, cluster: Slurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    from submitit.slurm.slurm import SlurmJobEnvironment

    monkeypatch.setattr(SlurmJobEnvironment, "USR_SIG", "USR1")
    start(workspace)
    assert "#SBATCH --signal=USR2@90" in cluster.script
    assert "export SUBMITIT_PREEMPT_SIGNAL=USR2" in cluster.script


def test_submitit_queues_nothing_again_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from submitit.core.job_environment import SignalHandler
    from submitit.core.utils import DelayedSubmission, JobPaths, UncompletedJobError
    from submitit.slurm.slurm import SlurmJobEnvironment

    queued: list[int] = []
    monkeypatch.setattr(SlurmJobEnvironment, "_requeue", lambda _, count: queued.append(count))
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    delayed = DelayedSubmission(slurm.WorkerCommand(["true"]))
    delayed.set_timeout(600, 3)
    handler = SignalHandler(SlurmJobEnvironment(), JobPaths(tmp_path, "77"), delayed)
    with pytest.raises(UncompletedJobError, match="not requeued"):
        handler.checkpoint_and_try_requeue(signal.SIGUSR2)
    assert queued == []


def test_a_cancel_leaves_the_last_word_to_a_worker_that_has_begun(
    workspace: Workspace, cluster: Slurm
) -> None:
    job = start(workspace)
    lock = take_lock(workspace.jobs_dir / job / LOCK_NAME)
    assert lock is not None
    cancel(workspace, job)
    assert job_state(workspace, job).stopping
    os.close(lock)


def test_flags_become_resources() -> None:
    parser = ArgumentParser()
    add_job_flags(parser, ranked=True)
    words = "--launcher slurm --partition gpu --time 2:00:00 --slurm-arg account=lab --nproc 4"
    options = parser.parse_args([*words.split(), "--slurm-arg", "mem=64G"])
    wanted = {"partition": "gpu", "time": 120, "args": {"account": "lab", "mem": "64G"}}
    assert slurm_of(options) == wanted
    assert (options.launcher, options.nproc) == ("slurm", 4)
