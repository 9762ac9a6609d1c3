"""What can be known to be wrong before a job starts, without torch and without writing anything.

A check raises UserError; what only the model or the network can tell is left to the job.
"""

import csv
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mi_crow.errors import NotFoundError, UserError, nearest
from mi_crow.language_model.config import CaptureConfig, DatasetSpec, ModelSpec
from mi_crow.mechanistic.features.config import IndexConfig
from mi_crow.mechanistic.sae.config import EvaluateConfig, TrainConfig
from mi_crow.store.ids import validate_id
from mi_crow.store.manifest import RunManifest
from mi_crow.store.settings import validate_device
from mi_crow.store.workspace import SaeSummary, Workspace, read_sae_summary

_SUFFIXES = (".txt", ".md", ".jsonl", ".json", ".csv", ".tsv", ".parquet")


def check_capture(workspace: Workspace, config: CaptureConfig) -> None:
    """Raises UserError for a capture that cannot work."""
    validate_device(config.model.device)
    check_free(workspace.activations_dir, config.name, "run")
    check_model(config.model)
    check_dataset(config.dataset)


def check_train(workspace: Workspace, config: TrainConfig) -> None:
    """Raises UserError for a training that cannot work."""
    validate_device(config.device)
    check_free(workspace.saes_dir, config.name, "SAE")
    manifest = run_manifest(workspace, config.run_id)
    width = manifest.layer(config.layer).width
    n_latents = config.n_latents or int(config.expansion * width)
    if n_latents < 1:
        raise UserError(f"an SAE needs at least 1 latent, not {n_latents}")
    if config.k > n_latents:
        raise UserError(
            f"k = {config.k} is more than n_latents = {n_latents}",
            hint="lower --k or raise --expansion",
        )


def check_index(workspace: Workspace, config: IndexConfig) -> None:
    """Raises UserError for an index that cannot be built."""
    validate_device(config.device)
    check_sae_and_run(workspace, config.sae_id, config.run_id)


def check_evaluate(workspace: Workspace, config: EvaluateConfig) -> None:
    """Raises UserError for an evaluation that cannot be made."""
    validate_device(config.device)
    check_sae_and_run(workspace, config.sae_id, config.run_id)
    if config.documents < 1:
        raise UserError(f"documents must be at least 1, not {config.documents}")
    if config.model is not None:
        check_model(ModelSpec(config.model))


def check_free(parent: Path, name: str | None, what: str) -> None:
    """Raises UserError when `name` is no id or is taken."""
    if name is not None and (parent / validate_id(name, what)).exists():
        raise UserError(f"{what} {name!r} exists already", hint="choose another --name")


def run_manifest(workspace: Workspace, run_id: str) -> RunManifest:
    """The manifest of a complete run. Raises UserError."""
    manifest = RunManifest.load(workspace.run_dir(run_id))
    if manifest.status != "complete":
        raise UserError(
            f"run {run_id!r} is not complete",
            hint="wait for its capture (--after JOB) or resume it: mi-crow jobs",
        )
    return manifest


def check_sae_and_run(workspace: Workspace, sae_id: str, run_id: str | None) -> SaeSummary:
    """The SAE, when it and the run it is to be read over fit together. Raises UserError."""
    sae = read_sae_summary(workspace.sae_dir(sae_id))
    run_id = run_id or sae.run_id
    if run_id is None:
        raise UserError(
            f"SAE {sae_id!r} does not say which run it belongs to", hint="name one with --run"
        )
    try:
        manifest = run_manifest(workspace, run_id)
    except NotFoundError as error:
        raise NotFoundError(
            f"run {run_id!r}, which SAE {sae_id!r} needs, is not here",
            hint="name another with --run",
        ) from error
    width = manifest.layer(sae.layer).width
    if width != sae.n_inputs:
        raise UserError(
            f"SAE {sae_id!r} takes {sae.n_inputs} inputs, layer {sae.layer!r} of run {run_id!r} "
            f"has {width}"
        )
    return sae


def check_model(spec: ModelSpec) -> None:
    """Raises UserError for a model that is a path to nothing or to no model."""
    if spec.model == "sample":
        return
    path = Path(spec.model).expanduser()
    if path.is_file():
        if path.suffix != ".gguf":
            raise UserError(
                f"model {spec.model!r} is a file but not a .gguf one",
                hint="give a folder, a .gguf file or a Hugging Face id",
            )
    elif path.is_dir():
        wanted = spec.gguf_file or "config.json"
        if not (path / wanted).is_file():
            raise UserError(
                f"folder {spec.model!r} holds no {wanted}", hint="give a model's folder"
            )
    elif _looks_like_path(spec.model):
        raise NotFoundError(
            f"model {spec.model!r} not found",
            hint="give a folder, a .gguf file, a Hugging Face id (org/name) or `sample`",
        )


def check_dataset(spec: DatasetSpec) -> None:
    """Raises UserError for texts that are not there, are empty, or lack the text field."""
    for what, value in (("limit", spec.limit), ("token limit", spec.token_limit)):
        if value is not None and value < 1:
            raise UserError(f"{what} must be at least 1, not {value}")
    if spec.source == "sample":
        return
    path = Path(spec.source).expanduser()
    if path.is_dir():
        files = sorted(f for f in path.rglob("*") if f.is_file() and f.suffix in _SUFFIXES)
        if not files:
            raise UserError(
                f"dataset folder {spec.source!r} holds no texts",
                hint=f"known are {', '.join(_SUFFIXES)} files",
            )
        _check_any_text(files, spec)
    elif path.is_file():
        _check_any_text([path], spec)
    elif _looks_like_path(spec.source):
        raise NotFoundError(
            f"dataset {spec.source!r} not found",
            hint="give a file, a folder, a Hugging Face id (org/name) or `sample`",
        )


def _looks_like_path(text: str) -> bool:
    """A hub id has at most one slash and no path's marks."""
    return (
        text.count("/") > 1
        or text.startswith((".", "/", "~"))
        or Path(text).suffix in (*_SUFFIXES, ".gguf", ".safetensors")
    )


def _check_any_text(files: Iterable[Path], spec: DatasetSpec) -> None:
    for path in files:
        try:
            if _has_text(path, spec):
                return
        except PermissionError as error:
            raise UserError(f"dataset file {str(path)!r} cannot be read") from error
    raise UserError(f"dataset {spec.source!r} is empty", hint="give a file with texts in it")


def _has_text(path: Path, spec: DatasetSpec) -> bool:
    """True when the file has a row. Raises UserError when its rows lack the text field."""
    if path.suffix == ".parquet":
        return _parquet_has_text(path, spec)
    if path.suffix in (".csv", ".tsv"):
        with path.open(newline="", encoding="utf-8", errors="replace") as file:
            rows = csv.reader(file, delimiter="\t" if path.suffix == ".tsv" else ",")
            header = next(rows, None)
            if header is None:
                return False
            _check_field(path, spec.text_field, header)
            return next(rows, None) is not None
    if path.suffix == ".jsonl":
        return _jsonl_has_text(path, spec)
    if path.suffix in (".txt", ".md", ".json"):  # the job reads a whole JSON list itself
        return bool(path.read_text(encoding="utf-8", errors="replace").strip())
    raise UserError(
        f"dataset file {str(path)!r} is of no known kind", hint=f"known are {', '.join(_SUFFIXES)}"
    )


def _parquet_has_text(path: Path, spec: DatasetSpec) -> bool:
    import pyarrow
    import pyarrow.parquet

    try:
        metadata = pyarrow.parquet.read_metadata(path)
    except pyarrow.ArrowInvalid as error:
        raise UserError(f"dataset file {str(path)!r} is not a Parquet file") from error
    _check_field(path, spec.text_field, metadata.schema.to_arrow_schema().names)
    return metadata.num_rows > 0


def _jsonl_has_text(path: Path, spec: DatasetSpec) -> bool:
    with path.open(encoding="utf-8", errors="replace") as file:
        first = next((line for line in file if line.strip()), None)
    if first is None:
        return False
    try:
        row: Any = json.loads(first)
    except ValueError as error:
        raise UserError(f"dataset file {str(path)!r} is not JSON lines ({error})") from error
    if isinstance(row, dict):
        _check_field(path, spec.text_field, row)
    elif not isinstance(row, str):
        raise UserError(f"dataset file {str(path)!r} holds neither objects nor texts")
    return True


def _check_field(path: Path, name: str, names: Iterable[str]) -> None:
    known = list(names)
    if name not in known:
        raise UserError(
            f"dataset file {str(path)!r} has no field {name!r}",
            hint=f"choose one with --text-field: {nearest(name, known, 8)}",
        )
