"""Which class each architecture's name is, and which of a job's settings it takes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from mi_crow.mechanistic.sae.base import SparseAutoencoder
from mi_crow.mechanistic.sae.config import TrainConfig
from mi_crow.mechanistic.sae.rules.batchtopk import BatchTopKSae
from mi_crow.mechanistic.sae.rules.gated import GatedSae
from mi_crow.mechanistic.sae.rules.jumprelu import JumpReluSae
from mi_crow.mechanistic.sae.rules.l1 import L1Sae
from mi_crow.mechanistic.sae.rules.matryoshka import MatryoshkaSae
from mi_crow.mechanistic.sae.rules.topk import TopKSae
from mi_crow.mechanistic.sae.rules.transcoder import JumpReluTranscoder, ReluTranscoder, Transcoder


@dataclass(frozen=True)
class Architecture:
    """One row of the table."""

    sae: Callable[..., SparseAutoencoder]
    takes: tuple[str, ...] = ()  # fields of TrainConfig that the constructor takes by this name


TABLE: dict[str, Architecture] = {
    "topk": Architecture(TopKSae, ("k",)),
    "batchtopk": Architecture(BatchTopKSae, ("k",)),
    "matryoshka": Architecture(MatryoshkaSae, ("k",)),
    "jumprelu": Architecture(JumpReluSae),
    "l1": Architecture(L1Sae),
    "gated": Architecture(GatedSae),
    "transcoder": Architecture(Transcoder, ("k", "skip")),
    "transcoder-l1": Architecture(ReluTranscoder, ("skip",)),
    "transcoder-jumprelu": Architecture(JumpReluTranscoder, ("skip",)),
}


def new_sae(
    config: TrainConfig, n_inputs: int, n_outputs: int | None, device: str | torch.device
) -> SparseAutoencoder:
    """A fresh SAE as `config` says (not a sweep); `n_outputs` for transcoders alone."""
    row = TABLE[config.arch]
    fields: dict[str, Any] = {name: getattr(config, name) for name in row.takes}
    if n_outputs is not None:
        fields["n_outputs"] = n_outputs
    n_latents = config.n_latents or int(config.expansion * n_inputs)
    return row.sae(n_latents, n_inputs, device=device, seed=config.training.seed, **fields)
