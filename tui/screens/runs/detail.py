"""What the detail pane says about a run, an SAE or a job; pure."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from textual.content import Content

from mi_crow.mechanistic.sae.evaluation.probe_rows import probe_rows
from mi_crow.mechanistic.sae.evaluation.standing import Standing
from mi_crow.memory import READINGS
from mi_crow.store.unreadable import Unreadable
from mi_crow.store.workspace import SaeSummary
from tui.preferences.key_words import key
from tui.screens.runs.charts import (
    JobHistory,
    SaeReading,
    gauge_facts,
    pareto,
    series_charts,
    training_charts,
)
from tui.screens.runs.rows import STATUS_STYLES, job_name, job_target
from tui.text import count, duration, moment, number, printable, progress_bar, size
from tui.widgets.facts import Fact, beside, blocks, facts_content, section

if TYPE_CHECKING:
    from mi_crow.jobs import JobState
    from mi_crow.jobs.removing import Unfinished

_NAMES: Final = 18  # cells of the names of settings
_TWO_COLUMNS: Final = 100  # cells of a pane
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


def unreadable_detail(found: Unreadable) -> Content:
    """Why a run or an SAE cannot be read."""
    title = heading(found.name, f"{found.what} · unreadable")
    return blocks(title, Content.styled(printable(found.reason), "$error"))


def unfinished_detail(unfinished: "Unfinished", jobs: "Sequence[JobState]", width: int) -> Content:
    """What an unfinished run or SAE is, and the jobs (newest last) that can finish it."""
    kind = {"run": "capture", "SAE": "train"}[unfinished.what]
    can = [
        job.job_id
        for job in jobs
        if job.kind == kind and job.resumable and unfinished.name in (job.output, job.name)
    ]
    facts = [
        Fact("size", size(unfinished.bytes)),
        Fact(
            "next",
            f"resume job {can[-1]}"
            if can
            else f"no job can finish it; {key('runs.remove')} removes it",
        ),
    ]
    title = heading(unfinished.name, f"{unfinished.what} · unfinished")
    return blocks(title, facts_content(facts, 11, width))


def sae_detail(
    sae: SaeSummary, reading: SaeReading | None, width: int, tall: bool = False
) -> Content:
    """Everything about one SAE; what its files hold besides (`reading`) follows when it is read."""
    ratio = sae.n_latents / sae.n_inputs if sae.n_inputs else 0
    facts = [
        Fact("model", printable(sae.model_id) or "–"),
        Fact("layer", printable(sae.layer) or "–"),
        Fact("run", printable(sae.run_id or "–")),
        *_origin(reading),
        Fact("latents", f"{sae.n_latents:,} from {sae.n_inputs:,} inputs ({ratio:g}×)"),
        Fact("k", _declared_k(sae)),
        Fact("size", size(sae.bytes)),
        Fact("next", _next(sae)),
        *note_facts(reading.note if reading else ""),
    ]
    index = "indexed" if sae.has_index else "no index yet"
    title = heading(sae.sae_id, f"{printable(sae.architecture)} SAE · {index}")
    return blocks(
        title,
        facts_content(facts, 11, width),
        *_measured(sae, reading, width),
        *_sae_charts(reading, width, 10 if tall else 5),
        *_training(reading, width),
    )


def _next(sae: SaeSummary) -> str:
    """What can be done with it that was not done yet, by key."""
    words = [] if sae.has_index else [f"{key('runs.new', 'new.index')} index"]
    words += [] if sae.evaluation is not None else [f"{key('runs.new', 'new.evaluate')} evaluate"]
    words += [f"{key('runs.compare')} compare", f"{key('runs.export')} export"]
    words.append(f"{key('runs.new', 'new.train')} train another")
    return " · ".join([f"{key('list.open')} features", *words] if sae.has_index else words)


def _origin(reading: SaeReading | None) -> list[Fact]:
    """Where an imported SAE comes from, and what its file says of the texts it is for."""
    said = reading.said if reading is not None else {}
    facts = []
    if source := said.get("source"):
        words = [str(source), *(str(said[name]) for name in ("format",) if said.get(name))]
        facts.append(Fact("imported", printable(" · ".join(words))))
    words = []
    if (context := said.get("context_size")) is not None:
        words.append(f"contexts of {context} tokens")
    if (bos := said.get("prepend_bos")) is not None:
        words.append("with BOS" if bos else "without BOS")
    if (norm := said.get("outlier_norm")) is not None:
        words.append(f"tokens up to a norm of {norm:.4g}")
    return [*facts, Fact("made for", printable(", ".join(words)))] if words else facts


def _declared_k(sae: SaeSummary) -> str:
    """k as the file says it, and beside it the L0 that was measured."""
    if sae.k is None:
        return "–"
    l0 = (sae.evaluation or {}).get("l0")
    measured = f" declared, L0 {l0:.1f} measured" if isinstance(l0, int | float) else ""
    return f"{sae.k}{measured}"


def _measured(sae: SaeSummary, reading: SaeReading | None, width: int) -> list[Content]:
    """The evaluation and its probes; before one, what training measured at its end."""
    if sae.evaluation is not None:
        result = reading.training.get("result") if reading is not None else None
        facts = _quality(sae.evaluation, result if isinstance(result, Mapping) else {})
        quality = section("On held-out text", facts_content(facts, 27, width))
        probes = _probes(sae.evaluation.get("probes") or {}, width)
        if probes and width >= _TWO_COLUMNS:
            return [beside(quality, probes[0], width)]
        return [quality, *probes]
    trouble = f"{printable(sae.evaluation_trouble)}\n" if sae.evaluation_trouble else ""
    evaluate = key("runs.new", "new.evaluate")
    words = f"{evaluate} evaluates it on held-out text"
    hint = Content.assemble((trouble, "$error"), (words, "$muted"))
    parts = [section("Not evaluated", hint)]
    standing = _own(sae, reading)
    if standing is not None and standing.source:
        facts = [
            Fact("FVU", number(standing.fvu)),
            Fact("L0", number(standing.l0, 1)),
            Fact("dead latents", metric("dead_share", standing.dead_share or 0.0)),
        ]
        parts.append(section("Held out, after training", facts_content(facts, 14, width)))
    return parts


def _own(sae: SaeSummary, reading: SaeReading | None) -> Standing | None:
    found = reading.standings if reading is not None else ()
    return next((one for one in found if one.sae_id == sae.sae_id), None)


def _sae_charts(reading: SaeReading | None, width: int, height: int) -> list[Content]:
    if reading is None:
        return []
    front = pareto(reading.standings, reading.sae_id, width, height)
    curves = training_charts(reading.curves, width, height)
    parts = [front] if front is not None else []
    return [*parts, section("Training", curves)] if curves.plain else parts


def _training(reading: SaeReading | None, width: int) -> list[Content]:
    """The settings that the SAE was trained with."""
    config = reading.training.get("config") if reading is not None else None
    if not isinstance(config, Mapping):
        return []
    return [section("Trained with", _settings(config, width))]


def _settings(values: Mapping[str, Any], width: int) -> Content:
    """The settings of a training or a job, in two columns where there is room."""
    facts = plain_facts(values)
    if width < _TWO_COLUMNS:
        return facts_content(facts, _NAMES, width)
    middle, half = (len(facts) + 1) // 2, width // 2
    first, second = (
        facts_content(some, _NAMES, half - 2) for some in (facts[:middle], facts[middle:])
    )
    return beside(first, second, width)


def note_facts(note: str) -> list[Fact]:
    """The note that somebody wrote, if there is one."""
    return [Fact("note", printable(note), "$accent")] if note else []


def _probes(found: Mapping[str, Any], width: int) -> list[Content]:
    """Probes for the labels on k latents, and on k of the activations' own dimensions."""
    rows = probe_rows(found)
    if not rows:
        return []
    ks = list(dict.fromkeys(k for row in rows for k in row.by_k))
    facts = [Fact("k", "".join(f"{k:7}" for k in (*ks, "all")).rstrip())]
    for row in rows:
        values = (*(row.by_k.get(k) for k in ks), row.everything)
        shown = ("–" if value is None else number(value, 3) for value in values)
        facts.append(Fact(row.probe, "".join(f"{reading:7}" for reading in shown).rstrip()))
    return [section("k-sparse probes", facts_content(facts, 22, width))]


def _quality(found: Mapping[str, Any], trained: Mapping[str, Any]) -> list[Fact]:
    """What an evaluation measured, with what the training had measured at its end."""

    def before(name: str) -> str:
        value = trained.get(name)
        if not isinstance(value, int | float):
            return ""
        return f"  ({metric(name, float(value))} after training)"

    def reading(name: str, digits: int = 3) -> str:
        value = found.get(name)
        return number(value, digits) if isinstance(value, int | float) else "–"

    def share(key: str) -> str:
        value = found.get(key)
        return f"{100 * value:.1f}%" if isinstance(value, int | float) else "–"

    losses = " / ".join(
        reading(key) for key in ("ce_original", "ce_reconstructed", "ce_zero") if key in found
    )
    facts = [
        Fact("FVU", reading("fvu") + before("fvu")),
        Fact("FVU, all tokens", f"{reading('fvu_all')}  ({share('outlier_share')} outliers)"),
        Fact("explained variance", reading("explained_variance")),
        Fact("cosine", reading("cosine")),
        Fact("L0", reading("l0", 1) + before("l0")),
        Fact("dead latents", share("dead_share") + before("dead_share")),
        Fact("dense latents", share("dense_share")),
        Fact("loss recovered", reading("loss_recovered")),
        Fact("KL", reading("kl", 4)),
        Fact("CE: original / SAE / zero", losses or "–"),
        Fact("CE with mean ablation", reading("ce_mean")),
        Fact("loss recovered (mean)", reading("loss_recovered_mean")),
    ]
    return [fact for fact in facts if not fact.value.startswith("–")]


def job_detail(
    job: "JobState", history: JobHistory | None, width: int, tall: bool, aside: bool = False
) -> Content:
    """One job: progress, metrics and settings; plots and log where there is room.

    `width` is the pane's, in cells. `aside`: the gauges and the log stand beside it already.
    """
    title = heading(f"{job_name(job)} {job_target(job)}".strip(), _job_line(job))
    parts: list[Content | None] = [Content("\n").join([title, *_bar(job, width)])]
    if job.error:
        hint = f"\n{job.hint}" if job.hint else ""
        parts.append(
            Content.assemble(
                (printable(job.error), "$error"), (printable(hint, keep_newlines=True), "$muted")
            )
        )
    metrics = metric_facts(job.metrics)
    if metrics:
        parts.append(facts_content(metrics, 11, width))
    if history is not None:
        if not aside:
            parts.append(facts_content(gauge_facts(history.gauges), 11, width))
        unit = f"{job.unit}s" if job.unit.islower() else job.unit
        series = history.series
        parts.append(series_charts(series, unit, job.total, width, 7 if tall else 3))
        parts.append(_attempts(job, history))
    if job.result and job.status == "finished":
        parts.append(section("Result", _settings(job.result, width)))
    if history is not None and history.log and not aside and (tall or job.error):
        lines = [Content.styled(printable(line), "$muted") for line in history.log[-12:]]
        parts.append(section("Log", Content("\n").join(lines)))
    parts.append(section("Settings", _settings(job.params, width)))
    return blocks(*parts)


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
            words.append(f"{count(one.done)} of {count(one.total)} {one.unit}")
        words += [printable(word) for word in (one.host, one.error) if word]
        style = STATUS_STYLES.get(status, "$muted")
        line = (f"{one.number:<3}", "$muted"), (f"{status:<11}", style), " · ".join(words)
        lines.append(Content.assemble(*line))
    return section("Attempts", Content("\n").join(lines))


def metric_facts(metrics: Mapping[str, float]) -> list[Fact]:
    """The metrics of a job, the known ones first and under their usual names."""
    names = [name for name in _METRICS if name in metrics]
    names += sorted(name for name in metrics if name not in (*_METRICS, *READINGS))
    return [Fact(_METRICS.get(name, printable(name)), _with_peak(name, metrics)) for name in names]


def _with_peak(name: str, metrics: Mapping[str, float]) -> str:
    peak = metrics.get(f"{name}_peak")
    at_most = f", at most {size(peak)} so far" if peak is not None and name in READINGS else ""
    return metric(name, metrics[name]) + at_most


def metric(name: str, value: float) -> str:
    """One metric as people write it: shares in percent, rates as counts, memory with its unit."""
    if name in READINGS:
        return size(value)
    if name.endswith("_share"):
        return f"{100 * value:.1f}%"
    if name.endswith("_s"):
        return count(value)
    return number(value, 1 if name == "l0" else 3)


def _job_line(job: "JobState") -> str:
    words = ["stopping" if job.stopping else job.status]
    if job.status == "queued" and job.waiting_for:
        words.append(f"waits for {printable(job.waiting_for)}")
    if job.attempt > 1:
        words.append(f"attempt {job.attempt}")
    if job.status == "running" and job.eta_s is not None:
        words.append(f"{duration(job.eta_s)} left")
    if job.ended and job.started:
        words.append(f"after {duration(job.ended - job.started)}")
    if job.status in ("lost", "failed", "cancelled") and job.resumable:
        words.append(f"{key('runs.resume')} resumes it")
    return " · ".join(words)


def _bar(job: "JobState", width: int) -> list[Content]:
    if job.share is None or job.status == "finished":
        return []
    done, left = progress_bar(job.share, max(width - 6, 8))
    style = STATUS_STYLES.get(job.status, "$accent")
    rate = f" · {number(job.rate, 1)} {job.unit}/s" if job.rate else ""
    units = f"{job.unit}s" if job.unit.islower() and job.total != 1 else job.unit
    return [
        Content.assemble((done, style), (left, "$rule"), (f" {100 * job.share:3.0f}%", style)),
        Content.styled(f"{count(job.done)} of {count(job.total)} {units}{rate}", "$muted"),
    ]


def plain_facts(values: Mapping[str, Any]) -> list[Fact]:
    """JSON values, one per line; unset values are left out. Nested objects are flattened: what they
    say as the outer one does is said once, and what they say otherwise has their name."""
    facts: list[Fact] = []
    known = {name: value for name, value in values.items() if not isinstance(value, Mapping)}
    for name, value in values.items():
        if isinstance(value, Mapping):
            inner = {one: it for one, it in value.items() if one not in known or known[one] != it}
            for fact in plain_facts(inner):
                own = f"{printable(name)} {fact.name}" if fact.name in known else fact.name
                facts.append(Fact(own, fact.value))
        elif value is None or value == "" or value == [] or value is False:
            continue
        elif isinstance(value, list):
            if all(isinstance(item, str | int | float) for item in value):
                facts.append(Fact(printable(name), printable(", ".join(map(str, value)))))
        elif isinstance(value, float):
            facts.append(Fact(printable(name), f"{value:.4g}"))
        else:
            facts.append(Fact(printable(name), printable(str(value))))
    return facts


def heading(title: str, line: str) -> Content:
    """The first lines of a pane: the name, and what it is."""
    return Content.assemble((printable(title), "bold $foreground"), "\n", (line, "$muted"))
