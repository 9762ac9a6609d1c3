"""What the detail pane says about a job: how far it is, what it measured, what came of it; pure."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from math import isfinite
from typing import TYPE_CHECKING, Any

from textual.content import Content

from mi_crow.errors import CorruptDataError
from mi_crow.memory import READINGS
from mi_crow.progress import done_of, several
from mi_crow.store.evaluation_file import check_evaluation
from mi_crow.store.json_object import JsonObject
from tui.flags import of_a_job
from tui.preferences.key_words import key
from tui.screens.beginnings import in_columns
from tui.screens.runs.charts import JobHistory, gauge_facts, series_charts
from tui.screens.runs.detail import (
    NARROW_COLUMNS,
    TWO_COLUMNS,
    chart_lines,
    heading,
    metric,
    settings,
)
from tui.screens.runs.figures.tables import topics_table
from tui.screens.runs.rows import STATUS_STYLES, job_name, job_target
from tui.screens.runs.sae_view import measured
from tui.text import duration, moment, number, printable, progress_bar, size
from tui.widgets.facts import Fact, blocks, facts_content, section
from tui.widgets.frame.endings import why_it_ended

if TYPE_CHECKING:
    from mi_crow.jobs import JobState

_CHARTS_SHARE = 0.45  # of a large pane, also where what is below has to be scrolled to

# Metrics in the order of interest, with the name shown.
_METRICS = {
    "fvu": "FVU",
    "loss": "loss",
    "l0": "L0",
    "dead_share": "dead",
    "tokens_s": "tokens/s",
    "documents_s": "documents/s",
    "gpu_memory": "GPU memory",
    "memory": "memory",
}
# What results call what they made and measured, where a person would say it in other words.
_WORDS = {
    "unread": "answers not readable",
    "of_earlier_index": "of an earlier index",
    "run_id": "run",
    "points": "hook points",
    "layers": "modules",
    "sae_id": "SAE",
    "model_id": "model",
    "fvu": "FVU",
    "fvu_all": "FVU, all tokens",
    "l0": "L0",
    "dead_share": "dead latents",
    "dense_share": "dense latents",
    "n_latents": "latents",
    "outlier_share": "outliers",
    "ce_added": "CE added",
    "ce_added_before": "CE added before",
    "random_sae_auroc": "AUROC, random SAE",
    "residual_auroc": "AUROC, residual",
    "kl": "KL",
    "share_baseline": "on topic, baseline",
    "share_steered": "on topic, steered",
    "share_random": "on topic, random",
    "seconds": "took",
    "bytes": "on disk",
}


def job_detail(
    job: "JobState",
    history: JobHistory | None,
    width: int,
    height: int,
    *,
    tall: bool,
    aside: bool = False,
    apart: int = 0,
    about: Content | None = None,
) -> Content:
    """One job: progress, metrics and settings; plots and log where there is room; and `about`, what
    is known of the run or SAE that it made or works on.

    `width` and `height` are the pane's, in cells. `tall`: there is room for more of everything.
    `aside`: the gauges and the log are beside it already; `apart`: so many parts of what
    `job_apart` tells are, too.
    """
    title = heading(f"{job_name(job)} {job_target(job)}".strip(), _job_line(job, history))
    parts: list[Content | None] = [Content("\n").join([title, *_bar(job, width)])]
    if why := of_a_job(job.error or "") or why_it_ended(job):
        hint = f"\n{of_a_job(job.hint)}" if job.hint else ""
        parts.append(
            Content.assemble(
                (printable(why), "$error"), (printable(hint, keep_newlines=True), "$muted")
            )
        )
    metrics = metric_facts(job.metrics, ended=not job.active)
    if metrics:
        parts.append(_in_columns(metrics, width))
    if history is not None and not aside:
        parts.append(facts_content(gauge_facts(history.gauges), 11, width))
    told, *attempts = job_apart(job, history, width)
    below: list[Content | None] = [*attempts] if apart < 2 else []
    if job.result and job.status == "finished":
        below += _result(job.kind, job.result, width)
    if history is not None and history.log and not aside and (tall or job.error):
        lines = [Content.styled(printable(line), "$muted") for line in history.log[-12:]]
        below.append(section("Log", Content("\n").join(lines)))
    below += [] if apart else [told]
    below.append(about)
    if history is not None:
        unit, total = history.over
        least = chart_lines(height, 7) if tall else 3
        rest = height - _lines(parts) - _lines(below) - 3
        room = max(rest, int(height * _CHARTS_SHARE)) if tall else 0
        ended = not job.active
        parts.append(
            series_charts(
                history.series,
                several(unit),
                total,
                width,
                least,
                ended=ended,
                room=room,
                earlier=history.earlier,
            )
        )
    return blocks(*parts, *below)


def job_apart(job: "JobState", history: JobHistory | None, width: int) -> list[Content]:
    """Its settings, and its attempts where there were several."""
    attempts = _attempts(job, history) if history is not None else None
    told = section("Settings", settings(job.params, width, NARROW_COLUMNS))
    return [told] if attempts is None else [told, attempts]


def _lines(parts: Sequence[Content | None]) -> int:
    return len(blocks(*parts).plain.splitlines())


def _in_columns(metrics: Sequence[Fact], width: int) -> Content:
    """The metrics under one another; beside one another where there is room."""
    if width < TWO_COLUMNS:
        return facts_content(metrics, 11, width)
    names = max(len(one.name) for one in metrics) + 2
    cells = [Content.assemble((f"{one.name:<{names}}", "$muted"), one.value) for one in metrics]
    return in_columns(cells, width, max(one.cell_length for one in cells) + 2)


def subject_of(job: "JobState") -> tuple[str, str]:
    """What a job made or works on: "runs" or "saes", and its id; empty where it is neither."""
    result = job.result or {}
    if job.kind == "capture":
        return "runs", str(job.output or job.name or "")
    made = job.output or job.name if job.kind in ("train", "import") else None
    if job.kind == "train" and job.status != "finished":
        return "runs", str(job.params.get("run_id") or "")
    return "saes", str(made or result.get("sae_id") or job.params.get("sae_id") or "")


def _result(kind: str, result: Mapping[str, Any], width: int) -> list[Content]:
    """What a job found. That of an evaluation as the SAE shows it."""
    if kind == "evaluate":
        with suppress(CorruptDataError):
            check_evaluation(JsonObject.of(result, "the result"))
            return measured(result, {}, width)
    topics, steering = topics_table(result.get("topics"), width), result.get("steering")
    known = {"stages"}  # what forms expect of the next job by
    known |= {"topics"} if topics is not None else set()
    known |= {"steering"} if isinstance(steering, Mapping) else set()
    rest = {name: one for name, one in result.items() if name not in known}
    parts = [section("Result", settings(in_words(rest), width))]
    parts += [topics] if topics is not None else []
    if isinstance(steering, Mapping):
        parts.append(section("Steered with one of them", settings(in_words(steering), width)))
    return parts


def in_words(result: Mapping[str, Any]) -> dict[str, Any]:
    """A result with its names and values as people say them."""
    return {_WORDS.get(name, name.replace("_", " ")): _said(name, result[name]) for name in result}


def _said(name: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return in_words(value)
    if isinstance(value, list) and any(isinstance(one, Mapping) for one in value):
        return f"{len(value):,}"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    if not isfinite(value):
        return str(value)
    if name == "feature":
        return f"#{value}"
    if name == "seed":
        return str(value)
    if name == "seconds":
        return duration(value)
    if name == "unread" and value:
        return f"{value:,}; run it again to ask for these"
    if name == "bytes":
        return size(value)
    if name.endswith("_share") or name.startswith("share_"):
        return f"{100 * value:.1f}%"
    return f"{value:,}" if isinstance(value, int) else value


def _attempts(job: "JobState", history: JobHistory) -> Content | None:
    """Each attempt on a line; nothing where there was only one."""
    if len(history.attempts) < 2:
        return None
    lines = []
    for one in history.attempts:
        last = one is history.attempts[-1]
        status = job.status if last else one.status
        words = [moment(one.started or one.queued)]
        if one.started and one.ended:
            words.append(f"after {duration(one.ended - one.started)}")
        if one.total:
            words.append(done_of(one.done, one.total, one.unit))
        words += [printable(word) for word in (one.host, one.error) if word]
        style = STATUS_STYLES.get(status, "$muted")
        line = (f"{one.number:<3}", "$muted"), (f"{status:<11}", style), " · ".join(words)
        lines.append(Content.assemble(*line))
    return section("Attempts", Content("\n").join(lines))


def metric_facts(metrics: Mapping[str, float], *, ended: bool = False) -> list[Fact]:
    """The metrics of a job, the known ones first and under their usual names."""
    names = [name for name in _METRICS if name in metrics]
    names += sorted(name for name in metrics if name not in (*_METRICS, *READINGS))
    return [
        Fact(_METRICS.get(name, printable(name)), _with_peak(name, metrics, ended))
        for name in names
    ]


def _with_peak(name: str, metrics: Mapping[str, float], ended: bool) -> str:
    peak, now = metrics.get(f"{name}_peak"), metric(name, metrics[name])
    if peak is None or name not in READINGS:
        return now
    if ended:
        return f"at most {size(max(peak, metrics[name]))}"
    return f"{now}, at most {size(peak)} so far"


def _job_line(job: "JobState", history: JobHistory | None) -> str:
    words = ["stopping" if job.stopping else job.status]
    if job.status == "queued" and job.waiting_for:
        words.append(f"waits for {printable(job.waiting_for)}")
    if job.stage and not job.stopping:
        words.append(printable(job.stage))
    if job.attempt > 1:
        words.append(f"attempt {job.attempt}")
    if job.status == "running" and job.eta_s is not None and not job.stopping:
        words.append(f"{duration(job.eta_s)} left")
    if job.ended and job.started:
        words.append(f"after {duration(job.ended - job.started)}")
    if job.status in ("lost", "failed", "cancelled") and job.resumable:
        anew = history is not None and not history.goes_on
        saved = "what was downloaded is used" if job.kind == "import" else "nothing was saved"
        does = f"starts it again, {saved}" if anew else "resumes it"
        words.append(f"{key('runs.resume')} {does}")
    return " · ".join(words)


def _bar(job: "JobState", width: int) -> list[Content]:
    if job.share is None or job.status == "finished":
        return []
    done, left = progress_bar(job.share, max(width - 6, 8))
    style = STATUS_STYLES.get(job.status, "$accent")
    bar = Content.assemble((done, style), (left, "$rule"), (f" {100 * job.share:3.0f}%", style))
    if job.unit == "%":
        return [bar]
    rate = f" · {number(job.rate, 1)} {several(job.unit)}/s" if job.rate else ""
    return [bar, Content.styled(f"{done_of(job.done, job.total, job.unit)}{rate}", "$muted")]
