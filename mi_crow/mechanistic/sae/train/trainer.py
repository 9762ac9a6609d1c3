"""Training SAEs in place on any source of tokens: the trainer and what a training comes to."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from mi_crow.errors import UserError
from mi_crow.mechanistic.sae.base import SparseAutoencoder, is_by_latent
from mi_crow.mechanistic.sae.config import SaeTrainingConfig
from mi_crow.mechanistic.sae.quality import DENSE, heldout_quality, latent_densities
from mi_crow.mechanistic.sae.sharing import SINGLE_PROCESS, Sharing, open_sharing
from mi_crow.mechanistic.sae.source import ShuffledSource, TokenSource
from mi_crow.mechanistic.sae.train.checkpoint import newest_checkpoint
from mi_crow.mechanistic.sae.train.denormals import flushed_denormals
from mi_crow.mechanistic.sae.train.loggers import RunLogger, open_logger
from mi_crow.mechanistic.sae.train.loop import CHECKPOINTS_NAME, METRICS_NAME, Lane, run_training
from mi_crow.mechanistic.sae.train.metrics import MetricsTable
from mi_crow.mechanistic.sae.train.plan import TrainingPlan, make_plan, starting_point
from mi_crow.mechanistic.sae.train.state import TrainState
from mi_crow.progress import NullProgress, Progress
from mi_crow.ranks import ALONE, Ranks
from mi_crow.store.local import LocalStore
from mi_crow.store.workspace import Workspace


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
    dense_share: float = 0.0  # latents that fire on more than a tenth of the tokens
    n_latents: int = 0
    others: tuple["TrainResult", ...] = ()  # the other SAEs of a sweep

    def as_json(self) -> dict[str, Any]:
        """The fields; for a sweep also `saes`, with an object for each SAE."""
        own = {key: value for key, value in asdict(self).items() if key != "others"}
        if not self.others:
            return own
        return {**own, "saes": [own, *(other.as_json() for other in self.others)]}


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
        target_layer: str | None = None,
    ) -> dict[str, list[Any]]:
        """Trains on a captured layer and gives the history: one value a logged step for `loss`,
        `r2`, `l0`, `dead_features`, `fvu` and more. The final figures are in `result`.

        A transcoder also needs the layer that it is to predict. With a `folder`, checkpoints are
        kept there, and a training that was stopped goes on from the newest. Raises UserError for
        an unknown run or layer, a width that does not fit, too few tokens.
        """
        from mi_crow.mechanistic.sae.run_tokens import open_tokens

        workspace = store.workspace if isinstance(store, LocalStore) else store
        tokens = open_tokens(workspace, run_id, layer_signature, target_layer)
        history = self.train_on(tokens.source, config, progress, folder)
        outlier_norm = self.sae.metadata.outlier_norm
        self.sae.metadata = replace(tokens.metadata(), outlier_norm=outlier_norm)
        return history

    def train_on(
        self,
        source: TokenSource,
        config: SaeTrainingConfig | None = None,
        progress: Progress | None = None,
        folder: str | Path | None = None,
    ) -> dict[str, list[Any]]:
        """The same on any source of tokens; a transcoder's inputs and targets stand side by side
        in them."""
        logger = _published_logger(config, folder, progress or NullProgress())
        failed = True
        try:
            (trained,) = train_many(
                [self.sae], source, config, progress, [folder], loggers=[logger]
            )
            failed = False
        finally:
            logger.close(failed=failed)
        self.result = trained.result
        return trained.history


def _published_logger(
    config: SaeTrainingConfig | None, folder: str | Path | None, progress: Progress
) -> RunLogger:
    """Weights & Biases where `use_wandb` asks for it and its package is there, else none."""
    if config is None or not config.use_wandb or config.wandb_mode == "disabled":
        return RunLogger()
    try:
        return open_logger("wandb", Path(folder or "sae-training"), asdict(config), progress.log)
    except UserError as error:
        progress.log(f"{error.sentence}; the training goes on without it")
        return RunLogger()


@dataclass(frozen=True)
class Trained:
    """One SAE's part of a training."""

    result: TrainResult
    history: dict[str, list[Any]]


def train_many(
    saes: Sequence[SparseAutoencoder],
    source: TokenSource,
    config: SaeTrainingConfig | Sequence[SaeTrainingConfig] | None = None,
    progress: Progress | None = None,
    folders: Sequence[str | Path | None] | None = None,
    ranks: Ranks = ALONE,
    shares: str = "tokens",
    device: torch.device | None = None,
    loggers: Sequence[RunLogger] | None = None,
) -> list[Trained]:
    """Trains several SAEs in place, step by step side by side, on one read of `source`.

    They may differ in everything but what decides the data: steps, batch size, seed, outliers and
    shuffling. Each comes out as if it had been trained alone. `folders`: one an SAE, for
    checkpoints; a training that was stopped goes on from them.

    Several processes (`ranks`, all call this alike) share either the `tokens` of each batch or the
    `latents`, as `sharing.py` says; each has the trained SAEs in the end. SAEs whose latents are
    shared need not fit `device`, where the shares are trained, and may be on the CPU.

    `loggers`, one an SAE, take the rows of its metrics as they come; they are left open.

    Raises UserError when settings, widths or tokens do not fit.
    """
    progress = progress or NullProgress()
    configs = _each(config, len(saes))
    places = [None if folder is None else Path(folder) for folder in folders or [None] * len(saes)]
    device = device or saes[0].device
    plans = _agreed(make_plans(saes, source, configs, device), ranks)
    read = ShuffledSource(source) if plans[0].shuffled else source
    lanes = [
        _lane(
            sae,
            read,
            plan,
            folder,
            open_sharing(ranks, shares, device, sae.n_latents),
            progress.log,
        )
        for sae, plan, folder in zip(saes, plans, places, strict=True)
    ]
    for lane, logger in zip(lanes, loggers or (), strict=False):
        lane.logger = logger
    with flushed_denormals():
        run_training(lanes, read, progress)
    trained = []
    for sae, lane in zip(saes, lanes, strict=True):
        lane.state.finish()
        result = _measure(lane, read)
        _take_back(sae, lane.state)
        sae.metadata = replace(sae.metadata, outlier_norm=lane.state.plan.outlier_norm)
        progress.log(
            f"{result.sae_id + ': ' if len(lanes) > 1 else ''}held-out FVU {result.fvu:.4f}, "
            f"L0 {result.l0:.1f}, dead {result.dead_share:.1%}"
        )
        trained.append(Trained(result, lane.table.history()))
    return trained


def make_plans(
    saes: Sequence[SparseAutoencoder],
    source: TokenSource,
    configs: Sequence[SaeTrainingConfig],
    device: torch.device | None = None,
) -> list[TrainingPlan]:
    """A plan for each SAE, trained on `device` (None: where it is). Raises UserError when they
    cannot share the data."""
    plans = [make_plan(sae, source, one, device) for sae, one in zip(saes, configs, strict=True)]
    for plan in plans[1:]:
        for name in ("steps", "batch_size", "seed", "outlier_norm", "shuffled", "log_every"):
            if getattr(plan, name) != getattr(plans[0], name):
                raise UserError(f"SAEs that train side by side need the same {name}")
    return plans


def _each(
    config: SaeTrainingConfig | Sequence[SaeTrainingConfig] | None, count: int
) -> list[SaeTrainingConfig]:
    if config is None or isinstance(config, SaeTrainingConfig):
        return [config or SaeTrainingConfig()] * count
    return list(config)


def _agreed(plans: list[TrainingPlan], ranks: Ranks) -> list[TrainingPlan]:
    """The plans of the first process: what it measured may differ in the last place elsewhere."""
    if ranks.world == 1:
        return plans
    for plan in plans:
        pieces = ranks.world * plan.accumulate
        if plan.batch_size < pieces:
            raise UserError(
                f"a batch of {plan.batch_size} tokens has no {pieces} pieces",
                hint="raise the batch size or use fewer processes",
            )
    return [TrainingPlan(**fields) for fields in ranks.agree([plan.as_json() for plan in plans])]


def _lane(
    sae: SparseAutoencoder,
    source: TokenSource,
    plan: TrainingPlan,
    folder: Path | None,
    sharing: Sharing,
    tell: Callable[[str], None] | None = None,
) -> Lane:
    """From the newest checkpoint in `folder` where there is one, else from the start."""
    state = TrainState(sae.train().requires_grad_(True), plan)
    kept = None if folder is None else newest_checkpoint(folder / CHECKPOINTS_NAME, tell)
    table = MetricsTable()
    if folder is None or kept is None:
        state.start(starting_point(sae, source, plan))
    else:
        tensors, facts = kept
        _refuse_other_settings(facts.get("settings"), state.settings(), folder)
        state.restore(tensors, facts)
        table = MetricsTable.read(folder / METRICS_NAME, state.step, tell)
    return Lane(state.share(sharing), table, folder)


def _take_back(sae: SparseAutoencoder, state: TrainState) -> None:
    """Brings what was trained into the caller's SAE and takes it out of training."""
    trained, sharing = state.sae, state.sharing
    if trained is not sae:
        with torch.no_grad():
            for name, tensor in sae.state_dict().items():
                part = trained.state_dict()[name]
                tensor.copy_(sharing.gather_latents(part) if is_by_latent(name) else part)
    sae.sharing = SINGLE_PROCESS
    sae.eval().requires_grad_(False)


def _refuse_other_settings(kept: Any, now: dict[str, Any], folder: Path) -> None:
    """Raises UserError naming the first setting that differs from the checkpoint's."""
    kept = kept if isinstance(kept, dict) else {}
    for name in [*now, *(name for name in kept if name not in now)]:
        if kept.get(name) != now.get(name) or (name in kept) != (name in now):
            raise UserError(
                f"the checkpoint in {str(folder)!r} was made with other settings: {name} was "
                f"{kept.get(name, 'not set')}, now it is {now.get(name, 'not set')}",
                hint="train with the same settings or into another folder",
            )


def _measure(lane: Lane, source: TokenSource) -> TrainResult:
    """The figures that are reported: held-out quality, and how often latents fire on training
    tokens."""
    sae, plan = lane.state.sae, lane.state.plan
    quality = heldout_quality(sae, source, plan.outlier_norm)
    densities = latent_densities(sae, source, plan.outlier_norm)
    dead, dense = sae.sharing.total_over_latents(
        torch.stack([(densities == 0).sum(), (densities > DENSE).sum()])
    ).tolist()
    return TrainResult(
        sae_id=lane.folder.name if lane.folder else "",
        steps=plan.steps,
        tokens=plan.steps * plan.batch_size,
        fvu=quality.fvu,
        fvu_all=quality.fvu_all,
        outlier_share=quality.outlier_share,
        l0=quality.l0,
        dead_share=dead / lane.state.n_latents,
        dense_share=dense / lane.state.n_latents,
        seconds=float(lane.table.rows[-1]["seconds"] or 0.0),
        n_latents=lane.state.n_latents,
    )
