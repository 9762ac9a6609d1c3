"""Evaluating an SAE: reconstruction, sparsity, what it costs its model, what its latents tell."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mi_crow.errors import UserError
from mi_crow.language_model.loading import torch_device
from mi_crow.mechanistic.sae.base import SparseAutoencoder
from mi_crow.mechanistic.sae.config import EvaluateConfig
from mi_crow.mechanistic.sae.document_pooling import pooled_documents
from mi_crow.mechanistic.sae.formats.load import load_sae
from mi_crow.mechanistic.sae.model_loss import ModelLoss, TokenDocument, model_loss
from mi_crow.mechanistic.sae.probes import sparse_probe_scores
from mi_crow.mechanistic.sae.quality import DENSE, heldout_quality, latent_densities
from mi_crow.mechanistic.sae.train import open_layer
from mi_crow.progress import NullProgress, Progress, raise_if_stopped
from mi_crow.store.atomic import write_json
from mi_crow.store.manifest import RunManifest
from mi_crow.store.parts import held_out
from mi_crow.store.workspace import Workspace

if TYPE_CHECKING:
    from mi_crow.language_model.language_model import LanguageModel
    from mi_crow.store.reader import RunReader

EVALUATION_NAME = "evaluation.json"


def evaluate_sae(
    workspace: Workspace,
    config: EvaluateConfig,
    progress: Progress | None = None,
    lm: "LanguageModel | None" = None,
) -> dict[str, Any]:
    """Measures an SAE on held-out data, writes `evaluation.json` beside it and gives its content.

    `lm` spares loading the model again. Raises UserError for an unknown SAE or run, a layer that
    the run does not hold, or a run without held-out documents.
    """
    progress = progress or NullProgress()
    sae_dir = workspace.sae_dir(config.sae_id)
    sae = load_sae(sae_dir, torch_device(config.device) if lm is None else lm.device)
    if sae.transcodes:
        raise UserError(
            f"{config.sae_id!r} is a transcoder: it replaces no layer by its reconstruction",
            hint="its held-out figures are in training.json",
        )
    run_id = config.run_id or sae.metadata.run_id
    if run_id is None:
        raise UserError(
            f"SAE {config.sae_id!r} does not say which run it belongs to", hint="name one (--run)"
        )
    manifest, layer, source = open_layer(workspace, run_id, sae.metadata.layer_signature)
    documents = _heldout_documents(source.reader, config.documents, config.seed)
    outlier_norm = sae.metadata.outlier_norm

    quality = heldout_quality(sae, source, outlier_norm)
    densities = latent_densities(sae, source, outlier_norm)
    raise_if_stopped(progress, resumable=False)
    lm = lm or _model_of(manifest, config)
    losses = model_loss(lm, sae, layer.name, documents, progress)
    result = {
        "sae_id": config.sae_id,
        "run_id": run_id,
        "fvu": quality.fvu,
        "fvu_all": quality.fvu_all,
        "explained_variance": quality.explained_variance,
        "outlier_share": quality.outlier_share,
        "l0": quality.l0,
        "dead_share": float((densities == 0).double().mean()),
        "dense_share": float((densities > DENSE).double().mean()),
        **_losses(losses),
        "probes": _probes(sae, source.reader, config.seed),
        "tokens": quality.tokens,
        "documents": len(documents),
    }
    write_json(sae_dir / EVALUATION_NAME, result)
    return result


def _losses(losses: ModelLoss) -> dict[str, float]:
    return {
        "ce_original": losses.original,
        "ce_reconstructed": losses.reconstructed,
        "ce_zero": losses.zero,
        "ce_added": losses.reconstructed - losses.original,
        "loss_recovered": losses.loss_recovered,
        "kl": losses.kl,
    }


def _probes(sae: SparseAutoencoder, reader: "RunReader", seed: int) -> dict[str, Any]:
    """Mean held-out AUROC of k-sparse probes on latents and on the residual; {} without labels."""
    pooled = pooled_documents(sae, reader, seed)
    if pooled is None:
        return {}
    latents = sparse_probe_scores(pooled.latents, len(pooled.labels))
    residual = sparse_probe_scores(pooled.residual, len(pooled.labels))
    if math.isnan(next(iter(latents.values()))):
        return {}
    return {
        "labels": len(pooled.labels),
        "documents": int(pooled.latents.labels.numel()),
        "latents": {str(k): score for k, score in latents.items()},
        "residual": {str(k): score for k, score in residual.items()},
    }


def _heldout_documents(reader: "RunReader", limit: int, seed: int) -> Sequence[TokenDocument]:
    """At most `limit` held-out documents of the run, drawn by `seed`."""
    found: list[tuple[int, int]] = []  # part, row of its table
    for number, part in enumerate(reader.parts()):
        table = part.columns("split", "token_ids")
        # Without a second token there is nothing to predict.
        lengths = np.diff(table["token_ids"].combine_chunks().offsets.to_numpy())
        usable = np.flatnonzero(held_out(table) & (lengths > 1))
        found.extend((number, place) for place in usable.tolist())
    if not found:
        raise UserError(
            f"run {reader.manifest.run_id!r} holds no held-out documents",
            hint="a tenth of the documents is held out: capture more of them",
        )
    order = torch.randperm(len(found), generator=torch.Generator().manual_seed(seed))
    chosen = [found[i] for i in order[:limit].tolist()]
    documents: dict[tuple[int, int], TokenDocument] = {}
    for number, part in enumerate(reader.parts()):
        places = [place for owner, place in chosen if owner == number]
        rows = part.columns("token_ids", "kept").take(places).to_pylist() if places else []
        for place, row in zip(places, rows, strict=True):
            documents[number, place] = TokenDocument(row["token_ids"], row["kept"])
    return [documents[key] for key in chosen]


def _model_of(manifest: RunManifest, config: EvaluateConfig) -> "LanguageModel":
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
