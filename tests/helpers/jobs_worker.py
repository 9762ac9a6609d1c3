"""A worker with extra kinds for tests: `python tests/jobs_worker.py <job folder>`.

Under torchrun it is one rank of such a job.
"""

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mi_crow.errors import UserError
from mi_crow.jobs.kinds import KINDS, Kind, Work
from mi_crow.progress import raise_if_stopped

WORKER = (sys.executable, str(Path(__file__)))


@dataclass(frozen=True)
class StepsConfig:
    """Counts steps into a file, one line each; `wait_at` holds it there until `go` exists."""

    folder: str
    steps: int = 3
    wait_at: int | None = None
    fail: str = ""  # user | crash: how it ends before the first step
    deaf: bool = False  # never looks whether it should stop
    name: str | None = None
    arch: str = "steps"
    device: str = "cpu"


def count_steps(work: Work) -> dict[str, Any]:
    config: StepsConfig = work.config
    if config.fail == "user":
        raise UserError("the texts are empty", hint="give others")
    if config.fail == "crash":
        raise RuntimeError("hf_abcdefghijklmnopqrstuvwxyz is in this message")
    folder = Path(config.folder)
    steps = folder / "steps"
    done = steps.read_text().count("\n") if steps.exists() else 0
    for step in range(done, config.steps):
        while config.wait_at == step and not (folder / "go").exists():
            (folder / "waiting").touch()
            if not config.deaf:
                raise_if_stopped(work.progress)
            time.sleep(0.01)
        with steps.open("a") as file:
            file.write(f"{step} {os.getpid()}\n")
        work.progress.update(step + 1, config.steps, "step", {"loss": 1 / (step + 1)})
        work.progress.checkpoint(f"step-{step + 1}")
        if work.output_dir is not None:
            (work.output_dir / "cfg.json").write_text("{}")
    work.progress.log("all steps done")
    environment = {key: os.environ.get(key) for key in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    return {
        "steps": config.steps,
        "environment": environment,
        "niceness": os.getpriority(os.PRIO_PROCESS, 0),
        "niceness_of_session": _niceness_of_session(),
        "session": os.getsid(0) == os.getpid(),
    }


def _niceness_of_session() -> int | None:
    """None where the system does not weigh sessions."""
    group = Path("/proc/self/autogroup")
    return int(group.read_text().split()[-1]) if group.exists() else None


def share_steps(work: Work) -> dict[str, Any]:
    """Rank r does the steps r, r + world, ..; `fail` happens on the last rank alone."""
    config: StepsConfig = work.config
    ranks, folder = work.ranks, Path(config.folder)
    agreed = ranks.agree({"told by": ranks.rank, "pair": (1, 2), "text": "ü"})
    last = ranks.rank == ranks.world - 1
    if config.fail == "user" and last:
        raise UserError("the texts are empty", hint="give others")
    if config.fail == "crash" and last:
        raise RuntimeError("hf_abcdefghijklmnopqrstuvwxyz is in this message")
    mine = folder / f"steps-{ranks.rank}"
    done = mine.read_text().count("\n") if mine.exists() else 0
    for step in range(ranks.rank, config.steps, ranks.world)[done:]:
        if config.wait_at is not None and step >= config.wait_at:
            stand_still(work, folder)
        with mine.open("a") as file:
            file.write(f"{step} {os.getpid()}\n")
        work.progress.update(step + 1, config.steps, "step", {"loss": 1 / (step + 1)})
        work.progress.checkpoint(f"step-{step + 1}")
    ranks.wait()
    work.progress.log(f"rank {ranks.rank} is through")
    return {
        "agreed": agreed,
        "world": ranks.world,
        "device": config.device,
        "threads": os.environ.get("OMP_NUM_THREADS"),
    }


def stand_still(work: Work, folder: Path) -> None:
    """Says where this rank waits and waits there until `go` exists."""
    pid = folder / f"pid-{work.ranks.rank}"
    pid.write_text(str(os.getpid()))
    pid.rename(folder / f"waiting-{work.ranks.rank}")
    while not (folder / "go").exists():
        if not work.config.deaf:
            raise_if_stopped(work.progress)
        time.sleep(0.01)


def register() -> None:
    """Adds the test kinds to the table of this process."""
    KINDS["steps"] = Kind(StepsConfig, count_steps)
    KINDS["steps-sae"] = Kind(StepsConfig, count_steps, makes="SAE")
    KINDS["shared-steps"] = Kind(StepsConfig, share_steps, ranked=True)


if __name__ == "__main__":
    from mi_crow.jobs import runner
    from mi_crow.jobs.distributed import rank

    register()
    if "RANK" in os.environ:
        raise SystemExit(rank.main())
    raise SystemExit(runner.main(rank_program=(str(Path(__file__)),)))
