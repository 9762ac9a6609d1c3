"""Training SAEs in place on any source of tokens: the trainer and its results."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from mi_crow.errors import UserError
from mi_crow.mechanistic.sae.base import SparseAutoencoder, is_by_latent
from mi_crow.mechanistic.sae.config import ON_HELDOUT, SaeTrainingConfig
from mi_crow.mechanistic.sae.parallel.mesh import open_sharing
from mi_crow.mechanistic.sae.parallel.settings import check_pieces, check_whitened
from mi_crow.mechanistic.sae.quality import DENSE, heldout_quality, latent_densities
from mi_crow.mechanistic.sae.sharing import SINGLE_PROCESS, Sharing
from mi_crow.mechanistic.sae.source import ShuffledSource, TokenSource
from mi_crow.mechanistic.sae.train.checkpoint import newest_checkpoint
from mi_crow.mechanistic.sae.train.checkpoint_writer import CHECKPOINTS_NAME, METRICS_NAME
from mi_crow.mechanistic.sae.train.loggers import RunLogger, open_logger
from mi_crow.mechanistic.sae.train.loop import Feed, Training, run_training
from mi_crow.mechanistic.sae.train.metrics import MetricsTable
from mi_crow.mechanistic.sae.train.plan import TrainingPlan, make_plan, starting_point
from mi_crow.mechanistic.sae.train.state import TrainState
from mi_crow.mechanistic.sae.train.whitening import whitening_of
from mi_crow.progress import NullProgress, Progress
from mi_crow.ranks import ALONE, Ranks
from mi_crow.same_fields import same_fields
from mi_crow.store.local import LocalStore
from mi_crow.store.workspace import Workspace

# When checkpoints are written decides nothing of what is trained.
_OF_CHECKPOINTS = ("checkpoint_every", "checkpoint_minutes")


@dataclass(frozen=True)
class TrainResult:
    """The result of a training; quality is measured on held-out tokens."""

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
    # Of a finetune: how much the SAE adds to the model's cross-entropy on held-out documents.
    ce_added: float | None = None
    ce_added_before: float | None = None
    others: tuple["TrainResult", ...] = ()  # the other SAEs of a sweep

    def as_json(self) -> dict[str, Any]:
        """The fields that were measured; for a sweep also `saes`, one object per SAE."""
        own = {
            key: value
            for key, value in asdict(self).items()
            if key != "others" and value is not None
        }
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
        """Trains on a captured layer and returns the history: one value per logged step for `loss`,
        `r2`, `l0`, `dead_features`, `fvu` and more. The final figures are in `result`.

        A transcoder also needs the layer that it predicts. Checkpoints are kept in `folder`, and a
        training that was stopped resumes from the newest. Raises UserError for an unknown run or
        layer, a width that does not fit, or too few tokens.
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
        """The same on any source of tokens; for a transcoder each row is an input followed by its
        target."""
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
    """Weights & Biases if `use_wandb` asks for it and its package is installed, else none."""
    if config is None or not config.use_wandb or config.wandb_mode == "disabled":
        return RunLogger()
    try:
        return open_logger("wandb", Path(folder or "sae-training"), asdict(config), progress.log)
    except UserError as error:
        progress.log(f"{error.sentence}; the training continues without it")
        return RunLogger()


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Treats denormal floats as zero inside the block, and as before afterwards.

    On CPU they slow the tails of an optimizer a hundredfold, but the setting is process-wide, and
    a library must not leave it changed.
    """
    before = bool(torch.full((1,), 1e-40) * torch.ones(1) == 0)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


@dataclass(frozen=True)
class Trained:
    """Result and history of one trained SAE."""

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
    feed: Feed | None = None,
    copies: int = 1,
    gradients: str = "fp32",
) -> list[Trained]:
    """Trains several SAEs in place, step by step, on one read of `source`.

    They may differ in everything except what decides the data: steps, batch size, seed, outliers
    and shuffling. The results are those of training each separately. `folders`: one per SAE, for
    checkpoints, from which a stopped training resumes.

    Several processes (`ranks`, all make the same call) split either the `tokens` of each batch or
    the `latents`, or, with several `copies` whose latents are split, both; see `sharing.py` and
    `parallel/mesh.py`. Gradients are summed in fp32 or, at half the traffic, in bf16 (`gradients`).
    Each process has the trained SAEs in the end. SAEs whose latents are
    split need not fit on `device`, where each process trains its part, and may be on the CPU.

    `loggers`, one per SAE, receive the rows of its metrics; they are left open. `feed` (None: the
    tokens of `source`) is what a step learns from.

    Raises UserError when settings, widths or tokens do not fit.
    """
    progress = progress or NullProgress()
    configs = _each(config, len(saes))
    places = [None if folder is None else Path(folder) for folder in folders or [None] * len(saes)]
    device = device or saes[0].device
    plans = _agreed(make_plans(saes, source, configs, device), ranks)
    check_whitened(any(plan.whiten for plan in plans), ranks.world)
    latents = ", ".join(f"{sae.n_latents:,}" for sae in saes)
    length = f"{plans[0].steps:,} steps of {plans[0].batch_size:,} tokens"
    progress.log(f"training {latents} latents: {length}")
    read = ShuffledSource(source) if plans[0].shuffled else source
    trainings = [
        _begin_or_resume(
            sae,
            read,
            plan,
            folder,
            open_sharing(ranks, shares, device, sae.n_latents, copies, gradients),
            progress.log,
        )
        for sae, plan, folder in zip(saes, plans, places, strict=True)
    ]
    for training, logger in zip(trainings, loggers or (), strict=False):
        training.logger = logger
    with flushed_denormals():
        run_training(trainings, read, progress, feed)
    progress.log(ON_HELDOUT)
    trained = []
    for sae, training in zip(saes, trainings, strict=True):
        training.state.finish()
        result = _measure(training, read)
        _take_back(sae, training.state)
        sae.metadata = replace(sae.metadata, outlier_norm=training.state.plan.outlier_norm)
        progress.log(
            f"{result.sae_id + ': ' if len(trainings) > 1 else ''}held-out FVU {result.fvu:.4f}, "
            f"L0 {result.l0:.1f}, dead {result.dead_share:.1%}"
        )
        trained.append(Trained(result, training.table.history()))
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
    """The plans of the first process: others may measure a last digit differently."""
    if ranks.world == 1:
        return plans
    for plan in plans:
        check_pieces(plan.batch_size, ranks.world * plan.accumulate)
    return [TrainingPlan(**fields) for fields in ranks.agree([plan.as_json() for plan in plans])]


def _begin_or_resume(
    sae: SparseAutoencoder,
    source: TokenSource,
    plan: TrainingPlan,
    folder: Path | None,
    sharing: Sharing,
    tell: Callable[[str], None] | None = None,
) -> Training:
    """Resumes from the newest checkpoint in `folder` if there is one, else starts anew."""
    state = TrainState(sae.train().requires_grad_(True), plan)
    found = None if folder is None else newest_checkpoint(folder / CHECKPOINTS_NAME, tell)
    table = MetricsTable()
    if folder is None or found is None:
        if plan.whiten:
            state.whitening = whitening_of(source, plan.outlier_norm, plan.shrinkage)
        state.start(starting_point(sae, source, plan, state.whitening))
    else:
        tensors, facts = found
        _refuse_other_settings(facts.get("settings"), state.settings(), folder)
        state.restore(tensors, facts)
        table = MetricsTable.read(folder / METRICS_NAME, state.step, tell)
    return Training(state.share(sharing), table, folder)


def _take_back(sae: SparseAutoencoder, state: TrainState) -> None:
    """Copies the trained weights into the caller's SAE and ends its training mode."""
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
        if name in _OF_CHECKPOINTS:
            continue
        if kept.get(name) != now.get(name) or (name in kept) != (name in now):
            raise UserError(
                f"the checkpoint in {str(folder)!r} was made with other settings: {name} was "
                f"{kept.get(name, 'not set')}, now it is {now.get(name, 'not set')}",
                hint="train with the same settings or into another folder",
            )


def _measure(training: Training, source: TokenSource) -> TrainResult:
    """The reported figures: held-out quality, and dead and dense shares on training tokens."""
    sae, plan = training.state.sae, training.state.plan
    quality = heldout_quality(sae, source, plan.outlier_norm)
    densities = latent_densities(sae, source, plan.outlier_norm)
    dead, dense = sae.sharing.total_over_latents(
        torch.stack([(densities == 0).sum(), (densities > DENSE).sum()])
    ).tolist()
    return same_fields(
        TrainResult,
        quality,
        sae_id=training.folder.name if training.folder else "",
        steps=plan.steps,
        tokens=plan.steps * plan.batch_size,
        dead_share=dead / training.state.n_latents,
        dense_share=dense / training.state.n_latents,
        seconds=float(training.table.rows[-1]["seconds"] or 0.0),
        n_latents=training.state.n_latents,
    )
