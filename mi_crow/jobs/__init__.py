"""Jobs: detached processes whose whole state is a folder, and the calls that viewers make on it.

Torch-free except for the work inside the runner. Names load on first use.
"""

from typing import TYPE_CHECKING

from mi_crow.lazy import Getter, lazy_exports

if TYPE_CHECKING:
    from mi_crow.jobs.launch import cancel, resume, submit
    from mi_crow.jobs.status import JobState, job_state, list_jobs, scan_jobs
    from mi_crow.jobs.watch import follow, tail_log

__getattr__: Getter = lazy_exports(
    __name__,
    {
        "launch": ("cancel", "resume", "submit"),
        "status": ("JobState", "job_state", "list_jobs", "scan_jobs"),
        "watch": ("follow", "tail_log"),
    },
)

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
