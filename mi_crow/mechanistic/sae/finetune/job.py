"""The work of a training job that finetunes: an SAE, its run and its model."""

from dataclasses import replace
from pathlib import Path

from mi_crow.errors import UserError
from mi_crow.mechanistic.sae.base import SparseAutoencoder
from mi_crow.mechanistic.sae.centring import set_centring
from mi_crow.mechanistic.sae.config import TrainConfig
from mi_crow.mechanistic.sae.evaluation.config import EvaluateConfig
from mi_crow.mechanistic.sae.evaluation.documents import heldout_documents
from mi_crow.mechanistic.sae.evaluation.evaluate import substitution_in
from mi_crow.mechanistic.sae.evaluation.measures import model_of
from mi_crow.mechanistic.sae.finetune.documents import DocumentBatches
from mi_crow.mechanistic.sae.finetune.kl import KlFeed
from mi_crow.mechanistic.sae.formats.load import load_sae
from mi_crow.mechanistic.sae.run_tokens import open_tokens
from mi_crow.mechanistic.sae.train.run import TrainResult, finished, train_run
from mi_crow.progress import NullProgress, Progress
from mi_crow.ranks import ALONE, Ranks
from mi_crow.store.runs.reader import RunReader
from mi_crow.store.workspace import Workspace

_HELDOUT_DOCUMENTS = EvaluateConfig("").documents


def finetune_run(
    workspace: Workspace,
    config: TrainConfig,
    progress: Progress | None = None,
    sae_dir: Path | None = None,
    ranks: Ranks = ALONE,
) -> TrainResult:
    """Trains the SAE that `config.init` names further, on the documents of its run in their model;
    the result is a new SAE in `sae_dir` (None: a new folder), with the cross-entropy that it adds
    before and after. Resumes in a folder that holds checkpoints.

    Raises UserError for several processes, and for what `train_run` and an evaluation refuse.
    """
    progress = progress or NullProgress()
    if ranks.world > 1:
        raise UserError("a finetune runs in one process", hint="leave out --launcher and --nproc")
    if sae_dir is not None and (result := finished(sae_dir)) is not None:
        return result
    init = config.init or ""
    tokens = open_tokens(workspace, config.run_id, config.layer, config.target_layer)
    tokens.manifest.require_complete()
    lm = model_of(tokens.manifest, EvaluateConfig("", device=config.device))
    sae = load_sae(workspace.sae_or_path(init), lm.device)
    if not isinstance(sae, SparseAutoencoder):
        raise UserError(
            f"{init!r} reads several layers: it is not finetuned", hint="name an SAE of one"
        )
    substitution = substitution_in(lm, sae, tokens, init)
    if set_centring(lm, sae):
        raise UserError(
            "an SAE for centred activations cannot be trained further", hint="train a new one"
        )
    factor = config.training.outlier_factor  # the same tokens are replaced before and after
    limit = None if factor is None else factor * tokens.source.median_norm()
    sae.metadata = replace(sae.metadata, outlier_norm=limit)
    reader = RunReader(workspace.run_dir(config.run_id), tokens.layer.name)
    training = config.training
    documents = DocumentBatches(reader, training.batch_size, training.seed)
    heldout = heldout_documents(reader, _HELDOUT_DOCUMENTS, training.seed)
    feed = KlFeed(substitution, documents, heldout, progress)
    return train_run(workspace, config, progress, sae_dir, feed=feed)
