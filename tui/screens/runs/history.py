"""Reading what a job or an SAE holds beyond its summary, in a thread; of a job only what is new."""

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mi_crow.errors import MiCrowError
from mi_crow.mechanistic.sae.evaluation.standing import standing_of, training_of
from mi_crow.store.json_file import read_json
from mi_crow.store.json_object import JsonObject
from mi_crow.store.notes import read_note
from mi_crow.store.workspace import RunSummary, SaeSummary, Workspace
from tui.screens.runs.charts import Indexed, JobHistory, RunReading, SaeReading
from tui.widgets.plot import Point

if TYPE_CHECKING:
    from mi_crow.jobs import JobState
    from mi_crow.jobs.events import Attempt, EventReader
    from mi_crow.jobs.gauges import Gauges
    from mi_crow.mechanistic.features.queries import FeatureStore

LOG_LINES = 40
_METRICS = "metrics.parquet"
_MAX_POINTS = 20_000
_GAUGE_S = 5.0  # the machine is asked this often


class HistoryReader:
    """Follows the events of one job after another; `read` is called from one thread at a time."""

    def __init__(self, workspace: Workspace, subjects: "SubjectReader | None" = None) -> None:
        self._workspace = workspace
        self._subjects = subjects or SubjectReader()
        self._job_id = ""
        self._events: EventReader | None = None
        self._series: dict[str, dict[str, list[Point]]] = {}  # by the unit that they are over
        self._totals: dict[str, float] = {}
        self._earlier: set[tuple[str, str]] = set()  # unit and metric, not told by this attempt
        self._attempts: list[Attempt] = []
        self._saved = False  # something, by any of the attempts
        self._gauges: Gauges | None = None
        self._asked = -_GAUGE_S

    def read(self, job: "JobState", about: "Subject | None" = None) -> JobHistory:
        """The metrics so far, the end of the log, what the machine does while the job runs on it,
        and what there is to read `about` what it made. Raises NotFoundError for no such job."""
        from mi_crow.jobs import tail_log
        from mi_crow.jobs.events import OPENING, EventReader, add_event

        job_id = job.job_id
        if job_id != self._job_id or self._events is None:
            self._events = EventReader(self._workspace.job_dir(job_id))
            self._job_id, self._series, self._attempts, self._saved = job_id, {}, [], False
            self._totals, self._earlier = {}, set()
        for event in self._events.read_new():
            add_event(self._attempts, event)
            if event["event"] in OPENING:
                self._earlier = {(unit, name) for unit, own in self._series.items() for name in own}
            self._saved = self._saved or event["event"] == "checkpoint"
            metrics = event.get("metrics")
            if event["event"] == "progress" and isinstance(metrics, dict):
                self._add(event, metrics)
        unit = self._longest()
        return JobHistory(
            job_id,
            {name: tuple(points) for name, points in self._series.get(unit, {}).items()},
            (unit, self._totals.get(unit, 0.0)),
            tuple(tail_log(self._workspace, job_id, LOG_LINES)),
            tuple(replace(attempt) for attempt in self._attempts),
            self._machine(job),
            self._subjects.read(about) if about is not None else None,
            frozenset(name for of, name in self._earlier if of == unit),
            self._saved and self._has_output(job),
        )

    def _has_output(self, job: "JobState") -> bool:
        """Whether what a job has begun to make, if it makes anything, was not removed."""
        from mi_crow.jobs.kinds import KINDS

        makes = KINDS[job.kind].makes if job.kind in KINDS else None
        if makes is None:
            return True
        return job.output is not None and (self._workspace.parent_of(makes) / job.output).is_dir()

    def _add(self, event: Mapping[str, Any], metrics: dict[str, object]) -> None:
        done, unit = float(event.get("done", 0)), str(event.get("unit", ""))
        total = event.get("total")
        self._totals[unit] = float(total) if isinstance(total, int | float) else 0.0
        for name, value in metrics.items():
            if isinstance(value, int | float):
                self._earlier.discard((unit, name))
                points = self._series.setdefault(unit, {}).setdefault(name, [])
                while points and points[-1][0] >= done:  # resumed from an earlier step
                    points.pop()
                points.append((done, float(value)))
                del points[:-_MAX_POINTS]

    def _longest(self) -> str:
        """The unit that has the most points: parts of a job count in other things."""
        points = {unit: sum(map(len, own.values())) for unit, own in self._series.items()}
        return max(points, key=lambda unit: points[unit], default="")

    def _machine(self, job: "JobState") -> "Gauges | None":
        from mi_crow.jobs import gauges
        from mi_crow.jobs.process import host_name

        if job.status != "running" or job.process is None or job.process.host != host_name():
            return None

        if time.monotonic() - self._asked >= _GAUGE_S:
            self._gauges = gauges.read_gauges()
            self._asked = time.monotonic()
        return self._gauges


@dataclass(frozen=True)
class Subject:
    """A run or an SAE, and what is known around it."""

    summary: RunSummary | SaeSummary
    saes: Sequence[SaeSummary]  # of the workspace
    store: "FeatureStore | None" = None  # the open index


class SubjectReader:
    """Reads runs and SAEs; called from one thread at a time."""

    def __init__(self) -> None:
        self._held: tuple[object, RunReading | SaeReading] | None = None  # of what, and as it was
        self._known: tuple[FeatureStore, object, Indexed] | None = None

    def read(self, subject: Subject) -> RunReading | SaeReading:
        """What the files hold of the subject now. Files that have not changed are not read again:
        a job that reports itself asks every second."""
        summary, store = subject.summary, subject.store
        reading = self._read(summary, subject.saes)
        if store is None or not isinstance(reading, SaeReading) or store.sae_id != reading.sae_id:
            return reading
        return replace(reading, indexed=self._indexed(store))

    def _read(
        self, summary: RunSummary | SaeSummary, saes: Sequence[SaeSummary]
    ) -> RunReading | SaeReading:
        what = summary, saes, _marks(summary.path)
        if self._held is not None and self._held[0] == what:
            return self._held[1]
        run = isinstance(summary, RunSummary)
        reading = read_run(summary, saes) if run else read_sae(summary, saes)
        if not isinstance(reading, RunReading) or reading.trouble is None:  # it may pass
            self._held = what, reading
        return reading

    def _indexed(self, store: "FeatureStore") -> Indexed:
        from tui.screens.beginnings import telling_features
        from tui.screens.runs.figures.spread import activation_spread, density_spread

        store.refresh_concepts()
        known, named = self._known, store.named()
        if known is None or known[0] is not store or known[1] is not named:
            density, greatest = store.figures()
            silent = int((density == 0).sum())
            rows = tuple(telling_features(store))
            spreads = tuple(filter(None, (density_spread(density), activation_spread(greatest))))
            named_ones, tokens = len(store.concepts()), store.meta().n_tokens
            indexed = Indexed(rows, named_ones, silent, tokens, spreads)
            self._known = known = store, named, indexed
        return known[2]


def _marks(folder: Path) -> list[tuple[str, int, int, int]]:
    """Names, times, sizes and inodes of the files in a folder: equal ones have not changed."""
    found: list[tuple[str, int, int, int]] = []
    with suppress(OSError):  # gone, or about to be: what is left is read, and says so
        for entry in os.scandir(folder):
            one = entry.stat(follow_symlinks=False)
            found.append((entry.name, one.st_mtime_ns, one.st_size, one.st_ino))
    return sorted(found)


def read_run(run: RunSummary, saes: Sequence[SaeSummary]) -> RunReading:
    """The note on a run, a look into its documents, and how good the SAEs trained on it are."""
    from mi_crow.store.runs.glance import glance_at

    standings = tuple(standing_of(sae) for sae in saes if sae.run_id == run.run_id)
    note = read_note(run.path)
    try:
        glance = glance_at(run.path, run.manifest)
    except (MiCrowError, OSError) as error:
        return RunReading(run.run_id, note, None, standings, error)
    return RunReading(run.run_id, note, glance, standings)


def read_sae(sae: SaeSummary, saes: Sequence[SaeSummary]) -> SaeReading:
    """The note on an SAE, how its training went, and how good the SAEs on its layer are."""
    same = [one for one in saes if (one.model_id, one.layer) == (sae.model_id, sae.layer)]
    return SaeReading(
        sae.sae_id,
        read_note(sae.path),
        training_of(sae),
        _said(sae),
        tuple(standing_of(one) for one in same),
        curves_of(sae),
        config=_config(sae),
        files=_files(sae.path),
    )


def _said(sae: SaeSummary) -> dict[str, Any]:
    """What the SAE's file says of the texts it is for and of its origin; only values of the right
    types, none where it cannot be read."""
    try:
        config = JsonObject.of(read_json(sae.path / "cfg.json"), "cfg.json")
        metadata = config.object("metadata", {})
        own = metadata.object("mi_crow", {})
    except (MiCrowError, OSError):
        return {}
    said = {**metadata.values, **own.values}
    kinds = {
        "source": str,
        "format": str,
        "context_size": int,
        "prepend_bos": bool,
        "outlier_norm": float,
    }
    return {key: said[key] for key, kind in kinds.items() if type(said.get(key)) is kind}


# What a configuration says of how the SAE computes, and how a person says it.
_CONFIG = {
    "architecture": "architecture",
    "d_in": "inputs",
    "d_sae": "latents",
    "k": "k",
    "dtype": "dtype",
    "normalize_activations": "normalisation",
    "apply_b_dec_to_input": "b_dec subtracted",
    "rescale_acts_by_decoder_norm": "decoder norms",
    "sae_lens_version": "written for",
}
_HOOK = "hook_name"


def _config(sae: SaeSummary) -> dict[str, str]:
    """What the SAE's file says of itself, in words; nothing where it cannot be read."""
    try:
        config = JsonObject.of(read_json(sae.path / "cfg.json"), "cfg.json")
        hook = config.object("metadata", {}).values.get(_HOOK)
    except (MiCrowError, OSError):
        return {}
    found = {"hook": hook} if isinstance(hook, str) else {}
    for name, words in _CONFIG.items():
        value = config.values.get(name)
        if isinstance(value, bool):
            found[words] = "yes" if value else "no"
        elif isinstance(value, str | int | float):
            found[words] = f"SAELens {value}" if name == "sae_lens_version" else str(value)
    return found


def _files(folder: Path) -> dict[str, int]:
    """Bytes by file, of a folder of files together; nothing of a folder that cannot be read."""
    found: dict[str, int] = {}
    try:
        for path in folder.iterdir():
            if path.name.startswith("."):
                continue
            if path.is_dir():
                inside = [one for one in path.rglob("*") if one.is_file()]
                found[f"{path.name}/"] = sum(one.stat().st_size for one in inside)
            elif path.is_file():
                found[path.name] = path.stat().st_size
    except OSError:
        return {}
    return found


def why_no_curves(sae: SaeSummary) -> str:
    """Why nothing of its training can be drawn, where `curves_of` gives nothing."""
    if (sae.path / _METRICS).is_file():
        return f"{_METRICS} cannot be read"
    return f"{_METRICS} is gone" if training_of(sae) else "not trained here"


def curves_of(sae: SaeSummary) -> dict[str, tuple[Point, ...]]:
    """What was logged while the SAE was trained; nothing without a readable file."""
    path = sae.path / _METRICS
    if not path.is_file():
        return {}
    from mi_crow.mechanistic.sae.train.metrics import glance_at_rows

    try:
        rows = glance_at_rows(path)
    except (MiCrowError, OSError):
        return {}
    found: dict[str, list[Point]] = {}
    for row in rows:
        for name, value in row.items():
            if value is not None and name != "step":
                found.setdefault(name, []).append((float(row["step"] or 0), float(value)))
    return {name: tuple(points) for name, points in found.items()}
