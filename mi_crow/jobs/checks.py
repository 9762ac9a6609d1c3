"""Checks of a job's config before it starts, without torch and without writing anything.

A check raises UserError; what depends on the model or the network is left to the job.
"""

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from mi_crow.bounds import LATENTS
from mi_crow.datasets.fields import Fields
from mi_crow.datasets.files import (
    SUFFIXES,
    file_rows,
    has_json_lines,
    kind_of,
    looks_like_path,
    open_text,
    text_files,
)
from mi_crow.datasets.saved import is_saved, saved_features, text_features
from mi_crow.errors import NotFoundError, UserError
from mi_crow.language_model.config import CaptureConfig, DatasetSpec, LiveTexts, ModelSpec
from mi_crow.language_model.model_names import model_asked_for
from mi_crow.language_model.outline import check_layers, outline_of
from mi_crow.language_model.placement.packages import check_packages, check_processes
from mi_crow.mechanistic.explain.config import ExplainConfig
from mi_crow.mechanistic.features.config import IndexConfig
from mi_crow.mechanistic.sae.config import CLT, KL, SAE, TrainConfig
from mi_crow.mechanistic.sae.cross_layer.tuned_model import tuned_spec
from mi_crow.mechanistic.sae.cross_layer.two_runs import check_same_tokenizer
from mi_crow.mechanistic.sae.evaluation.config import EvaluateConfig
from mi_crow.mechanistic.sae.fitting import check_run, check_width, run_of
from mi_crow.mechanistic.sae.formats.config import ExportConfig, ImportConfig
from mi_crow.mechanistic.sae.formats.files import is_hub_id, locate
from mi_crow.mechanistic.sae.metadata import WEIGHTS_NAME
from mi_crow.mechanistic.sae.parallel.settings import (
    check_copies,
    check_latents,
    check_pieces,
    check_whitened,
)
from mi_crow.mechanistic.sae.stored_layers import (
    check_names_together,
    layers_together,
    stored_layer,
)
from mi_crow.mechanistic.sae.train.loggers import check_logger
from mi_crow.mechanistic.vectors.config import MakeConfig
from mi_crow.mechanistic.vectors.job import model_of
from mi_crow.mechanistic.vectors.stored import new_path
from mi_crow.mechanistic.vectors.texts import check_words
from mi_crow.paths import check_folder_of, expanded
from mi_crow.store.free_space import check_disk, nearest_existing
from mi_crow.store.ids import validate_id
from mi_crow.store.runs.manifest import RunManifest
from mi_crow.store.settings import validate_device
from mi_crow.store.workspace import SaeSummary, Workspace, read_sae_summary

_PATHS = (*SUFFIXES, ".gguf", ".safetensors")


def check_capture(workspace: Workspace, config: CaptureConfig) -> None:
    """Raises UserError for a capture that would fail."""
    validate_device(config.model.device)
    check_free(workspace.activations_dir, config.name, "run")
    check_model(config.model)
    check_dataset(config.dataset)
    _check_layers(config.model, config.layers)


def split_capture(config: CaptureConfig, nproc: int) -> None:
    """Raises UserError for a capture that `nproc` processes cannot do together."""
    if config.tensor_parallel:
        check_processes(config.model, nproc)


def split_train(config: TrainConfig, nproc: int) -> None:
    """Raises UserError for a training whose settings rule out `nproc` processes."""
    if config.shares == "latents":
        check_copies(nproc, config.copies)
        for variant in config.variants() if config.init is None else ():
            if variant.n_latents is not None:
                check_latents(variant.n_latents, nproc // config.copies)
    check_whitened(config.training.whiten, nproc)
    if config.finetune != KL:
        check_pieces(config.training.batch_size, nproc * config.training.accumulate)


def check_train(workspace: Workspace, config: TrainConfig) -> None:
    """Raises UserError for a training that would fail."""
    validate_device(config.device)
    check_logger(config.logger)
    check_free(workspace.saes_dir, config.name, "SAE")
    if config.stream is not None:
        check_model(config.stream.model)
        check_dataset(config.stream.dataset)
        if config.family != SAE:
            check_names_together(config.layers, transcodes=config.family == CLT)
        _check_layers(config.stream.model, config.stream.layers)
        if config.tuned_model is not None:
            check_model(tuned_spec(config))
            _check_layers(tuned_spec(config), config.stream.layers)
        return
    manifest = run_manifest(workspace, config.run_id)
    width = max(stored_layer(manifest, name).width for name in config.layers or (config.layer,))
    if config.tuned_run is not None:
        tuned = run_manifest(workspace, config.tuned_run)
        check_same_tokenizer(manifest, tuned)
        layers_together(tuned, config.layers, transcodes=False)
    if config.family != SAE:
        reads, _ = layers_together(manifest, config.layers, transcodes=config.family == CLT)
        width = max(spec.width for spec in reads)
    if config.target_layer is not None:
        stored_layer(manifest, config.target_layer)
    for variant in config.variants() if config.init is None else ():
        n_latents = variant.n_latents or int(variant.expansion * width)
        if n_latents < 1:
            raise UserError(f"an SAE needs at least 1 latent, not {n_latents}")
        LATENTS.check(n_latents, "the number of latents")
        if variant.k > n_latents * variant.latent_sets:
            raise UserError(
                f"k = {variant.k} is more than n_latents = {n_latents}",
                hint="lower --k or raise --expansion",
            )


def check_index(workspace: Workspace, config: IndexConfig) -> None:
    """Raises UserError for an index that cannot be built."""
    validate_device(config.device)
    if config.map == "umap":
        from mi_crow.mechanistic.features.config import check_umap

        check_umap()
    sae = read_sae_summary(workspace.sae_dir(config.sae_id))
    if config.live is None:
        hint = "name one with --run, or texts with --dataset"
        check_sae_and_run(workspace, config.sae_id, config.run_id, hint)
    else:
        _check_live(sae, config.live)


def _check_live(sae: SaeSummary, live: LiveTexts) -> None:
    if live.model is None and not sae.model_id:
        raise UserError(
            f"SAE {sae.sae_id!r} does not say which model it belongs to",
            hint="name one with --model",
        )
    model = live.model or ModelSpec(sae.model_id)
    live.capture(model, sae.layers or (sae.layer or "layer",))
    check_model(model)
    for _, base, _ in sae.models[:-1]:  # read beside it
        try:
            check_model(replace(model, model=base, revision=None, gguf_file=None))
        except UserError as error:
            raise type(error)(
                f"the base model of SAE {sae.sae_id!r} cannot be read: {error.sentence}",
                hint="read runs of both models: name them with --run and --tuned-run",
            ) from error
    check_dataset(live.dataset)


def check_evaluate(workspace: Workspace, config: EvaluateConfig) -> None:
    """Raises UserError for an evaluation that would fail."""
    validate_device(config.device)
    if config.live is not None:
        _check_live(read_sae_summary(workspace.sae_dir(config.sae_id)), config.live)
        return
    hint = "name one with --run, or texts with --dataset"
    check_sae_and_run(workspace, config.sae_id, config.run_id, hint)
    if config.model is not None:
        check_model(ModelSpec(config.model))


def check_explain(workspace: Workspace, config: ExplainConfig) -> None:
    """Raises NotFoundError for an SAE without an index."""
    if not workspace.index_path(config.sae_id).is_file():
        raise NotFoundError(
            f"SAE {config.sae_id!r} has no feature index",
            hint=f"mi-crow index --sae {config.sae_id}",
        )


def check_import(workspace: Workspace, config: ImportConfig) -> None:
    """Raises UserError for an import that would fail, as far as this machine knows; what is only on
    the hub is left to the job."""
    validate_device(config.device)
    check_free(workspace.saes_dir, config.name, "SAE")
    if config.model is not None:
        check_model(config.model)
    if config.check is not None:
        check_dataset(config.check.dataset)
    if not is_hub_id(config.path):
        files = locate(config.path)
        found = files.find(config.layer)
        check_disk(workspace.saes_dir, files.bytes_of(found), f"the SAE {config.path!r}")


def check_export(workspace: Workspace, config: ExportConfig) -> None:
    """Raises UserError for an export that would fail."""
    saes = [read_sae_summary(workspace.sae_dir(one)) for one in (config.sae_id, *config.also)]
    target = check_new_folder(config.path)
    weights = [sae.path / WEIGHTS_NAME for sae in saes]
    size = sum(path.stat().st_size for path in weights if path.is_file())
    check_disk(target, size, f"{str(target)!r}")


def check_new_folder(typed: str) -> Path:
    """The folder that an export makes. Raises UserError for one that it could not."""
    target = expanded(typed)
    if not target.is_absolute():
        raise UserError(f"{typed!r} is not a whole path", hint="start it with / or ~")
    if os.path.lexists(target):
        raise UserError(f"{str(target)!r} exists already", hint="give a new folder")
    place = nearest_existing(target)
    if not place.is_dir():
        raise UserError(f"{str(place)!r} is a file, not a folder", hint="give a new folder")
    check_folder_of(target)
    if not os.access(place, os.W_OK | os.X_OK):
        raise UserError(
            f"{str(target)!r} cannot be written (no permission in {str(place)!r})",
            hint="give a folder that you may write to",
        )
    return target


def check_vector(workspace: Workspace, config: MakeConfig) -> None:
    """Raises UserError for a vector that could not be made."""
    validate_device(config.device)
    new_path(workspace, config.name or "", replace=config.replace)
    if config.run_id is not None:
        run_manifest(workspace, config.run_id)
    spec = model_of(workspace, config)
    check_model(spec)
    _check_layers(spec, config.layers)
    for words in (config.texts_for, config.opposite):
        check_words(workspace, words, config.run_id)


def check_free(parent: Path, name: str | None, what: str) -> None:
    """Raises UserError when `name` is not a valid id or is taken."""
    if name is not None and (parent / validate_id(name, what)).exists():
        raise UserError(f"{what} {name!r} exists already", hint="choose another --name")


def run_manifest(workspace: Workspace, run_id: str) -> RunManifest:
    """The manifest of a complete run. Raises UserError."""
    manifest = RunManifest.load(workspace.run_dir(run_id))
    manifest.require_complete()
    return manifest


def check_sae_and_run(
    workspace: Workspace, sae_id: str, run_id: str | None, hint: str = ""
) -> SaeSummary:
    """The SAE, checked against the run to read. Raises UserError when they do not match."""
    sae = read_sae_summary(workspace.sae_dir(sae_id))
    run_id = run_of(sae_id, run_id, sae.run_id, hint)
    try:
        manifest = run_manifest(workspace, run_id)
    except NotFoundError as error:
        raise NotFoundError(
            f"run {run_id!r}, which SAE {sae_id!r} needs, is missing",
            hint="name another with --run",
        ) from error
    check_run(sae_id, sae.model_id, sae.tokenizer_hash, manifest)
    for layer in sae.layers if not sae.models else ():  # widths are checked when they are read
        stored_layer(manifest, layer)
    if sae.layers:
        return sae
    width = stored_layer(manifest, sae.layer).width
    check_width(f"SAE {sae_id!r}", sae.n_inputs, f"layer {sae.layer!r} of run {run_id!r}", width)
    return sae


def check_model(spec: ModelSpec) -> None:
    """Raises UserError for a model path that does not exist or is not a model, and for a model that
    cannot be loaded as it is asked for."""
    path = expanded(spec.model)
    check_packages(spec, spec.gguf_file is not None or path.suffix == ".gguf")
    if spec.model == "sample":
        return
    if path.is_file():
        if path.suffix != ".gguf":
            raise UserError(
                f"model {spec.model!r} is a file but not a .gguf one",
                hint="give a folder, a .gguf file or a Hugging Face id",
            )
    elif path.is_dir():
        wanted = spec.gguf_file or "config.json"
        if not (path / wanted).is_file():
            raise UserError(f"folder {spec.model!r} has no {wanted}", hint="give a model's folder")
    elif not looks_like_path(spec.model, _PATHS):
        model_asked_for(spec.model)
    else:
        raise NotFoundError(
            f"model {spec.model!r} not found",
            hint="give a folder, a .gguf file, a Hugging Face id (org/name) or `sample`",
        )


def _check_layers(spec: ModelSpec, layers: Iterable[str]) -> None:
    check_layers(layers, outline_of(spec.model, spec.revision, spec.gguf_file))


def check_dataset(spec: DatasetSpec) -> None:
    """Raises UserError for texts that are missing, empty, or lack the text field."""
    if spec.source == "sample":
        return
    path = expanded(spec.source)
    if is_saved(path):
        features = saved_features(path, spec.split)
        fields = Fields(spec.text_field, spec.label_field)
        fields.found(spec.source, features, text_features(features))
    elif path.exists():
        _check_any_text(text_files(path), spec)
    elif looks_like_path(spec.source, _PATHS):
        raise NotFoundError(
            f"dataset {spec.source!r} not found",
            hint="give a file, a folder, a Hugging Face id (org/name) or `sample`",
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
    """True when the file has a row. Raises UserError when a row lacks one of the fields."""
    if kind_of(path) == ".json" and not has_json_lines(path):
        with open_text(path) as file:  # the job reads a whole JSON list itself
            return bool(file.read(1))
    return next(file_rows(path, Fields(spec.text_field, spec.label_field)), None) is not None
