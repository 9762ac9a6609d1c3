"""Restores a training's metrics from its job's events when their file is damaged."""

from pathlib import Path
from typing import Any

from mi_crow.errors import CorruptDataError
from mi_crow.jobs.events import read_events
from mi_crow.jobs.status import list_jobs
from mi_crow.mechanistic.sae.train.checkpoint_writer import METRICS_NAME
from mi_crow.mechanistic.sae.train.metrics import MetricsTable, Row, read_rows
from mi_crow.progress import Progress
from mi_crow.store.workspace import Workspace


def repair_metrics(workspace: Workspace, sae_dir: Path, progress: Progress) -> None:
    """Rewrites a damaged `metrics.parquet` of an SAE with the readings in its training's events,
    which are fewer."""
    path = sae_dir / METRICS_NAME
    if not path.is_file():
        return
    try:
        read_rows(path)
    except CorruptDataError as error:
        rows = rows_of_events(workspace, sae_dir.name)
        if not rows:
            progress.log(
                f"{error}, and no job's events have its metrics: training continues without them"
            )
            path.unlink()
            return
        MetricsTable(rows).write(path)
        progress.log(f"{error}: restored {len(rows):,} readings from the job's events")


def rows_of_events(workspace: Workspace, sae_id: str) -> list[Row]:
    """One row per step reported by the jobs that train an SAE, in step order."""
    rows: dict[int, Row] = {}
    for job in list_jobs(workspace):
        if job.kind != "train" or job.output != sae_id:
            continue
        for event in read_events(workspace.jobs_dir / job.job_id):
            if (row := _row(event)) is not None:
                rows[int(row["step"] or 0)] = row
    return [rows[step] for step in sorted(rows)]


def _row(event: dict[str, Any]) -> Row | None:
    step, metrics = event.get("done"), event.get("metrics")
    if event["event"] != "progress" or type(step) is not int or not isinstance(metrics, dict):
        return None
    numbers = {name: float(value) for name, value in metrics.items() if type(value) in (int, float)}
    return {"step": step, **numbers} if numbers and event.get("unit") == "step" else None
