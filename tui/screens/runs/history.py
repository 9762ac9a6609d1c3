"""Reading a job's events and log for the detail pane, in a thread; only what is new is read."""

from typing import TYPE_CHECKING

from mi_crow.store.workspace import Workspace
from tui.screens.runs.detail import JobHistory

if TYPE_CHECKING:
    from mi_crow.jobs.events import EventReader

LOG_LINES = 40
_MAX_POINTS = 20_000


class HistoryReader:
    """Follows the events of one job after another; `read` is called from one thread at a time."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._job_id = ""
        self._events: EventReader | None = None
        self._series: dict[str, list[float]] = {}

    def read(self, job_id: str) -> JobHistory:
        """The metrics so far and the end of the log. Raises NotFoundError for no such job."""
        from mi_crow.jobs import tail_log
        from mi_crow.jobs.events import EventReader

        if job_id != self._job_id or self._events is None:
            self._events = EventReader(self._workspace.job_dir(job_id))
            self._job_id = job_id
            self._series = {}
        for event in self._events.read_new():
            metrics = event.get("metrics")
            if event["event"] == "progress" and isinstance(metrics, dict):
                for name, value in metrics.items():
                    if isinstance(value, int | float):
                        self._series.setdefault(name, []).append(float(value))
        series = {name: tuple(values[-_MAX_POINTS:]) for name, values in self._series.items()}
        return JobHistory(job_id, series, tuple(tail_log(self._workspace, job_id, LOG_LINES)))
