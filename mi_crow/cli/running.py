"""Running a command's work as a job: started, followed to its end, its result printed."""

from argparse import Namespace
from collections.abc import Callable
from typing import Any

from mi_crow.cli.arguments import slurm_of
from mi_crow.cli.following import EXIT_DETACHED, JobFailedError, follow_job
from mi_crow.cli.formatting import print_json
from mi_crow.cli.rollback import Rollback
from mi_crow.cli.streams import out
from mi_crow.cli.tables import print_result
from mi_crow.errors import MiCrowError, UserError
from mi_crow.jobs import submit
from mi_crow.jobs.distributed.launchers import check_ranked
from mi_crow.jobs.kinds import kind_of
from mi_crow.jobs.launch import forget
from mi_crow.jobs.spec import config_as_json
from mi_crow.ranks import is_launched, launched_world
from mi_crow.store.workspace import Workspace


def run_job(
    workspace: Workspace,
    kind: str,
    config: Any,
    options: Namespace,
    show: Callable[[dict[str, Any]], None],
) -> int:
    """Starts a job with the settings `config` and, unless --detach is given, follows it and prints
    its result. Gives the exit code.

    Raises the job's failure; after a user error that made nothing, the workspace is left as it was.
    Under torchrun there is no job: its processes share the work in the foreground.
    """
    if is_launched():
        if kind_of(kind).ranked:
            from mi_crow.cli.torchrun import run_in_ranks

            return run_in_ranks(workspace, kind, config, options, show)
        check_ranked(kind, launched_world())
    rollback = Rollback(workspace)
    if options.launcher == "torchrun" and options.nproc is None:
        raise UserError(
            f"--launcher {options.launcher} needs a number of processes", hint="--nproc N"
        )
    slurm = slurm_of(options)
    try:
        job_id = submit(
            workspace,
            kind,
            config_as_json(config),
            name=getattr(options, "name", None),
            after=options.after,
            launcher=options.launcher,
            nproc=options.nproc or 1,
            slurm=slurm,
        )
    except MiCrowError:  # maybe refused by Slurm, which is only asked once there is a folder
        rollback.undo()
        raise
    if options.detach:
        _say_detached(workspace, job_id, options.json)
        return 0
    try:
        result = follow_job(workspace, job_id, quiet=options.json)
    except JobFailedError as error:
        if error.exit_code == UserError.exit_code and forget(workspace, job_id):
            rollback.undo()
        raise
    if result is None:
        return EXIT_DETACHED
    return print_result(options.json, result, show)


def start_job(workspace: Workspace, kind: str, config: Any, options: Namespace) -> int:
    """Starts a job on this machine without following it; says how to. Gives the exit code.

    Raises UserError, with nothing written, for what cannot work.
    """
    params = config_as_json(config)
    job_id = submit(workspace, kind, params, name=getattr(options, "name", None))
    _say_detached(workspace, job_id, options.json)
    return 0


def _say_detached(workspace: Workspace, job_id: str, as_json: bool) -> None:
    if as_json:
        print_json({"job_id": job_id, "workspace": str(workspace.root)})
    else:
        out().write(f"started job {job_id}; follow it with mi-crow jobs watch {job_id}\n")
