"""A fresh SAE over several layers, and what becomes of it when it is trained."""

from typing import Any

import torch

from mi_crow.mechanistic.sae.base import SparseAutoencoder
from mi_crow.mechanistic.sae.config import CLT, TrainConfig
from mi_crow.mechanistic.sae.cross_layer.kinds import CrossLayerTranscoder
from mi_crow.mechanistic.sae.cross_layer.sae import CrossLayerSae
from mi_crow.mechanistic.sae.cross_layer.shared import SharedCrosscoder
from mi_crow.mechanistic.sae.cross_layer.two_models import TwoModelCrosscoder
from mi_crow.mechanistic.sae.metadata import SaeMetadata
from mi_crow.mechanistic.sae.train.across.crosscoder import (
    BatchTopKCrosscoder,
    TopKCrosscoder,
    crosscoder_record,
)
from mi_crow.mechanistic.sae.train.across.tokens import LayersOfRun
from mi_crow.mechanistic.sae.train.across.transcoder import (
    BatchTopKClt,
    CltShape,
    transcoder_record,
)
from mi_crow.store.free_space import explain_shortage


def new_across(config: TrainConfig, tokens: LayersOfRun, device: torch.device) -> SparseAutoencoder:
    """A fresh one of `config`, which is not a sweep."""
    width = tokens.layer.width
    latents = config.n_latents or int(config.expansion * width)
    seed = config.training.seed
    with explain_shortage(f"making an SAE of {latents:,} latents on {device}", "train fewer"):
        if config.family == CLT:
            shape = CltShape(len(tokens.reads), width, latents)
            return BatchTopKClt(shape, config.k, device=device, seed=seed)
        kind = BatchTopKCrosscoder if config.arch == "batchtopk" else TopKCrosscoder
        return kind(latents, tokens.source.widths, config.k, device=device, seed=seed)


def finished_across(
    sae: SparseAutoencoder, tokens: LayersOfRun, config: TrainConfig
) -> CrossLayerSae:
    """The trained SAE as it is read from then on, of plain activations."""
    outlier_norm = None
    if config.training.outlier_factor is not None:
        outlier_norm = config.training.outlier_factor * tokens.source.median_largest_norm()
    metadata: SaeMetadata = tokens.metadata(outlier_norm)
    numbers, scales = tokens.numbers, tokens.source.scales
    reads = [tokens.name_of(spec) for spec in tokens.reads]
    place: dict[str, Any] = {"device": sae.device}
    if isinstance(sae, BatchTopKClt):
        names = zip(numbers, reads, map(tokens.name_of, tokens.writes), strict=True)
        return CrossLayerTranscoder(transcoder_record(sae, [*names], scales, metadata), **place)
    layers = [*zip(numbers, reads, strict=True)]
    record = crosscoder_record(sae, layers, scales, metadata, tokens.roles, tokens.models)
    return (TwoModelCrosscoder if tokens.models else SharedCrosscoder)(record, **place)
