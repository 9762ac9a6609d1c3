"""The rows of the three lists, from summaries to cells; pure."""

from collections.abc import Container, Sequence
from typing import TYPE_CHECKING

from mi_crow.store.unreadable import Unreadable
from mi_crow.store.workspace import RunSummary, SaeSummary
from tui.text import count, duration, moment, number, printable, progress_bar, short_moment, size
from tui.widgets.lists.row_list import Cell, Row

if TYPE_CHECKING:
    from mi_crow.jobs import JobState
    from mi_crow.jobs.removing import Unfinished

WHAT = {"runs": "run", "saes": "SAE"}  # as the store calls what a list holds

STATUS_STYLES = {
    "queued": "$muted",
    "running": "$accent",
    "finished": "$success",
    "failed": "$error",
    "cancelled": "$muted",
    "lost": "$warning",
    "unreadable": "$error",
}


def run_rows(runs: Sequence[RunSummary], jobs: "Sequence[JobState]" = ()) -> list[Row]:
    """Newest first; a run that is not complete says so, and whether one of the jobs writes it."""
    active = [job for job in jobs if job.active]
    written = {name for job in active if job.kind == "capture" for name in (job.output, job.name)}
    written |= {job.kind for job in active if job.kind == "demo"}  # which calls its run so

    def unfinished(run: RunSummary) -> tuple[tuple[str, str], ...]:
        if run.manifest.complete:
            return ()
        writes = run.run_id in written
        return (("  capturing", "$accent") if writes else ("  incomplete", "$warning"),)

    return [
        Row(
            run.run_id,
            (
                Cell(printable(run.run_id), more=unfinished(run)),
                Cell(short_model(run.manifest.model_id), "$muted"),
                Cell(
                    count(run.manifest.n_tokens),
                    "" if run.manifest.complete else "$accent",
                    value=run.manifest.n_tokens,
                ),
                Cell(str(n_layers := len(run.manifest.layers)), "$muted", value=n_layers),
                Cell(size(run.bytes), "$muted", value=run.bytes),
                Cell(count(run.manifest.n_documents), "$muted", value=run.manifest.n_documents),
                Cell(run.manifest.dtype, "$muted"),
                Cell(printable(str(run.manifest.dataset.get("source") or "–")), "$muted"),
                _moment(run.manifest.created),
            ),
        )
        for run in reversed(runs)
    ]


def sae_rows(
    saes: Sequence[SaeSummary], open_id: str | None, marked: Container[str] = ()
) -> list[Row]:
    """Newest first; a dot before those that are marked, and the open one says that it is."""
    return [
        Row(
            sae.sae_id,
            (
                Cell(
                    "● " if sae.sae_id in marked else "",
                    "$accent",
                    (
                        (printable(sae.sae_id), "$foreground"),
                        (" ◂ open" if sae.sae_id == open_id else "", "$primary"),
                    ),
                    sae.sae_id.casefold(),
                ),
                Cell(short_model(sae.model_id), "$muted"),
                Cell(count(sae.n_latents), value=sae.n_latents),
                Cell(str(sae.k) if sae.k is not None else "–", "$muted", value=sae.k),
                _measured(sae, "fvu"),
                Cell("yes", "$success") if sae.has_index else Cell("–", "$faint"),
                _measured(sae, "l0", 1),
                _measured(sae, "dead_share"),
                _measured(sae, "loss_recovered"),
                Cell(printable(sae.architecture), "$muted"),
                Cell(printable(sae.layer) or "–", "$muted"),
                Cell(printable(sae.run_id or "–"), "$muted"),
                Cell(size(sae.bytes), "$muted", value=sae.bytes),
            ),
        )
        for sae in reversed(saes)
    ]


def broken_rows(
    unreadable: Sequence[Unreadable], unfinished: "Sequence[Unfinished]", columns: int
) -> list[Row]:
    """What cannot be read, and folders of runs or SAEs that are unfinished; the detail says why,
    and what to do with them."""
    marked = [(one.name, ("  unreadable", "$error")) for one in unreadable]
    marked += [(one.name, ("  unfinished", "$warning")) for one in unfinished]
    nothing = [Cell("–", "$faint")] * (columns - 1)
    return [Row(name, (Cell(printable(name), more=(word,)), *nothing)) for name, word in marked]


def job_rows(jobs: "Sequence[JobState]") -> list[Row]:
    """Newest first; a running one shows its bar and the time it has left, and what it does now
    where it says so."""
    return [
        Row(
            job.job_id,
            (
                Cell(job_name(job), more=_what(job)),
                _state(job),
                _time(job),
                _moment(job.created),
                _took(job),
                Cell(str(job.attempt), "$muted", value=job.attempt),
                Cell(printable(job.device), "$muted"),
                Cell(printable(job.job_id), "$faint"),
            ),
        )
        for job in reversed(jobs)
    ]


def job_name(job: "JobState") -> str:
    """What a job does; its id, where its files do not say."""
    return printable(job.job_id if job.status == "unreadable" else job.kind)


def job_target(job: "JobState") -> str:
    """What a job works on or makes, in a word."""
    params = job.params
    for name in (job.output, job.name, params.get("name"), params.get("sae_id")):
        if name:
            return printable(str(name))
    return ""


def _what(job: "JobState") -> tuple[tuple[str, str], ...]:
    """What a job works on, and what it does now."""
    stage = "" if job.stopping else printable(job.stage)
    words = (job_target(job), "$muted"), (stage, "$accent")
    return tuple((f"  {word}", style) for word, style in words if word)


def short_model(model_id: str) -> str:
    """A model's name without its owner or folder."""
    return printable(model_id.rstrip("/").rsplit("/", 1)[-1])


def _measured(sae: SaeSummary, name: str, digits: int = 3) -> Cell:
    """What an evaluation measured on held-out text; in italics what the training or an
    import's check did."""
    value = (sae.evaluation or sae.trained or sae.checked).get(name)
    if not isinstance(value, int | float):
        return Cell("–", "$muted")
    return Cell(number(value, digits), "$muted" if sae.evaluation else "italic $muted", value=value)


def _moment(seconds: float) -> Cell:
    return Cell(moment(seconds) if seconds else "–", "$faint", value=seconds or None)


def _took(job: "JobState") -> Cell:
    end = job.ended or job.heartbeat
    seconds = end - job.started if job.started and end else None
    return Cell(duration(seconds) if seconds is not None else "–", "$muted", value=seconds)


def _state(job: "JobState") -> Cell:
    if job.stopping:
        return Cell("stopping", "$warning")
    if job.status == "running" and job.share is not None:
        done, left = progress_bar(job.share, 9)
        percent = f" {100 * job.share:3.0f}%"
        return Cell(done, "$accent", ((left, "$rule"), (percent, "$accent")), job.status)
    return Cell(job.status, STATUS_STYLES.get(job.status, ""))


def _time(job: "JobState") -> Cell:
    when = job.ended or job.created
    if job.status == "running":
        left = duration(job.eta_s) if job.eta_s is not None and not job.stopping else ""
        return Cell(left, "$accent", value=when)
    return Cell(short_moment(when) if when else "", "$faint", value=when)
