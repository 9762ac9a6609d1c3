"""A command started by torchrun: its processes share the work in the foreground, without a job.

Each runs the same command line. Rank 0 chooses the output folder and does the reporting; another
rank only reports a failure of its own.
"""

import os
import signal
import threading
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from mi_crow.cli.display import Display, display_of
from mi_crow.cli.error_line import EXIT_INTERRUPTED, report_error
from mi_crow.cli.following import JobCancelledError
from mi_crow.cli.rollback import Rollback
from mi_crow.cli.tables import print_result
from mi_crow.errors import CancelledError, UserError, exit_code_of
from mi_crow.jobs.dependents import FOREGROUND_LOCK
from mi_crow.jobs.distributed.launchers import check_ranked
from mi_crow.jobs.events import redact
from mi_crow.jobs.kinds import Kind, Work, device_of, kind_of, with_device
from mi_crow.jobs.output import claim_output, remove_empty
from mi_crow.jobs.process import take_lock
from mi_crow.jobs.rate import Forecast
from mi_crow.jobs.reporter import update_gap
from mi_crow.ranks import (
    Ranks,
    launched_rank,
    launched_world,
    ranks_from_environment,
    take_device,
)
from mi_crow.store.workspace import Workspace


def run_in_ranks(
    workspace: Workspace,
    kind_name: str,
    config: Any,
    options: Namespace,
    show: Callable[[dict[str, Any]], None],
) -> int:
    """Does this rank's share of the work; rank 0 prints the result. Gives the exit code.

    Raises UserError for flags that only make sense for a job.
    """
    _refuse_job_flags(options)
    check_ranked(kind_name, launched_world())
    kind = kind_of(kind_name)
    speaks = launched_rank() == 0
    rollback = Rollback(workspace) if speaks else None
    try:
        with display_of(quiet=options.json or not speaks) as display:
            progress = ForegroundProgress(display if speaks else None)
            joined = ranks_from_environment(on_devices=getattr(config, "tensor_parallel", False))
            with progress.stopped_by_signals(), joined as ranks:
                try:
                    result = _share(workspace, kind, config, progress, ranks)
                except BaseException:
                    speaks = ranks.is_first("failure")
                    raise
    except Exception as error:
        if rollback is not None and isinstance(error, UserError):
            rollback.undo()
        if not speaks:
            return exit_code_of(error)
        return report_error(error, as_json=options.json, debug=options.debug)
    if not speaks:
        return 0
    return print_result(options.json, result, show)


def _refuse_job_flags(options: Namespace) -> None:
    for flag in ("detach", "after"):
        if getattr(options, flag):
            raise UserError(
                f"--{flag} needs a job, which torchrun does not start",
                hint="use mi-crow with --launcher torchrun --nproc N",
            )
    if options.nproc is not None or options.launcher != "local":
        raise UserError(
            "torchrun has already started the processes", hint="leave out --launcher and --nproc"
        )


def _share(
    workspace: Workspace, kind: Kind, config: Any, progress: "ForegroundProgress", ranks: Ranks
) -> dict[str, Any]:
    """This rank's share of the work, in the folder that rank 0 chose."""
    config = with_device(config, take_device(device_of(config)))
    ranks.wait()  # no rank starts before each has found its device
    if kind.makes is None:
        if ranks.rank == 0 and kind.check is not None:
            kind.check(workspace, config)
        ranks.wait()
        return kind.work(Work(workspace, config, progress, None, ranks))
    claimed = _claim(workspace, kind, config) if ranks.rank == 0 else None
    with _locked(claimed):
        folder = Path(ranks.agree(str(claimed)))
        again = f"the same command with --name {folder.name} resumes it"
        if config.name is None:
            progress.log(f"writing {folder.name}; if this is stopped, {again}")
        try:
            return kind.work(Work(workspace, config, progress, folder, ranks))
        except CancelledError as error:
            raise JobCancelledError("cancelled", hint=again if error.resumable else "") from error
        except UserError:
            if claimed is not None:
                remove_empty(workspace, claimed)
            raise


def _claim(workspace: Workspace, kind: Kind, config: Any) -> Path:
    """The folder for the work. Raises UserError when the work cannot be done."""
    if kind.check is not None:
        kind.check(
            workspace, replace(config, name=None)
        )  # the name may belong to its unfinished output
    workspace.ensure()
    return claim_output(workspace, kind, config)


@contextmanager
def _locked(folder: Path | None) -> Iterator[None]:
    """Locks the folder against other commands. Raises UserError when one holds the lock."""
    if folder is None:
        yield
        return
    lock = take_lock(folder / FOREGROUND_LOCK, patience_s=0)
    if lock is None:
        raise UserError(f"{folder.name!r} is already being written", hint="choose another --name")
    try:
        yield
    finally:
        (folder / FOREGROUND_LOCK).unlink(missing_ok=True)
        os.close(lock)


class ForegroundProgress:
    """A Progress that goes to a display, if there is one.

    A first signal makes the work save and stop, a second one ends the process.
    """

    def __init__(self, display: Display | None) -> None:
        self._display = display
        self._lock = threading.Lock()  # the forecast: work calls from any of its threads
        self._forecast = Forecast()
        self._started = time.monotonic()
        self._last = float("-inf")
        self._stop = False

    @contextmanager
    def stopped_by_signals(self) -> Iterator[None]:
        """Ctrl+c and torchrun's SIGTERM stop the work of the block."""
        before = {n: signal.signal(n, self._on_signal) for n in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def update(
        self, done: int, total: int, unit: str, metrics: Mapping[str, float] | None = None
    ) -> None:
        now = time.monotonic()
        with self._lock:
            rate, left = self._forecast.add(now, done, total, unit)
            if done < total and now - self._last < update_gap(now - self._started):
                return
            self._last = now
        reading = {"done": done, "total": total, "unit": unit, "metrics": dict(metrics or {})}
        self._show({"event": "progress", "rate": rate, "eta_s": left} | reading)

    def log(self, message: str) -> None:
        self._show({"event": "log", "message": redact(message)})

    def checkpoint(self, name: str) -> None:
        pass  # the output itself records how far it is

    def should_stop(self) -> bool:
        return self._stop

    def _show(self, event: dict[str, Any]) -> None:
        if self._display is not None:
            self._display.show(event)

    def _on_signal(self, *_: object) -> None:
        if self._stop:
            os._exit(EXIT_INTERRUPTED)
        self._stop = True
