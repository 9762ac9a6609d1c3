"""Jobs: detached processes whose whole state is a folder, and the calls that viewers make on it.

Torch-free except for the work inside the runner. Names load on first use.
"""

from typing import TYPE_CHECKING, Any

from mi_crow.lazy import lazy_exports

if TYPE_CHECKING:
    from mi_crow.jobs.launch import cancel, resume, submit
    from mi_crow.jobs.status import JobState, job_state, list_jobs, scan_jobs
    from mi_crow.jobs.watch import follow, tail_log

_EXPORTS = {
    "JobState": "mi_crow.jobs.status",
    "cancel": "mi_crow.jobs.launch",
    "follow": "mi_crow.jobs.watch",
    "job_state": "mi_crow.jobs.status",
    "list_jobs": "mi_crow.jobs.status",
    "scan_jobs": "mi_crow.jobs.status",
    "resume": "mi_crow.jobs.launch",
    "submit": "mi_crow.jobs.launch",
    "tail_log": "mi_crow.jobs.watch",
}

__all__ = [
    "JobState",
    "cancel",
    "follow",
    "job_state",
    "list_jobs",
    "resume",
    "scan_jobs",
    "submit",
    "tail_log",
]


def __getattr__(name: str) -> Any:
    return lazy_exports(__name__, _EXPORTS, name)
