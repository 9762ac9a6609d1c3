"""Sparse autoencoders: architectures, kernels, trainer, formats, evaluation.

Names load on first use, so that `config` costs no torch.
"""

from typing import TYPE_CHECKING, Any

from mi_crow.lazy import lazy_exports
from mi_crow.mechanistic.sae.architectures import BY_ARCH, RULES

if TYPE_CHECKING:
    from mi_crow.mechanistic.sae.base import SaeOutput, SparseAutoencoder, SparseLatents
    from mi_crow.mechanistic.sae.config import EvaluateConfig, SaeTrainingConfig, TrainConfig
    from mi_crow.mechanistic.sae.cross_layer.sae import CrossLayerSae
    from mi_crow.mechanistic.sae.evaluation.compare import Comparison, compare_saes
    from mi_crow.mechanistic.sae.formats.load import load_sae
    from mi_crow.mechanistic.sae.metadata import SaeMetadata
    from mi_crow.mechanistic.sae.rules.batchtopk import BatchTopKSae
    from mi_crow.mechanistic.sae.rules.gated import GatedSae
    from mi_crow.mechanistic.sae.rules.jumprelu import JumpReluSae
    from mi_crow.mechanistic.sae.rules.l1 import L1Sae
    from mi_crow.mechanistic.sae.rules.matryoshka import MatryoshkaSae
    from mi_crow.mechanistic.sae.rules.topk import TopKSae
    from mi_crow.mechanistic.sae.rules.transcoder import (
        JumpReluTranscoder,
        ReluTranscoder,
        Transcoder,
    )
    from mi_crow.mechanistic.sae.train.run import SaeTrainer, train_many

_ROOM = "mi_crow.mechanistic.sae"
_EXPORTS = {row.sae: f"{RULES}.{row.module}" for row in BY_ARCH.values()} | {
    "CrossLayerSae": f"{_ROOM}.cross_layer.sae",
    "Comparison": f"{_ROOM}.evaluation.compare",
    "EvaluateConfig": f"{_ROOM}.config",
    "SaeMetadata": f"{_ROOM}.metadata",
    "SaeOutput": f"{_ROOM}.base",
    "SaeTrainer": f"{_ROOM}.train.run",
    "SaeTrainingConfig": f"{_ROOM}.config",
    "SparseAutoencoder": f"{_ROOM}.base",
    "SparseLatents": f"{_ROOM}.base",
    "TrainConfig": f"{_ROOM}.config",
    "compare_saes": f"{_ROOM}.evaluation.compare",
    "load_sae": f"{_ROOM}.formats.load",
    "train_many": f"{_ROOM}.train.run",
}

__all__ = [
    "BatchTopKSae",
    "Comparison",
    "CrossLayerSae",
    "EvaluateConfig",
    "GatedSae",
    "JumpReluSae",
    "JumpReluTranscoder",
    "L1Sae",
    "MatryoshkaSae",
    "ReluTranscoder",
    "SaeMetadata",
    "SaeOutput",
    "SaeTrainer",
    "SaeTrainingConfig",
    "SparseAutoencoder",
    "SparseLatents",
    "TopKSae",
    "TrainConfig",
    "Transcoder",
    "compare_saes",
    "load_sae",
    "train_many",
]


def __getattr__(name: str) -> Any:
    return lazy_exports(__name__, _EXPORTS, name)
