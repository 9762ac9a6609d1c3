"""Evaluating an SAE: reconstruction, sparsity, loss recovered, probes on its latents."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mi_crow.errors import UserError
from mi_crow.language_model.loading import torch_device
from mi_crow.mechanistic.sae.base import SparseAutoencoder
from mi_crow.mechanistic.sae.centring import set_centring
from mi_crow.mechanistic.sae.cross_layer.sae import CrossLayerSae
from mi_crow.mechanistic.sae.evaluation.across import evaluate_across
from mi_crow.mechanistic.sae.evaluation.config import LOSS, PROBES, RECONSTRUCTION, EvaluateConfig
from mi_crow.mechanistic.sae.evaluation.decoder_correlation import decoder_correlation
from mi_crow.mechanistic.sae.evaluation.documents import heldout_documents
from mi_crow.mechanistic.sae.evaluation.measures import (
    loss_figures,
    model_of,
    probe_figures,
)
from mi_crow.mechanistic.sae.evaluation.model_loss import loss_batches, model_loss
from mi_crow.mechanistic.sae.evaluation.texts import captured_texts
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
    heldout_sample,
    latent_densities,
    mean_target,
)
from mi_crow.mechanistic.sae.rules.rounding import round_product, share_of_other_sets
from mi_crow.mechanistic.sae.run_tokens import RunTokens, open_tokens
from mi_crow.mechanistic.sae.substitute import Substitution
from mi_crow.mechanistic.sae.targets import check_same_point, target_layer
from mi_crow.progress import LOADING, NullProgress, Progress, raise_if_stopped
from mi_crow.ranks import ALONE, Ranks
from mi_crow.share import Share, shared
from mi_crow.store.atomic import write_json
from mi_crow.store.free_space import explain_shortage
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
    ranks: Ranks = ALONE,
) -> dict[str, Any]:
    """Measures an SAE on held-out data, writes `evaluation.json` beside it and returns its content.

    A transcoder is measured by its predictions of its target layer, an SAE over several layers by
    what it leaves unexplained of each, see `evaluate_across`. Texts (`live`) go through the model
    first, see `captured_texts`. With `lm` the model is not loaded again. Several processes
    (`ranks`) share batches and documents; the first one writes what a single process would write,
    and the others return nothing.

    Raises UserError, before anything is written, for an unknown SAE or run, a layer that the run
    lacks, a run or model that the SAE does not fit, or a run without held-out documents;
    RankLostError when another process is gone.
    """
    progress = progress or NullProgress()
    sae_dir = workspace.sae_dir(config.sae_id)
    sae = load_sae(sae_dir, torch_device(config.device) if lm is None else lm.device)
    round_product(sae, config.sae_id, config.precision, "evaluated")
    doing = explain_shortage(f"evaluating {config.sae_id!r} on {sae.device}", _LESS_MEMORY)
    with doing, shared(ranks, sae_dir, "evaluation") as share:
        if config.live is None:
            found = _measured(workspace, config, sae, progress, lm, share, sae_dir)
        else:
            texts = config.live
            with captured_texts(config, texts, sae, sae_dir, progress, lm, share) as captured:
                runs, over, lm = captured.workspace, captured.config, captured.lm
                found = _measured(runs, over, sae, progress, lm, share, sae_dir)
            found |= {"run_id": None, "dataset": asdict(texts.dataset)}
        if not share.is_first:
            return {}
        found = {"sae_id": config.sae_id, **found}
        write_json(sae_dir / EVALUATION_NAME, found)
        return found


def _measured(
    runs: Workspace,
    config: EvaluateConfig,
    sae: SparseAutoencoder,
    progress: Progress,
    lm: "LanguageModel | None",
    share: Share,
    sae_dir: Path,
) -> dict[str, Any]:
    """The figures over a run that `runs` holds."""
    if isinstance(sae, CrossLayerSae):
        return evaluate_across(runs, config, sae, progress, lm, share, sae_dir)
    return _evaluated(runs, config, sae, progress, lm, share)


def _evaluated(
    workspace: Workspace,
    config: EvaluateConfig,
    sae: SparseAutoencoder,
    progress: Progress,
    lm: "LanguageModel | None",
    share: Share,
) -> dict[str, Any]:
    """The figures of an SAE of one layer; whole in the first process."""
    tokens = _tokens(workspace, config, sae)
    reader = RunReader(workspace.run_dir(tokens.manifest.run_id), tokens.layer.name)
    documents = heldout_documents(reader, config.documents, config.seed)
    if lm is None:
        progress.log(LOADING)
        lm = model_of(tokens.manifest, config)
    substitution = substitution_in(lm, sae, tokens, config.sae_id)
    if centring := set_centring(lm, sae):
        progress.log(centring)
    report_differences(sae.metadata, tokens.manifest, progress)
    outlier_norm = sae.metadata.outlier_norm

    progress.log(RECONSTRUCTION)
    quality = heldout_quality(sae, tokens.source, outlier_norm, share)
    densities = latent_densities(sae, tokens.source, outlier_norm, share)
    mean = mean_target(sae, tokens.source, outlier_norm, share)
    raise_if_stopped(progress, resumable=False)
    progress.log(LOSS)
    size = loss_batches(config.batch_size, lm.device, progress)
    losses = model_loss(substitution, mean, documents, progress, size, share)
    progress.log(PROBES)
    probes = probe_figures(sae, reader, config.seed, progress, share)
    if not share.is_first:
        return {}
    other_sets = share_of_other_sets(sae, heldout_sample(sae, tokens.source, outlier_norm)[0])
    return {
        "run_id": tokens.manifest.run_id,
        "model_id": lm.model_id,
        "fvu": quality.fvu,
        "fvu_all": quality.fvu_all,
        "explained_variance": quality.explained_variance,
        "cosine": quality.cosine,
        **({} if other_sets is None else {"precision": "bf16", "other_sets": other_sets}),
        "outlier_share": quality.outlier_share,
        "l0": quality.l0,
        "dead_share": float((densities == 0).double().mean()),
        "dense_share": float((densities > DENSE).double().mean()),
        "c_dec": decoder_correlation(sae),
        **loss_figures(losses),
        "probes": probes,
        "tokens": quality.tokens,
        "documents": len(documents),
        **size.used(),
    }


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


def substitution_in(
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
