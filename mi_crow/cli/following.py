"""Starting a job from the command line and following it to its end.

Ctrl+c detaches: the job goes on. Ctrl+c again while the farewell is on the screen cancels it.
"""

import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from mi_crow.cli.arguments import slurm_of
from mi_crow.cli.streams import out
from mi_crow.cli.text import print_json
from mi_crow.errors import CancelledError, MiCrowError, UserError
from mi_crow.jobs import cancel, follow, job_state, submit
from mi_crow.jobs.distributed.launchers import check_ranked
from mi_crow.jobs.kinds import kind_of
from mi_crow.jobs.launch import forget
from mi_crow.ranks import is_launched, launched_world
from mi_crow.store.workspace import Workspace
from mi_crow.visible import visible

SECOND_THOUGHT_S = 3.0
EXIT_DETACHED = 130


class JobFailedError(MiCrowError):
    """A job's own failure, with the exit code that the job gave it."""

    def __init__(self, message: str, *, hint: str, exit_code: int) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code  # type: ignore[misc]


class Display(Protocol):
    """What shows a job's events."""

    def show(self, event: dict[str, Any]) -> None: ...

    def waits(self, what: str) -> None:
        """The job still waits for `what`."""
        ...


def run_job(
    workspace: Workspace,
    kind: str,
    params: dict[str, Any],
    options: Namespace,
    show: Callable[[dict[str, Any]], None],
) -> int:
    """Starts a job and follows it, unless told to detach; prints its result. Gives the exit code.

    Raises the job's own failure; when that was the user's to mend and nothing was made, the
    workspace is left as it was. Under torchrun there is no job: its processes share the work here.
    """
    if is_launched():
        if kind_of(kind).ranked:
            from mi_crow.cli.torchrun import run_in_ranks

            return run_in_ranks(workspace, kind, params, options, show)
        check_ranked(kind, launched_world())
    before = Traces(workspace)
    if options.launcher == "torchrun" and options.nproc is None:
        raise UserError(f"--launcher {options.launcher} needs to know how many", hint="--nproc N")
    slurm = slurm_of(options)
    try:
        job_id = submit(
            workspace,
            kind,
            params,
            name=getattr(options, "name", None),
            after=options.after,
            launcher=options.launcher,
            nproc=options.nproc or 1,
            slurm=slurm,
        )
    except MiCrowError:  # refused, maybe by slurm, which is asked when there is a folder
        before.restore()
        raise
    if options.detach:
        _say_detached(workspace, job_id, options.json)
        return 0
    try:
        result = follow_job(workspace, job_id, quiet=options.json)
    except JobFailedError as error:
        if error.exit_code == UserError.exit_code and forget(workspace, job_id):
            before.restore()
        raise
    if result is None:
        return EXIT_DETACHED
    if options.json:
        print_json(result)
    else:
        show(result)
    return 0


def follow_job(workspace: Workspace, job_id: str, *, quiet: bool = False) -> dict[str, Any] | None:
    """Shows a job's progress until it ends and gives its result, or None after detaching.

    Raises JobFailedError, JobCancelledError, or MiCrowError for a lost job.
    """
    last: dict[str, Any] = {}
    cancelling = False
    with display_of(quiet) as display:
        while True:
            try:
                for event in follow(workspace, job_id, display.waits):
                    if event.get("t", 0) >= last.get("t", 0):  # after a ctrl+c they come again
                        last = event
                        display.show(event)
                break
            except KeyboardInterrupt:
                cancelling = cancelling or _wants_cancel(job_id)
                if not cancelling:
                    return None
                _cancel_quietly(workspace, job_id)
    return _closing(workspace, job_id, last)


def _closing(workspace: Workspace, job_id: str, event: dict[str, Any]) -> dict[str, Any]:
    name = event.get("event")
    if name == "finished":
        return event.get("result") or {}
    if name == "failed":
        raise JobFailedError(
            str(event.get("error") or "the job failed"),
            hint=str(event.get("hint") or f"mi-crow jobs log {job_id}"),
            exit_code=int(event.get("exit_code") or 1),
        )
    if name == "cancelled":
        resumable = job_state(workspace, job_id).resumable
        raise JobCancelledError(
            f"job {job_id} was cancelled",
            hint=f"mi-crow jobs resume {job_id} goes on" if resumable else "",
        )
    raise MiCrowError(
        f"job {job_id} is lost: its process died without a word",
        hint=f"mi-crow jobs log {job_id} says more, mi-crow jobs resume {job_id} goes on",
    )


class JobCancelledError(CancelledError):
    """Somebody cancelled the job that was followed."""

    exit_code = 130

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


def _wants_cancel(job_id: str) -> bool:
    """After the first ctrl+c: says how to cancel and waits a moment for the second one."""
    sys.stderr.write(
        f"\njob {job_id} goes on; ctrl+c again within {SECOND_THOUGHT_S:.0f} s cancels it, "
        f"later `mi-crow jobs cancel {job_id}`\n"
    )
    try:
        time.sleep(SECOND_THOUGHT_S)
    except KeyboardInterrupt:
        return True
    return False


def _cancel_quietly(workspace: Workspace, job_id: str) -> None:
    sys.stderr.write("cancelling: it saves and stops; ctrl+c again stops it now\n")
    try:
        cancel(workspace, job_id)
    except UserError:
        return  # it ended meanwhile: following it shows how


def _say_detached(workspace: Workspace, job_id: str, as_json: bool) -> None:
    if as_json:
        print_json({"job_id": job_id, "workspace": str(workspace.root)})
    else:
        out().write(f"job {job_id} runs; watch it: mi-crow jobs watch {job_id}\n")


@contextmanager
def display_of(quiet: bool) -> Iterator[Display]:
    """A bar on a terminal, plain lines otherwise."""
    if sys.stderr.isatty():
        from mi_crow.cli.bar import JobBar

        with JobBar() as bar:
            yield bar
    else:
        yield PlainLines(quiet)


class PlainLines:
    """Progress as plain lines on stderr, at most one in ten seconds; none at all when quiet.

    A job that waits says for what when it begins to, and then every fifteen seconds.
    """

    GAP_S = 10.0
    WAIT_GAP_S = 15.0

    def __init__(self, quiet: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._quiet = quiet
        self._clock = clock
        self._last = -self.GAP_S
        self._waited, self._wait_said = "", 0.0

    def waits(self, what: str) -> None:
        now = self._clock()
        if self._quiet or (what == self._waited and now - self._wait_said < self.WAIT_GAP_S):
            return
        again = "still " if what == self._waited else ""
        self._waited, self._wait_said = what, now
        self._write(f"queued: {again}waits for {what}")

    def show(self, event: dict[str, Any]) -> None:
        if self._quiet:
            return
        if event["event"] == "log":
            self._write(str(event.get("message", "")))
        elif event["event"] == "progress" and self._clock() - self._last >= self.GAP_S:
            self._last = self._clock()
            readings = "  ".join(f"{k} {v:.4g}" for k, v in event.get("metrics", {}).items())
            self._write(f"{event['done']}/{event['total']} {event['unit']}  {readings}".rstrip())

    def _write(self, line: str) -> None:
        sys.stderr.write(f"{visible(line)}\n")
        sys.stderr.flush()


class Traces:
    """Which of a workspace's folders were there, so that a failed command can take its own away."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        root = workspace.root
        self._new_parents = [folder for folder in (root, *root.parents) if not folder.exists()]
        candidates = (workspace.jobs_dir, workspace.activations_dir, workspace.saes_dir)
        self._new = [folder for folder in candidates if not folder.exists()]
        self._existed = workspace.exists()

    def restore(self) -> None:
        """Removes what is new and empty; a workspace that somebody else uses by now stays."""
        for folder in self._new:
            _remove_empty(folder)
        root = self._workspace.root
        if self._existed or not root.exists():
            return
        if any(entry.name != "workspace.json" for entry in root.iterdir()):
            return
        (root / "workspace.json").unlink(missing_ok=True)
        for folder in self._new_parents:
            _remove_empty(folder)


def _remove_empty(folder: Any) -> None:
    try:
        folder.rmdir()
    except OSError:
        return  # not there, or in use
