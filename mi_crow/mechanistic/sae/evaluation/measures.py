"""What the evaluations of an SAE of one layer and of several layers share."""

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from mi_crow.mechanistic.sae.base import SparseAutoencoder
from mi_crow.mechanistic.sae.evaluation.config import EvaluateConfig
from mi_crow.mechanistic.sae.evaluation.document_pooling import pooled_documents
from mi_crow.mechanistic.sae.evaluation.model_loss import ModelLoss
from mi_crow.mechanistic.sae.evaluation.probes import dense_probe_score, sparse_probe_scores
from mi_crow.progress import Progress
from mi_crow.share import WHOLE, Share
from mi_crow.store.runs.manifest import RunManifest

if TYPE_CHECKING:
    from mi_crow.language_model.language_model import LanguageModel
    from mi_crow.store.runs.joined import JoinedReader
    from mi_crow.store.runs.reader import RunReader


def loss_figures(losses: ModelLoss) -> dict[str, float | None]:
    """What replacing costs the model, as the evaluation says it."""
    return {
        "ce_original": losses.original,
        "ce_reconstructed": losses.reconstructed,
        "ce_zero": losses.zero,
        "ce_mean": losses.mean,
        "ce_added": losses.reconstructed - losses.original,
        "loss_recovered": losses.loss_recovered,
        "loss_recovered_mean": losses.loss_recovered_mean,
        "kl": losses.kl,
    }


def probe_figures(
    sae: SparseAutoencoder,
    reader: "RunReader | JoinedReader",
    seed: int,
    progress: Progress,
    share: Share = WHOLE,
) -> dict[str, Any]:
    """Held-out AUROC and accuracy of probes, means over labels: on k latents, on k columns of the
    raw activations, and on all columns; {} if no label has enough documents, and in all processes
    but the first."""
    pooled = pooled_documents(sae, reader, seed, share)
    if pooled is None and not share.is_first:
        return {}
    if pooled is None:
        progress.log("no probes: the documents have no labels")
        return {}
    latents = sparse_probe_scores(pooled.latents, len(pooled.labels))
    residual = sparse_probe_scores(pooled.residual, len(pooled.labels))
    if math.isnan(next(iter(latents.values())).auroc):
        progress.log(
            "no probes: each label needs documents with and without it, held out and not; "
            "capture more documents of each label"
        )
        return {}
    return {
        "labels": len(pooled.labels),
        "documents": int(pooled.latents.labels.numel()),
        "latents": {str(k): score.auroc for k, score in latents.items()},
        "residual": {str(k): score.auroc for k, score in residual.items()},
        "latents_accuracy": {str(k): score.accuracy for k, score in latents.items()},
        "residual_accuracy": {str(k): score.accuracy for k, score in residual.items()},
        "raw": asdict(dense_probe_score(pooled.residual, len(pooled.labels))),
    }


def model_of(manifest: RunManifest, config: EvaluateConfig) -> "LanguageModel":
    """The model that `config` names, else that of the run."""
    from mi_crow.language_model.config import ModelSpec
    from mi_crow.language_model.language_model import LanguageModel

    if config.model is not None:
        return LanguageModel.from_spec(ModelSpec(config.model, device=config.device))
    return LanguageModel.from_spec(
        ModelSpec(
            manifest.model_id,
            gguf_file=manifest.settings.get("gguf_file"),
            revision=manifest.revision,
            device=config.device,
        )
    )
