"""Evaluating an SAE: reconstruction, sparsity, loss recovered, probes on its latents."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mi_crow.errors import UserError
from mi_crow.language_model.loading import torch_device
from mi_crow.mechanistic.sae.base import SparseAutoencoder
from mi_crow.mechanistic.sae.centring import set_centring
from mi_crow.mechanistic.sae.config import EvaluateConfig
from mi_crow.mechanistic.sae.cross_layer.sae import CrossLayerSae
from mi_crow.mechanistic.sae.evaluation.across import evaluate_across
from mi_crow.mechanistic.sae.evaluation.decoder_correlation import decoder_correlation
from mi_crow.mechanistic.sae.evaluation.document_pooling import pooled_documents
from mi_crow.mechanistic.sae.evaluation.model_loss import ModelLoss, TokenDocument, model_loss
from mi_crow.mechanistic.sae.evaluation.probes import dense_probe_score, sparse_probe_scores
from mi_crow.mechanistic.sae.fitting import (
    check_captured_with,
    check_run,
    check_widths,
    report_differences,
    run_of,
)
from mi_crow.mechanistic.sae.formats.load import load_sae
from mi_crow.mechanistic.sae.quality import (
    DENSE,
    heldout_quality,
    latent_densities,
    mean_target,
)
from mi_crow.mechanistic.sae.run_tokens import RunTokens, open_tokens
from mi_crow.mechanistic.sae.substitute import Substitution
from mi_crow.mechanistic.sae.targets import check_same_point, target_layer
from mi_crow.progress import NullProgress, Progress, raise_if_stopped
from mi_crow.store.atomic import write_json
from mi_crow.store.free_space import explain_shortage
from mi_crow.store.runs.manifest import RunManifest
from mi_crow.store.runs.parts import held_out
from mi_crow.store.runs.reader import RunReader
from mi_crow.store.workspace import Workspace

if TYPE_CHECKING:
    from mi_crow.language_model.language_model import LanguageModel

EVALUATION_NAME = "evaluation.json"
_LESS_MEMORY = "lower --batch-size, or use another --device"


def evaluate_sae(
    workspace: Workspace,
    config: EvaluateConfig,
    progress: Progress | None = None,
    lm: "LanguageModel | None" = None,
) -> dict[str, Any]:
    """Measures an SAE on held-out data, writes `evaluation.json` beside it and returns its content.

    A transcoder is measured by its predictions of its target layer, an SAE over several layers by
    what it leaves unexplained of each, see `evaluate_across`. With `lm` the model is not
    loaded again. Raises UserError, before anything is written, for an unknown SAE or run, a layer
    that the run lacks, a run or model that the SAE does not fit, or a run without held-out
    documents.
    """
    progress = progress or NullProgress()
    sae_dir = workspace.sae_dir(config.sae_id)
    sae = load_sae(sae_dir, torch_device(config.device) if lm is None else lm.device)
    if isinstance(sae, CrossLayerSae):
        with explain_shortage(f"evaluating {config.sae_id!r} on {sae.device}", _LESS_MEMORY):
            found = evaluate_across(workspace, config, sae, progress)
        found = {"sae_id": config.sae_id, **found}
        write_json(sae_dir / EVALUATION_NAME, found)
        return found
    tokens = _tokens(workspace, config, sae)
    reader = RunReader(workspace.run_dir(tokens.manifest.run_id), tokens.layer.name)
    documents = _heldout_documents(reader, config.documents, config.seed)
    lm = lm or _model_of(tokens.manifest, config)
    substitution = _substitution(lm, sae, tokens, config.sae_id)
    if centring := set_centring(lm, sae):
        progress.log(centring)
    report_differences(sae.metadata, tokens.manifest, progress)
    outlier_norm = sae.metadata.outlier_norm

    with explain_shortage(f"evaluating {config.sae_id!r} on {sae.device}", _LESS_MEMORY):
        quality = heldout_quality(sae, tokens.source, outlier_norm)
        densities = latent_densities(sae, tokens.source, outlier_norm)
        mean = mean_target(sae, tokens.source, outlier_norm)
        raise_if_stopped(progress, resumable=False)
        losses = model_loss(substitution, mean, documents, progress, config.batch_size)
        probes = _probes(sae, reader, config.seed, progress)
    result = {
        "sae_id": config.sae_id,
        "run_id": tokens.manifest.run_id,
        "model_id": lm.model_id,
        "fvu": quality.fvu,
        "fvu_all": quality.fvu_all,
        "explained_variance": quality.explained_variance,
        "cosine": quality.cosine,
        "outlier_share": quality.outlier_share,
        "l0": quality.l0,
        "dead_share": float((densities == 0).double().mean()),
        "dense_share": float((densities > DENSE).double().mean()),
        "c_dec": decoder_correlation(sae),
        **_losses(losses),
        "probes": probes,
        "tokens": quality.tokens,
        "documents": len(documents),
    }
    write_json(sae_dir / EVALUATION_NAME, result)
    return result


def _tokens(workspace: Workspace, config: EvaluateConfig, sae: SparseAutoencoder) -> RunTokens:
    """The stored layer that the SAE reads, with the target of a transcoder. Raises UserError when
    they do not fit."""
    metadata, sae_id = sae.metadata, config.sae_id
    run_id = run_of(sae_id, config.run_id, metadata.run_id)
    target = target_layer(sae)
    if target is None:
        raise UserError(
            f"transcoder {sae_id!r} does not name the layer that it predicts",
            hint="import it again with --target-layer",
        )
    tokens = open_tokens(
        workspace, run_id, metadata.layer_signature, target if sae.transcodes else None
    )
    tokens.manifest.require_complete()
    check_run(sae_id, metadata.model_name, metadata.tokenizer_hash, tokens.manifest)
    check_widths(f"SAE {sae_id!r}", sae, f"run {run_id!r}", tokens.widths())
    return tokens


def _substitution(
    lm: "LanguageModel", sae: SparseAutoencoder, tokens: RunTokens, sae_id: str
) -> Substitution:
    """The SAE at its layers of the model. Raises UserError when they do not fit."""
    hint = "leave out --model, or give one with the same tokenizer"
    check_captured_with(lm.model_id, lm.tokenizer_hash, tokens.manifest, hint)
    specs = tokens.layer, tokens.target or tokens.layer
    points = [lm.layers.stored(spec.name, spec.point) for spec in specs]
    check_same_point(lm, sae, tokens.layer, sae_id)
    widths = [(point.point, lm.layers.width(point)) for point in points]
    hint = "leave out --model, or give one of the same shape"
    check_widths(f"SAE {sae_id!r}", sae, f"model {lm.model_id!r}", widths, hint)
    return Substitution(lm, sae, *points)


def _losses(losses: ModelLoss) -> dict[str, float | None]:
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


def _probes(
    sae: SparseAutoencoder, reader: "RunReader", seed: int, progress: Progress
) -> dict[str, Any]:
    """Held-out AUROC and accuracy of probes, means over labels: on k latents, on k columns of the
    raw activations, and on all columns; {} if no label has enough documents."""
    pooled = pooled_documents(sae, reader, seed)
    if pooled is None:
        progress.log("no probes: the run's documents have no labels")
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


def _heldout_documents(reader: "RunReader", limit: int, seed: int) -> Sequence[TokenDocument]:
    """At most `limit` held-out documents of the run, a random sample by `seed`."""
    found: list[tuple[int, int]] = []  # part, row in its table
    for number, part in enumerate(reader.parts()):
        table = part.columns("split", "token_ids")
        # Without a second token there is nothing to predict.
        lengths = np.diff(table["token_ids"].combine_chunks().offsets.to_numpy())
        usable = np.flatnonzero(held_out(table) & (lengths > 1))
        found.extend((number, place) for place in usable.tolist())
    if not found:
        raise UserError(
            f"run {reader.manifest.run_id!r} contains no held-out documents",
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
