"""Evaluating an SAE over several layers: what of each layer is left unexplained, what is active."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from mi_crow.errors import UserError
from mi_crow.mechanistic.sae.cross_layer.latent_scaling import latent_scaling
from mi_crow.mechanistic.sae.cross_layer.reading import layers_read
from mi_crow.mechanistic.sae.cross_layer.sae import CrossLayerSae
from mi_crow.mechanistic.sae.cross_layer.shared import SharedCrosscoder
from mi_crow.mechanistic.sae.cross_layer.two_models import TwoModelCrosscoder
from mi_crow.mechanistic.sae.evaluation.config import LOSS, PROBES, RECONSTRUCTION, EvaluateConfig
from mi_crow.mechanistic.sae.evaluation.documents import heldout_documents
from mi_crow.mechanistic.sae.evaluation.layers_loss import layers_loss
from mi_crow.mechanistic.sae.evaluation.measures import model_of, probe_figures
from mi_crow.mechanistic.sae.evaluation.model_loss import loss_batches
from mi_crow.mechanistic.sae.fitting import check_captured_with, check_run, check_width, run_of
from mi_crow.mechanistic.sae.quality import (
    BATCH,
    DENSE,
    DENSITY_TOKENS,
    HELDOUT_TOKENS,
    FvuSums,
)
from mi_crow.mechanistic.sae.source import HELDOUT, fixed_batches
from mi_crow.mechanistic.sae.targets import check_same_points
from mi_crow.progress import LOADING, Progress, raise_if_stopped
from mi_crow.share import WHOLE, Share
from mi_crow.store.runs.joined import JoinedReader, JoinedTokens
from mi_crow.store.workspace import Workspace

if TYPE_CHECKING:
    from mi_crow.language_model.language_model import LanguageModel


def evaluate_across(
    workspace: Workspace,
    config: EvaluateConfig,
    sae: CrossLayerSae,
    progress: Progress,
    lm: "LanguageModel | None" = None,
    share: Share = WHOLE,
    sae_dir: Path | None = None,
) -> dict[str, Any]:
    """FVU on held-out tokens, of all layers, each in units of its own, and of each; L0, dead and
    dense shares, of each layer too where its latents are its own; of two models how many latents
    belong to each, see `latent_scaling`. The model's loss is measured with all layers that it
    predicts replaced at once (see `layers_loss`), probes on latents of all layers.

    Several processes share the documents of the loss and of the probes; all else is measured in the
    first one, which alone returns every figure. `sae_dir`: the SAE's folder, where it is not that
    workspace's.

    Raises UserError where the SAE and the run do not fit, NotFoundError for a layer it lacks.
    """
    tokens = _tokens(workspace, config, sae)
    if not tokens.count(HELDOUT):
        raise UserError(
            f"run {tokens.readers[0].manifest.run_id!r} contains no held-out documents",
            hint="a tenth of the documents is held out: capture more of them",
        )
    reader = JoinedReader(tokens.readers[: len(sae.layers)], sae.metadata.hook_name)
    documents = heldout_documents(reader, config.documents, config.seed)
    if lm is None:
        progress.log(LOADING)
        lm = model_of(reader.manifest, config)
    hint = "leave out --model, or give one with the same tokenizer"
    check_captured_with(lm.model_id, lm.tokenizer_hash, reader.manifest, hint)
    check_same_points(lm, sae, [one.layer for one in reader.readers], config.sae_id)
    figures: dict[str, Any] = {}
    means = torch.zeros(sae.n_outputs)
    progress.log(RECONSTRUCTION)
    if share.is_first:
        figures, means = _figures(sae, tokens, progress)
    means = torch.from_numpy(share.gather({"means": means.numpy()})[0]["means"])
    if share.is_first and isinstance(sae, TwoModelCrosscoder):
        scaling = latent_scaling(sae, tokens, progress)
        scaling.write(sae_dir or workspace.sae_dir(config.sae_id))
        figures["origins"] = scaling.counts()
    progress.log(LOSS)
    size = loss_batches(config.batch_size, lm.device, progress)
    losses = layers_loss(lm, sae, means, documents, progress, size, share)
    progress.log(PROBES)
    return {
        "run_id": tokens.readers[0].manifest.run_id,
        "model_id": lm.model_id,
        **figures,
        **losses,
        **size.used(),
        "probes": probe_figures(sae, reader, config.seed, progress, share),
        "documents": len(documents),
    }


@torch.inference_mode()
def _figures(
    sae: CrossLayerSae, tokens: JoinedTokens, progress: Progress
) -> tuple[dict[str, Any], Tensor]:
    """What is read from stored tokens, and the means of what is predicted: [n_outputs]."""
    scales = _columns(tokens)
    found = _Sums(sae, scales[:, sae.n_inputs :] if scales.shape[1] > sae.n_inputs else scales)
    for rows in tokens.sample(HELDOUT_TOKENS, 0, HELDOUT).split(BATCH):
        raise_if_stopped(progress, resumable=False)
        found.add(rows / scales)
    counts = torch.zeros(sae.n_latents, dtype=torch.int64)
    totals = torch.zeros(sae.n_outputs, dtype=torch.float64)
    n = 0
    for rows in fixed_batches(tokens, DENSITY_TOKENS, None, BATCH):
        raise_if_stopped(progress, resumable=False)
        plain = rows / scales
        plain = plain[_ordinary(sae, plain[:, : sae.n_inputs])]
        totals += plain[:, -sae.n_outputs :].sum(0, dtype=torch.float64)
        values, entries = sae.encode_entries(plain[:, : sae.n_inputs].to(sae.device))
        counts += torch.bincount(entries.columns[values > 0], minlength=sae.n_latents).cpu()
        n += len(plain)
    figures = {
        **found.readings(),
        "dead_share": float((counts == 0).double().mean()),
        "dense_share": float((counts > DENSE * n).double().mean()),
        "layers": found.by_layer(counts),
    }
    return figures, (totals / max(n, 1)).float()


class _Sums:
    """What is added up over held-out tokens."""

    def __init__(self, sae: CrossLayerSae, scales: Tensor) -> None:
        self._sae, self._scales = sae, scales
        cpu = torch.device("cpu")
        self._kept, self._all = FvuSums(sae.n_outputs, cpu), FvuSums(sae.n_outputs, cpu)
        self._layers = [FvuSums(width, cpu) for width in sae.output_widths]
        self._active = torch.zeros(sae.n_latents, dtype=torch.int64)
        self._cosine = 0.0

    def add(self, rows: Tensor) -> None:
        """Inputs, followed by the targets where these are others, as they were captured."""
        sae = self._sae
        x, target = rows[:, : sae.n_inputs], rows[:, -sae.n_outputs :]
        out, latents = sae(x.to(sae.device))
        out, keep = out.float().cpu(), _ordinary(sae, x)
        wanted, got = target * self._scales, out * self._scales
        self._all.add(wanted, got)
        self._kept.add(wanted[keep], got[keep])
        self._cosine += float(cosine_similarity(wanted[keep], got[keep]).double().sum())
        parts = zip(
            self._layers,
            target[keep].split(list(sae.output_widths), 1),
            out[keep].split(list(sae.output_widths), 1),
            strict=True,
        )
        for sums, own, reconstruction in parts:
            sums.add(own, reconstruction)
        values, indices = latents.values.cpu()[keep], latents.indices.cpu()[keep]
        self._active += torch.bincount(indices[values > 0], minlength=sae.n_latents)

    def readings(self) -> dict[str, Any]:
        kept = max(self._kept.tokens, 1)
        fvu = self._kept.fvu()
        return {
            "fvu": fvu,
            "fvu_all": self._all.fvu(),
            "explained_variance": 1 - fvu,
            "cosine": self._cosine / kept,
            "outlier_share": 1 - self._kept.tokens / self._all.tokens,
            "l0": int(self._active.sum()) / kept,
            "tokens": self._all.tokens,
        }

    def by_layer(self, counts: Tensor) -> list[dict[str, Any]]:
        """The figures of each layer; of shared latents it has none of its own."""
        sae, kept, found = self._sae, max(self._kept.tokens, 1), []
        for place, number in enumerate(sae.layer_numbers):
            one: dict[str, Any] = {
                "layer": sae.target_layers[place],
                "fvu": self._layers[place].fvu(),
            }
            if not isinstance(sae, SharedCrosscoder):
                own = [*sae.latents_at(number)]
                one["l0"] = int(self._active[own].sum()) / kept
                one["dead_share"] = float((counts[own] == 0).double().mean())
            found.append(one)
        return found


def _tokens(workspace: Workspace, config: EvaluateConfig, sae: CrossLayerSae) -> JoinedTokens:
    run_id = run_of(config.sae_id, config.run_id, sae.metadata.run_id)
    same = sae.layers == sae.target_layers
    writes = () if same else sae.target_layers
    readers = layers_read(workspace, sae, config.sae_id, run_id, config.tuned_run, writes)
    meta = sae.metadata
    widths: Sequence[int] = (*sae.widths, *(() if same else sae.output_widths))
    for reader, width in zip(readers, widths, strict=True):
        reader.manifest.require_complete()
        check_run(config.sae_id, meta.model_name, meta.tokenizer_hash, reader.manifest)
        where = f"layer {reader.layer.name!r} of run {reader.manifest.run_id!r}"
        check_width(f"SAE {config.sae_id!r}", width, where, reader.width)
    return JoinedTokens(readers, len(sae.layers))


def _columns(tokens: JoinedTokens) -> Tensor:
    """The scale of each column: [1, width]."""
    pairs = zip(tokens.widths, tokens.scales, strict=True)
    return torch.cat([torch.full((1, width), scale) for width, scale in pairs], dim=1)


def _ordinary(sae: CrossLayerSae, x: Tensor) -> Tensor:
    """Which rows are no outliers at any layer: bool [n]."""
    limit = sae.metadata.outlier_norm
    if limit is None:
        return torch.ones(len(x), dtype=torch.bool)
    norms = [part.norm(dim=1) for part in x.split(list(sae.widths), dim=1)]
    return torch.stack(norms).amax(0) <= limit
