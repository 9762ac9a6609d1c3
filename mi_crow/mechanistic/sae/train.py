"""Training an SAE from a captured run: the library's trainer and the work of a training job."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mi_crow.errors import CorruptDataError, UserError
from mi_crow.language_model.loading import torch_device
from mi_crow.mechanistic.sae.base import SparseAutoencoder
from mi_crow.mechanistic.sae.checkpoint import newest_checkpoint, remove_checkpoints
from mi_crow.mechanistic.sae.config import SaeTrainingConfig, TrainConfig
from mi_crow.mechanistic.sae.denormals import flushed_denormals
from mi_crow.mechanistic.sae.loop import CHECKPOINTS_NAME, METRICS_NAME, run_training
from mi_crow.mechanistic.sae.metadata import SaeMetadata, hook_name_of
from mi_crow.mechanistic.sae.metrics import MetricsTable
from mi_crow.mechanistic.sae.plan import TrainingPlan, make_plan, starting_point
from mi_crow.mechanistic.sae.quality import heldout_quality, latent_densities
from mi_crow.mechanistic.sae.saelens import CONFIG_NAME
from mi_crow.mechanistic.sae.source import RunSource, TokenSource
from mi_crow.mechanistic.sae.state import TrainState
from mi_crow.mechanistic.sae.topk import TopKSae
from mi_crow.progress import NullProgress, Progress
from mi_crow.store.atomic import read_json, write_json
from mi_crow.store.local import LocalStore
from mi_crow.store.manifest import LayerSpec, RunManifest
from mi_crow.store.shards import RunReader
from mi_crow.store.workspace import Workspace

__all__ = ["SaeTrainer", "SaeTrainingConfig", "TrainResult", "train_run"]

TRAINING_NAME = "training.json"


@dataclass(frozen=True)
class TrainResult:
    """What a training came to; quality is of held-out tokens."""

    sae_id: str
    steps: int
    tokens: int
    fvu: float
    fvu_all: float
    outlier_share: float
    l0: float
    dead_share: float
    seconds: float

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


class SaeTrainer:
    """Trains one SAE in place."""

    def __init__(self, sae: SparseAutoencoder) -> None:
        self.sae = sae
        self.result: TrainResult | None = None

    def train(
        self,
        store: LocalStore | Workspace,
        run_id: str,
        layer_signature: str,
        config: SaeTrainingConfig | None = None,
        progress: Progress | None = None,
        folder: str | Path | None = None,
    ) -> dict[str, list[Any]]:
        """Trains on a captured layer and gives the history: one value a logged step for `loss`,
        `r2`, `l0`, `dead_features`, `fvu` and more. The final figures are in `result`.

        With a `folder`, checkpoints are kept there, and a training that was stopped goes on from
        the newest. Raises UserError for an unknown run or layer, a width that does not fit, too
        few tokens.
        """
        workspace = store.workspace if isinstance(store, LocalStore) else store
        manifest, layer, source = open_layer(workspace, run_id, layer_signature)
        history = self.train_on(source, config, progress, folder)
        outlier_norm = self.sae.metadata.outlier_norm
        self.sae.metadata = replace(_metadata(manifest, layer), outlier_norm=outlier_norm)
        return history

    def train_on(
        self,
        source: TokenSource,
        config: SaeTrainingConfig | None = None,
        progress: Progress | None = None,
        folder: str | Path | None = None,
    ) -> dict[str, list[Any]]:
        """The same on any source of tokens."""
        progress = progress or NullProgress()
        folder = None if folder is None else Path(folder)
        plan = make_plan(self.sae, source, config or SaeTrainingConfig())
        state, table = _initial_state(self.sae, source, plan, folder)
        with flushed_denormals():
            run_training(state, source, table, progress, folder)
        state.finish()
        self.sae.eval().requires_grad_(False)
        self.sae.metadata = replace(self.sae.metadata, outlier_norm=plan.outlier_norm)
        seconds = float(table.rows[-1]["seconds"] or 0.0)
        self.result = _measure(self.sae, source, plan, seconds, folder.name if folder else "")
        progress.log(
            f"held-out FVU {self.result.fvu:.4f}, L0 {self.result.l0:.1f}, "
            f"dead {self.result.dead_share:.1%}"
        )
        return table.history()


def train_run(
    workspace: Workspace,
    config: TrainConfig,
    progress: Progress | None = None,
    sae_dir: Path | None = None,
) -> TrainResult:
    """Trains an SAE of the workspace as `config` says; `sae_dir` (None: a new one) is its folder.

    A folder that holds a checkpoint is gone on with. Raises UserError, before any folder is made,
    for an unknown run or layer, k above the number of latents, too few tokens.
    """
    manifest, layer, source = open_layer(workspace, config.run_id, config.layer)
    if manifest.status != "complete":
        raise UserError(
            f"run {config.run_id!r} is not complete", hint="wait for its capture or resume it"
        )
    sae = _new_sae(config, layer)
    make_plan(sae, source, config.training)
    if sae_dir is None:
        short = f"{config.arch}-{layer.point}-{sae.n_latents}"
        sae_dir = workspace.make_sae_dir(config.name, short)
    elif (sae_dir / CONFIG_NAME).is_file():
        return _finished_result(sae_dir)

    trainer = SaeTrainer(sae)
    trainer.train(workspace, config.run_id, layer.name, config.training, progress, sae_dir)
    assert trainer.result is not None
    write_json(
        sae_dir / TRAINING_NAME,
        {"config": asdict(config), "result": trainer.result.as_json()},
    )
    sae.save(sae_dir)
    remove_checkpoints(sae_dir / CHECKPOINTS_NAME)
    return trainer.result


def open_layer(
    workspace: Workspace, run_id: str, layer: str
) -> tuple[RunManifest, LayerSpec, RunSource]:
    """A run's manifest, one of its layers, and that layer's tokens. Raises NotFoundError."""
    run_dir = workspace.run_dir(run_id)
    manifest = RunManifest.load(run_dir)
    spec = manifest.layer(layer)
    return manifest, spec, RunSource(RunReader(run_dir, spec.name))


def _new_sae(config: TrainConfig, layer: LayerSpec) -> TopKSae:
    n_latents = config.n_latents or int(config.expansion * layer.width)
    device = torch_device(config.device)
    return TopKSae(n_latents, layer.width, config.k, device, seed=config.training.seed)


def _metadata(manifest: RunManifest, layer: LayerSpec) -> SaeMetadata:
    return SaeMetadata(
        model_name=manifest.model_id,
        hook_name=hook_name_of(layer.point, layer.name),
        layer=layer.name,
        point=layer.point,
        revision=manifest.revision,
        tokenizer_hash=manifest.tokenizer_hash,
        run_id=manifest.run_id,
        context_size=manifest.settings.get("context_length"),
    )


def _initial_state(
    sae: SparseAutoencoder, source: TokenSource, plan: TrainingPlan, folder: Path | None
) -> tuple[TrainState, MetricsTable]:
    """From the newest checkpoint in `folder` where there is one, else from the start."""
    state = TrainState(sae.train().requires_grad_(True), plan)
    kept = None if folder is None else newest_checkpoint(folder / CHECKPOINTS_NAME)
    if folder is None or kept is None:
        state.start(starting_point(source, plan))
        return state, MetricsTable()
    tensors, facts = kept
    if facts.get("plan") != plan.as_json():
        raise UserError(
            f"the checkpoint in {str(folder)!r} was made with other settings",
            hint="train with the same settings or into another folder",
        )
    state.restore(tensors, facts)
    return state, MetricsTable.read(folder / METRICS_NAME, state.step)


def _measure(
    sae: SparseAutoencoder, source: TokenSource, plan: TrainingPlan, seconds: float, sae_id: str
) -> TrainResult:
    """The figures that are reported: held-out quality, and latents dead on training tokens."""
    quality = heldout_quality(sae, source, plan.outlier_norm)
    densities = latent_densities(sae, source, plan.outlier_norm)
    return TrainResult(
        sae_id=sae_id,
        steps=plan.steps,
        tokens=plan.steps * plan.batch_size,
        fvu=quality.fvu,
        fvu_all=quality.fvu_all,
        outlier_share=quality.outlier_share,
        l0=quality.l0,
        dead_share=float((densities == 0).double().mean()),
        seconds=seconds,
    )


def _finished_result(sae_dir: Path) -> TrainResult:
    """What an SAE's folder says that its training came to."""
    try:
        return TrainResult(**read_json(sae_dir / TRAINING_NAME)["result"])
    except (KeyError, TypeError) as error:
        raise CorruptDataError(f"{sae_dir / TRAINING_NAME} holds no result") from error
