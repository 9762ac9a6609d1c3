"""Training SAEs from a captured run: the work of a training job, and the library's trainer."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Protocol

import torch

from mi_crow.errors import CorruptDataError, MiCrowError, UserError
from mi_crow.language_model.loading import torch_device
from mi_crow.mechanistic.sae.architectures import BY_ARCH, BY_NAME
from mi_crow.mechanistic.sae.base import SparseAutoencoder
from mi_crow.mechanistic.sae.config import (
    FULL_LENGTH,
    KL,
    SAE,
    SaeTrainingConfig,
    TrainConfig,
    default_lr,
)
from mi_crow.mechanistic.sae.cross_layer.latent_scaling import latent_scaling
from mi_crow.mechanistic.sae.cross_layer.two_models import TwoModelCrosscoder
from mi_crow.mechanistic.sae.fitting import check_widths
from mi_crow.mechanistic.sae.formats.load import load_sae
from mi_crow.mechanistic.sae.metadata import CONFIG_NAME
from mi_crow.mechanistic.sae.run_tokens import RunTokens, open_tokens
from mi_crow.mechanistic.sae.train.across.making import finished_across, new_across
from mi_crow.mechanistic.sae.train.across.streamed import streamed_layers
from mi_crow.mechanistic.sae.train.across.tokens import LayersOfRun, open_layers
from mi_crow.mechanistic.sae.train.checkpoint import remove_checkpoints
from mi_crow.mechanistic.sae.train.checkpoint_writer import CHECKPOINTS_NAME
from mi_crow.mechanistic.sae.train.live import live_tokens
from mi_crow.mechanistic.sae.train.loggers import RunLogger, check_logger, open_logger
from mi_crow.mechanistic.sae.train.loop import Feed
from mi_crow.mechanistic.sae.train.trainer import (
    SaeTrainer,
    Trained,
    TrainResult,
    make_plans,
    train_many,
)
from mi_crow.progress import NullProgress, Progress
from mi_crow.ranks import ALONE, Ranks
from mi_crow.store.atomic import write_json
from mi_crow.store.free_space import explain_shortage
from mi_crow.store.ids import validate_id
from mi_crow.store.json_file import read_object
from mi_crow.store.workspace import Workspace

__all__ = [
    "SaeTrainer",
    "SaeTrainingConfig",
    "TrainResult",
    "Trained",
    "train_many",
    "train_run",
]

TRAINING_NAME = "training.json"
SWEEP_NAME = "sweep.json"


def train_run(
    workspace: Workspace,
    config: TrainConfig,
    progress: Progress | None = None,
    sae_dir: Path | None = None,
    ranks: Ranks = ALONE,
    feed: "MeasuredFeed | None" = None,
) -> TrainResult:
    """Trains the SAEs of `config` on a run of the workspace, or on the running model; `sae_dir`
    (None: a new one) is the folder of the first, the others of a sweep get folders named after it.
    Of several layers each is read on its own, unless one SAE is of all. `feed` (None: the tokens
    of the run) is what a step learns from.

    Training resumes in folders that hold checkpoints. Several processes (`ranks`, with a `sae_dir`)
    share the work as `config.shares` says; the first one writes. Raises UserError, before any
    folder is made, for an unknown run or layer, k above the number of latents, too few tokens.
    """
    progress = progress or NullProgress()
    check_logger(config.logger)
    if config.family == SAE and len(config.layers) > 1:
        return _each_layer(workspace, config, progress, sae_dir, ranks)
    progress.log(_what_is_read(config))
    tokens = _tokens(workspace, config, progress, ranks)
    tokens.manifest.require_complete()
    variants = config.variants()
    device = torch_device(config.device)
    # An SAE whose latents are shared may be too wide for one device: it is made on the CPU.
    split = ranks.world > 1 and config.shares == "latents"
    made_on = torch.device("cpu") if split else device
    saes = [_first_state(workspace, variant, tokens, made_on) for variant in variants]
    configs = [_settings(variant, sae) for variant, sae in zip(variants, saes, strict=True)]
    make_plans(saes, tokens.source, configs, device)
    made_here = sae_dir is None
    if sae_dir is None:
        kind = config.arch if config.family == SAE else config.family
        short = f"{kind}-{tokens.layer.point}-{saes[0].n_latents}"
        sae_dir = workspace.make_sae_dir(config.name, short)
    folders = [sae_dir]
    try:
        labels = [variant.label() for variant in variants]
        folders = _agreed_folders(workspace, sae_dir, labels, ranks)
        if all((folder / CONFIG_NAME).is_file() for folder in folders):
            return _together([_finished_result(folder) for folder in folders])
        with _logging(variants, folders, progress, ranks) as loggers:
            trained = train_many(
                saes,
                tokens.source,
                configs,
                progress,
                folders,
                ranks,
                config.shares,
                device,
                loggers,
                feed,
                config.copies,
                config.gradients,
            )
        if feed is not None:
            figures = [feed.figures(sae) for sae in saes]
            trained = [
                replace(one, result=replace(one.result, **found))
                for one, found in zip(trained, figures, strict=True)
            ]
    except BaseException:
        _withdraw(workspace, folders if made_here else folders[1:])
        raise
    if ranks.rank == 0:
        for sae, variant, one, folder in zip(saes, variants, trained, folders, strict=True):
            _save(sae, variant, one, folder, tokens, progress)
        for folder in folders:
            remove_checkpoints(folder / CHECKPOINTS_NAME)
    return _together([one.result for one in trained])


class MeasuredFeed(Feed, Protocol):
    """A feed that measures what it was made for."""

    def figures(self, sae: SparseAutoencoder) -> dict[str, float]:
        """Figures of the trained SAE that its result has besides, by their names there."""
        ...


def _each_layer(
    workspace: Workspace,
    config: TrainConfig,
    progress: Progress,
    first: Path | None,
    ranks: Ranks,
) -> TrainResult:
    """An SAE of each layer, one after the other; those that are finished are not trained again."""
    configs = config.of_each_layer()
    if first is None:
        first = workspace.make_sae_dir(config.name, f"{config.arch}-{len(configs)}-layers")
    labels = [one.layer for one in configs]
    try:
        folders = _agreed_folders(workspace, first, labels, ranks)
    except BaseException:
        _withdraw(workspace, [first])
        raise
    results = []
    for number, (one, folder) in enumerate(zip(configs, folders, strict=True), 1):
        progress.log(f"layer {one.layer}, {number} of {len(configs)}")
        results.append(train_run(workspace, one, progress, folder, ranks))
    return _together(results)


def _what_is_read(config: TrainConfig) -> str:
    layers = ", ".join(config.layers or (config.layer,))
    if config.stream is None:
        return f"reading {layers} of run {config.run_id}"
    models = " and ".join(filter(None, (config.stream.model.model, config.tuned_model)))
    read = "which reads texts" if config.tuned_model is None else "which both read texts"
    return f"loading {models}, {read}, for {layers}"


def _tokens(
    workspace: Workspace, config: TrainConfig, progress: Progress, ranks: Ranks
) -> RunTokens | LayersOfRun:
    if config.family != SAE:
        if config.stream is not None:
            return streamed_layers(config, config.stream, progress, ranks)
        return open_layers(workspace, config)
    if config.stream is None:
        return open_tokens(workspace, config.run_id, config.layer, config.target_layer)
    if ranks.world > 1 and config.shares == "latents":
        raise UserError(
            "the latents of an SAE on a stream cannot be shared among processes",
            hint="capture a run, or share the tokens",
        )
    return live_tokens(config, config.stream, progress, ranks)


def new_sae(
    config: TrainConfig, n_inputs: int, n_outputs: int | None, device: torch.device
) -> SparseAutoencoder:
    """A fresh SAE of `config`, which is not a sweep; only transcoders have `n_outputs`."""
    row = BY_ARCH[config.arch]
    fields: dict[str, Any] = {name: getattr(config, name) for name in row.takes}
    if n_outputs is not None:
        fields["n_outputs"] = n_outputs
    n_latents = config.n_latents or int(config.expansion * n_inputs)
    with explain_shortage(f"making an SAE of {n_latents:,} latents on {device}", "train fewer"):
        return row.load()(n_latents, n_inputs, device=device, seed=config.training.seed, **fields)


def _first_state(
    workspace: Workspace,
    config: TrainConfig,
    tokens: RunTokens | LayersOfRun,
    device: torch.device,
) -> SparseAutoencoder:
    """A fresh SAE, or the one to train on from."""
    if isinstance(tokens, LayersOfRun):
        return new_across(config, tokens, device)
    target = tokens.target
    if config.init is None:
        return new_sae(config, tokens.layer.width, target.width if target else None, device)
    sae = load_sae(workspace.sae_or_path(config.init), device)
    if BY_NAME.get(sae.architecture) is None or BY_NAME[sae.architecture].arch is None:
        raise UserError(
            f"{config.init!r} is of architecture {sae.architecture!r}, which can only be read",
            hint="leave out --init",
        )
    if sae.transcodes and target is None:
        raise UserError(
            f"{config.init!r} is a transcoder: it needs the layer that it should predict",
            hint="name it with --target-layer",
        )
    if target is not None and not sae.transcodes:
        raise UserError(f"{config.init!r} is not a transcoder", hint="leave out --target-layer")
    hint = "continue from an SAE of this layer, or leave out --init"
    check_widths(
        f"SAE {config.init!r}", sae, f"model {tokens.manifest.model_id!r}", tokens.widths(), hint
    )
    return sae


def _settings(config: TrainConfig, sae: SparseAutoencoder) -> SaeTrainingConfig:
    """The trainer's settings of one SAE: for a steered one, `k` is the target for L0. A finetune is
    the end of a training: its learning rate falls from the usual one to zero."""
    training = config.training
    if config.finetune == KL:
        lr = training.lr or default_lr(sae.n_latents, FULL_LENGTH)
        training = replace(training, lr=lr, decay_share=1.0)
    if not sae.steers_sparsity or training.target_l0 or training.l1_lambda is not None:
        return training
    return replace(training, target_l0=float(config.k))


def _folders(workspace: Workspace, first: Path, labels: Sequence[str]) -> list[Path]:
    """A folder for each SAE of the job, which its label tells from the others: `first`, then
    folders that it remembers."""
    if len(labels) == 1:
        return [first]
    path = first / SWEEP_NAME
    if not path.is_file():
        names = [validate_id(f"{first.name[:40]}-{label[:20]}", "SAE") for label in labels[1:]]
        for name in names:
            if (workspace.saes_dir / name).exists():
                raise UserError(f"SAE {name!r} exists already", hint="choose another --name")
        write_json(path, {"saes": [first.name, *names]})
    names = read_object(path).texts("saes")
    folders = [workspace.saes_dir / validate_id(name, "SAE") for name in names]
    for folder in folders:
        folder.mkdir(exist_ok=True)
    return folders


@contextmanager
def _logging(
    variants: Sequence[TrainConfig], folders: Sequence[Path], progress: Progress, ranks: Ranks
) -> Iterator[list[RunLogger]]:
    """A logger for each SAE, closed at the end; only the first process's write."""
    loggers = [
        open_logger(variant.logger, folder, asdict(variant), progress.log)
        for variant, folder in zip(variants, folders, strict=True)
        if ranks.rank == 0
    ]
    failed = True
    try:
        yield loggers
        failed = False
    finally:
        for logger in loggers:
            logger.close(failed=failed)


def _agreed_folders(
    workspace: Workspace, first: Path, labels: Sequence[str], ranks: Ranks
) -> list[Path]:
    """The first process's `_folders`."""
    made = _folders(workspace, first, labels) if ranks.rank == 0 else []
    return [Path(path) for path in ranks.agree([str(folder) for folder in made])]


def _withdraw(workspace: Workspace, folders: Sequence[Path]) -> None:
    """Removes folders in which no training was kept."""
    for folder in folders:
        if folder.is_dir() and all(entry.name == SWEEP_NAME for entry in folder.iterdir()):
            try:
                workspace.delete(folder)
            except (MiCrowError, OSError):
                continue  # the failure that brought us here is the one to report


def _save(
    sae: SparseAutoencoder,
    config: TrainConfig,
    trained: Trained,
    folder: Path,
    tokens: RunTokens | LayersOfRun,
    progress: Progress,
) -> None:
    """Writes what was done, then the SAE, whose `cfg.json` says that the folder is whole; of two
    models also which of them each latent belongs to."""
    if isinstance(tokens, LayersOfRun):
        sae = finished_across(sae, tokens, config)
        if isinstance(sae, TwoModelCrosscoder):
            progress.log("which model each latent belongs to")
            latent_scaling(sae, tokens.source, progress).write(folder)
    else:
        metadata = tokens.metadata()
        other = {**metadata.other, **({"control": "shuffled"} if config.training.shuffled else {})}
        sae.metadata = replace(metadata, outlier_norm=sae.metadata.outlier_norm, other=other)
    write_json(
        folder / TRAINING_NAME,
        {"config": asdict(config), "result": trained.result.as_json()},
    )
    sae.save(folder)


def finished(folder: Path) -> TrainResult | None:
    """The result of the training in `folder`, if it has come to its end."""
    return _finished_result(folder) if (folder / CONFIG_NAME).is_file() else None


def _together(results: Sequence[TrainResult]) -> TrainResult:
    """The first SAE's result, with the others of its sweep."""
    return replace(results[0], others=tuple(results[1:]))


def _finished_result(sae_dir: Path) -> TrainResult:
    """What an SAE's folder says that its training came to."""
    path = sae_dir / TRAINING_NAME
    result = read_object(path).object("result")
    readings = {key: result.values[key] for key in result if key not in ("sae_id", "saes")}
    for key, value in readings.items():
        if type(value) not in (int, float):  # NaN too: a training may diverge
            raise result.wrong(key, "a number")
    try:
        return TrainResult(result.text("sae_id"), **readings)
    except TypeError as error:
        raise CorruptDataError(f"{path} contains no result") from error
