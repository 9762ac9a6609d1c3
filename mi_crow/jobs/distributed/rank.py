"""One rank of a job: `python -m mi_crow.jobs.distributed.rank JOB_DIR ...`, started by torchrun.

It does its share of the work and reports to the job's process through the exchange folder; only
that process writes the job's own files.
"""

import argparse
import os
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mi_crow.causes import explained
from mi_crow.errors import CancelledError, MiCrowError, exit_code_of
from mi_crow.jobs.distributed.exchange import Exchange
from mi_crow.jobs.events import redact
from mi_crow.jobs.kinds import Work, kind_of, with_device
from mi_crow.jobs.process import die_with
from mi_crow.jobs.reporter import update_gap
from mi_crow.jobs.spec import JobSpec, config_from_json
from mi_crow.memory import memory_readings
from mi_crow.ranks import RankLostError, ranks_from_environment, take_device
from mi_crow.store.workspace import Workspace

_STOP_LOOK_S = 0.5


def main(argv: Sequence[str] | None = None) -> int:
    """Does this rank's share and records how it ended; 0 when it finished or stopped."""
    parser = argparse.ArgumentParser(prog="python -m mi_crow.jobs.distributed.rank")
    parser.add_argument("job_dir", type=Path)
    parser.add_argument("--output", type=Path, help="the run's or SAE's folder")
    parser.add_argument("--exchange", type=Path, required=True)
    parser.add_argument("--parent", type=int, required=True, help="the process to end with")
    options = parser.parse_args(argv)
    die_with(options.parent)
    exchange = Exchange(options.exchange)
    rank = int(os.environ["RANK"])
    progress = RankProgress(exchange, rank)
    try:
        result = _work(options.job_dir, options.output, progress)
    except CancelledError as error:
        exchange.end(rank, "cancelled", resumable=error.resumable)
        return 0
    except (Exception, SystemExit) as error:
        return _record_failure(exchange, rank, error)
    finally:
        progress.flush()
    exchange.end(rank, "finished", result=result if rank == 0 else None)
    return 0


def _work(job_dir: Path, output_dir: Path | None, progress: "RankProgress") -> dict[str, Any]:
    spec = JobSpec.load(job_dir)
    kind = kind_of(spec.kind)
    config = config_from_json(kind.config, spec.params, spec.kind)
    split = getattr(config, "tensor_parallel", False)
    with ranks_from_environment(on_devices=split) as ranks:
        config = with_device(config, take_device(spec.device))
        ranks.wait()  # no rank starts before each has found its device
        workspace = Workspace(job_dir.parent.parent)
        return kind.work(Work(workspace, config, progress, output_dir, ranks))


def _record_failure(exchange: Exchange, rank: int, error: BaseException) -> int:
    words = redact(traceback.format_exc())
    error = explained(error)
    exit_code, ours = exit_code_of(error), isinstance(error, MiCrowError)
    sentence = redact(str(error) or type(error).__name__)
    sys.stderr.write(f"rank {rank}: {sentence}\n")
    exchange.end(
        rank,
        "failed",
        error=sentence,
        hint=redact(getattr(error, "hint", "")),
        exit_code=exit_code,
        traceback=words,
        cause="lost" if isinstance(error, RankLostError) else "known" if ours else "crashed",
    )
    return exit_code


class RankProgress:
    """The Progress of one rank: rank 0 reports to the job, the others only log."""

    def __init__(self, exchange: Exchange, rank: int) -> None:
        self._exchange, self._rank = exchange, rank
        self._started = time.monotonic()
        self._lock = threading.Lock()  # the readings: work calls from any of its threads
        self._reading: dict[str, Any] | None = None  # the latest, not yet reported
        self._last_report = self._last_look = float("-inf")
        self._stop = False

    def update(
        self, done: int, total: int, unit: str, metrics: Mapping[str, float] | None = None
    ) -> None:
        if self._rank:
            return
        readings = {key: float(value) for key, value in (metrics or {}).items()}
        reading = {"done": int(done), "total": int(total), "unit": unit, "metrics": readings}
        now = time.monotonic()
        with self._lock:
            self._reading = reading
            due = now - self._last_report >= update_gap(now - self._started)
            if due:
                self._last_report = now
        if due:
            self.flush()

    def log(self, message: str) -> None:
        if self._rank:
            sys.stderr.write(f"rank {self._rank}: {redact(message)}\n")
        else:
            self._exchange.report("log", message=redact(message))

    def checkpoint(self, name: str) -> None:
        if self._rank == 0:
            self.flush()
            self._exchange.report("checkpoint", name=name)

    def should_stop(self) -> bool:
        now = time.monotonic()
        if not self._stop and now - self._last_look >= _STOP_LOOK_S:
            self._last_look = now
            self._stop = self._exchange.stop_asked()
        return self._stop

    def flush(self) -> None:
        """Reports the latest reading, with the memory of this rank."""
        with self._lock:
            if self._reading is None:
                return
            self._reading["metrics"] |= memory_readings()
            self._exchange.report("update", **self._reading)
            self._reading = None


if __name__ == "__main__":
    raise SystemExit(main())
