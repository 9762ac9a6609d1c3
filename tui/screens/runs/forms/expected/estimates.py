"""What a job will need: time, disk and memory, from what is known and what was measured here.

Time is never guessed: it comes from earlier work in the workspace, or is said to be unknown.
"""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from mi_crow.datasets.splits import TRAINED_SHARE
from mi_crow.errors import MiCrowError
from mi_crow.jobs.device_lock import device_key
from mi_crow.language_model.config import CaptureConfig, DatasetSpec, ModelSpec
from mi_crow.language_model.outline import Outline
from mi_crow.language_model.placement.memory import expected_weights
from mi_crow.mechanistic.sae.config import NONE, TrainConfig
from mi_crow.mechanistic.sae.estimate.training import (
    TrainingCost,
    expected_time,
    steps_of,
    training_cost,
    width_read,
)
from mi_crow.paths import expanded
from mi_crow.store.free_space import available_memory, nearest_existing
from mi_crow.store.runs.manifest import RunManifest, run_bytes
from mi_crow.store.settings import SPREAD
from mi_crow.store.workspace import RunSummary
from tui.screens.runs.forms import finding
from tui.screens.runs.forms.expected.times import positive, starts_of, time_of
from tui.screens.runs.forms.finding import Situation
from tui.text import count, duration, size

if TYPE_CHECKING:
    from mi_crow.jobs import JobState
    from mi_crow.jobs.spec import JobSpec

# What decides how much memory a training takes.
_DECIDE_MEMORY = (
    "layer",
    "arch",
    "expansion",
    "n_latents",
    "training.batch_size",
    "training.accumulate",
    "training.whiten",
    "family",
    "layers",
    "init",
    "finetune",
)
_PEAKS = ("gpu_memory_peak", "memory_peak")
_SPEEDS = 50.0, 2.0  # of a device and a disk; they decide only times, which are measured here
_MOST_SAMPLED = 200  # documents that are read to know how long they are
_TOKEN_CHARACTERS = 4.3  # of running English, in the usual vocabularies
_UNKNOWN = "how much it reads is not known yet"
_LARGEST_COUNTED = 200 << 20  # bytes of a file that is read to count its documents


def expect_capture(
    at: Situation, config: CaptureConfig, outline: Outline | None
) -> tuple[str, ...]:
    """Tokens, disk, time and memory of a capture, as far as they can be known."""
    tokens, why = _readable(at, config.dataset, config.context_length, config.long_documents)
    lines = []
    if tokens is None:
        lines.append(why)
    else:
        lines.append(f"about {count(tokens)} tokens")
        widths = dict(outline.points()) if outline is not None else {}
        if all(layer in widths for layer in config.layers):
            needed = run_bytes(config.dtype, [widths[layer] for layer in config.layers], tokens)
            lines.append(disk(at, needed))
        same = [run for run in at.runs if run.manifest.model_id == config.model.model]
        done = [(float(run.manifest.n_tokens), run.manifest.seconds) for run in same]
        starts = starts_of(at.jobs, "capture", config.model.model)
        lines.append(time_of(tokens, done, "capture", " of this model", starts=starts))
    memory = _memory(at.jobs, "capture", ("model.model", "batch_size", "context_length"), config)
    if memory:
        lines.append(memory)
    elif expected := _weights(config.model):
        lines.append(expected)
    elif outline is not None and outline.file_bytes:
        lines.append(f"at least {size(outline.file_bytes)} of weights in memory")
    return tuple(lines)


def _weights(spec: ModelSpec) -> str:
    """What a model's weights will take on its device; empty where their files do not say."""
    place = finding.place(spec.model, spec.revision)
    if place is None or not place.is_dir() or spec.gguf_file is not None:
        return ""
    device = device_key(spec.device)
    found = expected_weights(place, spec.dtype, device.partition("-")[0])
    if found is None:
        return ""
    if spec.device == SPREAD:
        return found.sentence("all devices")
    free = available_memory() if device == "cpu" else None
    return found.sentence(device.replace("-", ":"), free)


def expect_training(
    at: Situation, config: TrainConfig, run: RunSummary | None, outline: Outline | None
) -> tuple[str, ...]:
    """Steps and epochs, time, disk and memory of a training; `outline` is the model's, where the
    training runs it."""
    manifest = run.manifest if run is not None else None
    width = width_read(config, manifest, outline)
    start = at.sae(config.init)
    if width is None or (config.init is not None and start is None):
        return (_read(steps_of(config, manifest), config, manifest),)
    cost = training_cost(config, width, manifest, outline, start)
    lines = [_read(cost.steps, config, manifest)]
    expected = expected_time(config, cost, at.saes, manifest)
    if expected is None:
        lines.append(time_of(cost.work, (), "finetune" if config.finetune != NONE else "training"))
    else:
        about = "at least" if expected.at_least else "about"
        lines.append(f"{about} {duration(expected.seconds)}, {expected.why}")
    lines.append(disk(at, cost.disk + cost.checkpoints, of_it=f" ({size(cost.disk)} once trained)"))
    measured = _memory(at.jobs, "train", _DECIDE_MEMORY, config)
    lines.append(measured or f"{size(cost.memory)} of memory beside torch itself{_of_it(cost)}")
    return tuple(lines)


def _read(steps: int, config: TrainConfig, run: RunManifest | None) -> str:
    batch = config.training.batch_size
    said = f"{steps:,} steps x {batch:,} rows"
    available = run.n_tokens * TRAINED_SHARE if run is not None else 0
    if not available:
        return f"{said} = {count(steps * batch)} tokens"
    return f"{said} on {count(available)} tokens = {steps * batch / available:,.1f} epochs"


def _of_it(cost: TrainingCost) -> str:
    """What of the memory is not for the SAE."""
    parts = (("the model", cost.model_memory), ("whitening", cost.whitening_memory))
    told = [f"{size(taken)} for {what}" for what, taken in parts if taken]
    return f", {' and '.join(told)}" if told else ""


def expect_index(at: Situation, params: Mapping[str, Any]) -> tuple[str, ...]:
    """Tokens, time, disk and memory of an index: measured here, else counted."""
    from mi_crow.jobs.spec import config_from_json
    from mi_crow.mechanistic.features.config import IndexConfig
    from mi_crow.mechanistic.features.index.estimate import expected_sizes, plan_index

    sae = at.sae(params.get("sae_id"))
    live, manifest = params.get("live"), None
    if sae is None:
        return ()
    if isinstance(live, Mapping):
        spec = DatasetSpec(**live["dataset"])
        tokens, why = _readable(at, spec, live["context_length"], live["long_documents"])
    else:
        why = _UNKNOWN
        run = at.run(params.get("run_id") or sae.run_id)
        manifest = run.manifest if run is not None else None
        tokens = manifest.n_tokens if manifest is not None else None
    if tokens is None:
        return (f"{count(sae.n_latents)} latents; {why}",)
    done = []
    sizes = []
    for result in _results(at.jobs, "index"):
        features, read = positive(result, "features"), positive(result, "tokens")
        if features and read:
            done.append((features * read, float(result["seconds"])))
            if taken := positive(result, "bytes"):
                sizes.append(taken / features)
    lines = [f"{count(sae.n_latents)} latents over {count(tokens)} tokens"]
    starts = starts_of(at.jobs, "index")
    lines.append(time_of(sae.n_latents * tokens, done, "index job", starts=starts, fixed=True))
    config = config_from_json(IndexConfig, dict(params), "index")
    outline = finding.outline(sae.model_id, None, None)
    counted = replace(expected_sizes(sae, manifest, outline), tokens=tokens)
    plan = plan_index(config, counted, *_SPEEDS)
    taken = round(sae.n_latents * median(sizes)) if sizes else plan.index
    lines.append(disk(at, taken + plan.temporary))
    measured = _memory(at.jobs, "index", ("sae_id",), params)
    lines.append(measured or f"{size(plan.memory)} of memory beside torch and the model")
    return tuple(lines)


def expect_evaluation(at: Situation, params: Mapping[str, Any]) -> tuple[str, ...]:
    """Time and memory of an evaluation."""
    done = []
    for job in at.jobs:
        if job.kind == "evaluate" and job.status == "finished":
            read = positive(job.result or {}, "documents") or positive(job.params, "documents")
            if read:
                done.append((read, (job.ended or 0) - (job.started or 0)))
    for stage in _of_demos(at.jobs, "evaluate"):
        if read := positive(stage, "documents"):
            done.append((read, float(stage["seconds"])))
    documents, live = params["documents"], params.get("live")
    sae = at.sae(params.get("sae_id"))
    run = at.run(params.get("run_id") or (sae.run_id if sae is not None else None))
    said = f"{documents:,} held-out documents"
    if run is not None and not isinstance(live, Mapping):
        held_out = round(run.manifest.n_documents * (1 - TRAINED_SHARE))
        if 0 < held_out < documents:
            documents, said = held_out, f"about {held_out:,} held-out documents, all of the run's"
    lines = [said, time_of(documents, done, "evaluation", fixed=True)]
    if isinstance(live, Mapping):
        spec = DatasetSpec(**live["dataset"])
        tokens, why = _readable(at, spec, live["context_length"], live["long_documents"])
        known = tokens is not None or why != _UNKNOWN
        through = f"about {count(tokens)} tokens through the model first" if tokens else why
        lines += [through] if known else []
    lines.extend(filter(None, [_memory(at.jobs, "evaluate", ("sae_id",), params)]))
    return tuple(lines)


def _readable(
    at: Situation, dataset: DatasetSpec, context: int, long_documents: str
) -> tuple[int | None, str]:
    """How many tokens the texts have, or else why that is not known."""
    try:
        return expected_tokens(at, dataset, context, long_documents), _UNKNOWN
    except MiCrowError as error:
        return None, error.sentence


def expected_tokens(
    at: Situation, dataset: DatasetSpec, context: int, long_documents: str
) -> int | None:
    """How many tokens the texts have: as in an earlier run over them, else from a look at the
    files. None for texts that are not on this machine. Raises MiCrowError where one of them cannot
    be read."""
    per_document, documents = _known(at, dataset, context, long_documents)
    if per_document is None:
        per_document, documents = _looked_up(dataset, context, long_documents)
    if dataset.limit is not None:
        documents = min(documents or dataset.limit, dataset.limit)
    if per_document is None or documents is None:
        return dataset.token_limit
    tokens = int(per_document * documents)
    return min(tokens, dataset.token_limit or tokens)


def _known(
    at: Situation, dataset: DatasetSpec, context: int, long_documents: str
) -> tuple[float | None, int | None]:
    """Tokens of a document and documents, of an earlier run that read the same texts alike."""
    for run in reversed(at.runs):
        manifest = run.manifest
        same = manifest.dataset.get("source") == dataset.source
        alike = (
            manifest.settings.get("context_length") == context
            and manifest.settings.get("long_documents", "truncate") == long_documents
        )
        if same and alike and manifest.complete and manifest.n_documents:
            whole = not manifest.dataset.get("limit") and not manifest.dataset.get("token_limit")
            per_document = manifest.n_tokens / manifest.n_documents
            return per_document, manifest.n_documents if whole else None
    return None, None


def _looked_up(
    dataset: DatasetSpec, context: int, long_documents: str
) -> tuple[float | None, int | None]:
    """The same from the first documents of local files."""
    from itertools import islice

    from mi_crow.datasets.fields import Fields
    from mi_crow.datasets.files import count_records, file_rows, text_files

    if dataset.source == "sample":
        from sample_data import corpus_path

        path = corpus_path()
    else:
        path = expanded(dataset.source)
    fields = Fields(dataset.text_field, dataset.label_field)
    try:
        files = text_files(path) if path.exists() else []
        if not files or sum(file.stat().st_size for file in files) > _LARGEST_COUNTED:
            return None, None
        rows = islice((row for file in files for row in file_rows(file, fields)), _MOST_SAMPLED)
        lengths = [len(str(text)) / _TOKEN_CHARACTERS for text, _ in rows]
        documents = sum(count_records(file, fields) for file in files)
    except OSError:
        return None, None
    if not lengths:
        return None, None
    if long_documents == "truncate":
        lengths = [min(length, float(context)) for length in lengths]
    return sum(lengths) / len(lengths), documents


def _results(jobs: "Iterable[JobState]", kind: str) -> list[dict[str, Any]]:
    """What finished jobs of a kind said of themselves, and demos of the stage that is one."""
    said = [job.result for job in jobs if job.kind == kind and job.result is not None]
    return [one for one in said if positive(one, "seconds")] + _of_demos(jobs, kind)


def _of_demos(jobs: "Iterable[JobState]", kind: str) -> list[dict[str, Any]]:
    """What a stage of each finished demo did, which is what jobs of this kind do."""
    found = []
    for job in jobs:
        stages = (job.result or {}).get("stages") if job.kind == "demo" else None
        stage = stages.get(kind) if isinstance(stages, Mapping) else None
        if isinstance(stage, Mapping) and positive(stage, "seconds"):
            found.append(dict(stage))
    return found


def turn(spec: "JobSpec") -> str:
    """What a job would wait for if it was started now; empty for nothing."""
    from mi_crow.jobs import device_lock
    from mi_crow.jobs.kinds import kind_of
    from mi_crow.jobs.spec import config_from_json

    kind = kind_of(spec.kind)
    if spec.launcher == "slurm" or not kind.queues(config_from_json(kind.config, spec.params)):
        return ""
    devices = dict.fromkeys(
        map(device_lock.device_key, device_lock.devices_of(spec.device, spec.nproc))
    )
    looks = [one for one in device_lock.look_at_queues() if one.device in devices]
    before = dict.fromkeys(job for one in looks for job in (one.job, *one.waiting) if job)
    if not before:
        return ""
    where = ", ".join(dict.fromkeys(one.device for one in looks))
    if len(before) == 1:
        return f"starts after job {next(iter(before))}, which has {where}"
    return f"starts after {len(before)} jobs that have or wait for {where}"


def disk(at: Situation, needed: float, place: Path | None = None, of_it: str = "") -> str:
    """What is needed, and what is free at the `place`, or else in the workspace."""
    free = shutil.disk_usage(nearest_existing(place or at.workspace.root)).free
    only = "only " if needed > free else ""
    return f"{size(needed)} on disk{of_it}, {only}{size(free)} free"


def _memory(jobs: "Sequence[JobState]", kind: str, alike: Sequence[str], wanted: object) -> str:
    """The most memory that the latest such job used; empty where none was measured."""
    for job in reversed(jobs):
        same = job.kind == kind and all(
            _at(job.params, path) == _at(wanted, path) for path in alike
        )
        for peak in _PEAKS if same else ():
            if used := job.metrics.get(peak):
                return f"{size(used)} of memory, as the last similar job took"
    return ""


def _at(params: object, path: str) -> Any:
    for name in path.split("."):
        if isinstance(params, Mapping):
            params = params.get(name)
        else:
            params = getattr(params, name, None)
    return tuple(params) if isinstance(params, list) else params
