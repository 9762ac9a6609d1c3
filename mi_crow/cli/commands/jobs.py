"""`mi-crow jobs`: list, follow and control jobs."""

from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from functools import partial
from importlib import import_module
from typing import Any

from mi_crow.cli.arguments import (
    CommandAction,
    add_actions,
    add_setting,
    add_switch,
    open_workspace,
    positive,
)
from mi_crow.cli.devices import show_devices
from mi_crow.cli.following import EXIT_DETACHED, follow_job
from mi_crow.cli.formatting import duration, moment, print_json, reading, time_left
from mi_crow.cli.tables import print_facts, print_line, print_list, print_outcome, print_result
from mi_crow.errors import UserError
from mi_crow.jobs import JobState, cancel, job_state, list_jobs, resume, scan_jobs, tail_log
from mi_crow.jobs.events import CLOSING, Attempt, attempts_of, read_events
from mi_crow.jobs.removing import remove_job
from mi_crow.progress import done_of
from mi_crow.store.workspace import Workspace

# How the command that starts a job of a kind shows its result: module, function.
_SHOWN = {
    **{name: (name, "show_result") for name in ("capture", "train", "index", "evaluate", "demo")},
    "import": ("exchange", "show_import_of_a_job"),
    "explain": ("meaning.explain", "show_result"),
    "explanations": ("meaning.explain", "show_explanations"),
    "steer-sweep": ("steer.measuring", "show_sweep"),
    "steer-auto": ("steer.measuring", "show_auto"),
    "steer-scores": ("steer.scoring", "show_result"),
}

_WITH_PARAMETERS = ("import",)  # whose function takes those of the job as well


def add_arguments(parser: ArgumentParser, command: str) -> None:
    for name, action in add_actions(parser, _ACTIONS):
        if name not in ("list", "devices"):
            action.add_argument("job", nargs="?", help="job id; optional when only one qualifies")
        if name == "resume":
            add_switch(action, "--detach", "do not follow the job")
        if name == "rm":
            add_switch(action, "--force", "even if it can be resumed")
        if name == "log":
            add_setting(action, "--lines", 100, "number of lines", type=positive)


def run(options: Namespace) -> int:
    workspace = open_workspace(options)
    action = options.action or "list"
    of_all = action in ("list", "devices")
    job_id = "" if of_all else options.job or _only_job(workspace, action)
    return _ACTIONS[action].run(workspace, job_id, options) or 0


def _devices(workspace: Workspace, _: str, options: Namespace) -> None:
    show_devices(workspace.root, options.json)


def _list(workspace: Workspace, _: str, options: Namespace) -> None:
    states = scan_jobs(workspace)
    columns = ["job", "status", ">done", ">left", "details…"]
    records = [state.as_json() for state in states]
    print_list(options.json, records, columns, map(_row, states), "no jobs yet")


def _row(state: JobState) -> list[str]:
    share = state.share
    done = f"{100 * share:.0f}%" if share is not None else ""
    return [
        state.job_id,
        "stopping" if state.stopping else state.status,
        "100%" if state.status == "finished" else done,
        time_left(state.eta_s) if state.active and state.eta_s else "",
        _details(state),
    ]


def _details(state: JobState) -> str:
    if state.error:
        return state.error
    if state.status == "queued":
        return f"waiting for {state.waiting_for}" if state.waiting_for else ""
    if state.status in ("lost", "cancelled") and state.resumable:
        return "can be resumed"
    readings = [reading(name, value) for name, value in state.metrics.items()]
    return "  ".join([state.stage, *readings] if state.stage else readings)


def _watch(workspace: Workspace, job_id: str, options: Namespace) -> int:
    result = follow_job(workspace, job_id, quiet=options.json)
    if result is None:
        return EXIT_DETACHED
    return print_result(options.json, result, partial(show_result_of, job_state(workspace, job_id)))


def show_result_of(job: JobState, result: dict[str, Any]) -> None:
    """The result as the command of that kind of job shows it, else key by key."""
    if job.kind in _SHOWN:
        module, name = _SHOWN[job.kind]
        show = getattr(import_module(f"mi_crow.cli.commands.{module}"), name)
        try:
            show(result, *([job.params] if job.kind in _WITH_PARAMETERS else []))
            return
        except (AttributeError, KeyError, TypeError, ValueError):
            pass  # written by another version, or by hand
    print_facts({key: str(value) for key, value in result.items()})


def _show(workspace: Workspace, job_id: str, options: Namespace) -> int:
    state = job_state(workspace, job_id)
    attempts = attempts_of(read_events(workspace.job_dir(job_id)))
    if attempts and not state.active:
        attempts[-1].status = state.status  # what was killed has no closing event
    if options.json:
        more = {"params": state.params, "attempts": [asdict(one) for one in attempts]}
        print_json(state.as_json() | more)
        return 0
    facts = {
        "job": state.job_id,
        "kind": state.kind,
        "status": state.status,
        "created": moment(state.created),
        "started": moment(state.started),
        "ended": moment(state.ended),
        "done": done_of(state.done, state.total, state.unit),
        "output": state.output or "",
        "details": _details(state),
        "hint": state.hint,
        **{f"attempt {one.number}": _attempt(one) for one in attempts if len(attempts) > 1},
        "parameters": str(state.params),
    }
    print_facts({key: value for key, value in facts.items() if value})
    return 0


def _attempt(attempt: Attempt) -> str:
    words = [attempt.status, f"since {moment(attempt.started or attempt.queued)}"]
    if attempt.started and attempt.ended:
        words.append(f"for {duration(attempt.ended - attempt.started)}")
    if attempt.total:
        words.append(done_of(attempt.done, attempt.total, attempt.unit))
    return ", ".join([*words, *([attempt.error] if attempt.error else [])])


def _cancel(workspace: Workspace, job_id: str, options: Namespace) -> int:
    before = cancel(workspace, job_id)
    if before.stopping:
        sentence = f"job {job_id} is stopping now"
    elif before.active:
        sentence = f"job {job_id} saves and stops; cancel it again to stop it immediately"
    else:
        sentence = f"job {job_id} is now cancelled"
    print_outcome(options.json, {"job_id": job_id, "stopping": before.active}, sentence)
    return 0


def _resume(workspace: Workspace, job_id: str, options: Namespace) -> int:
    resume(workspace, job_id)
    if not options.detach:
        return _watch(workspace, job_id, options)
    sentence = f"job {job_id} was resumed; follow it with mi-crow jobs watch {job_id}"
    print_outcome(options.json, {"job_id": job_id}, sentence)
    return 0


def _log(workspace: Workspace, job_id: str, options: Namespace) -> int:
    lines = tail_log(workspace, job_id, options.lines)
    traceback = _traceback(workspace, job_id) if options.debug else ""
    if options.json:
        value = {"job_id": job_id, "lines": lines}
        print_json(value | ({"traceback": traceback} if options.debug else {}))
    else:
        for line in (*lines, *traceback.splitlines()):
            print_line(line)
    return 0


def _traceback(workspace: Workspace, job_id: str) -> str:
    """Where the latest attempt failed in the program; empty when it did not."""
    events = read_events(workspace.job_dir(job_id))
    last = next((event for event in reversed(events) if event["event"] in CLOSING), {})
    return str(last.get("traceback") or "")


def _remove(workspace: Workspace, job_id: str, options: Namespace) -> int:
    folders = remove_job(workspace, job_id, force=options.force)
    value = {"job_id": job_id, "removed": folders}
    print_outcome(options.json, value, f"deleted {', '.join(folders)}")
    return 0


def _only_job(workspace: Workspace, action: str) -> str:
    """The only job that `action` can apply to. Raises UserError."""
    states = list_jobs(workspace)
    meant = {
        "watch": [s for s in states if s.active],
        "cancel": [s for s in states if s.active],
        "resume": [s for s in states if s.resumable and not s.active],
        "rm": [s for s in states if not s.active],
    }.get(action, states[-1:])
    if len(meant) == 1:
        return meant[0].job_id
    if not meant:
        raise UserError(f"there is no job to {action}", hint="mi-crow jobs lists all jobs")
    known = ", ".join(state.job_id for state in meant)
    raise UserError(f"{len(meant)} jobs qualify", hint=f"name one: {known}")


_ACTIONS = {
    "list": CommandAction("list all jobs (default)", _list),
    "watch": CommandAction("follow a job until it ends", _watch),
    "show": CommandAction("show the details of a job", _show),
    "cancel": CommandAction("save and stop a job; a second cancel stops it immediately", _cancel),
    "resume": CommandAction("resume a lost, cancelled or failed job", _resume),
    "log": CommandAction("print the last lines of a job's log", _log),
    "rm": CommandAction("delete a job that has ended and its unfinished output", _remove),
    "devices": CommandAction(
        "show what this machine's devices do, which job has each, and which wait", _devices
    ),
}
