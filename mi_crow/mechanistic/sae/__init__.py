"""Sparse autoencoders: architectures, kernels, trainer, formats, evaluation.

Names load on first use, so that `config` costs no torch.
"""

from typing import TYPE_CHECKING

from mi_crow.lazy import Getter, lazy_exports
from mi_crow.mechanistic.sae.architectures import BY_ARCH

if TYPE_CHECKING:
    from mi_crow.mechanistic.sae.base import SaeOutput, SparseAutoencoder, SparseLatents
    from mi_crow.mechanistic.sae.config import SaeTrainingConfig, TrainConfig
    from mi_crow.mechanistic.sae.cross_layer.sae import CrossLayerSae
    from mi_crow.mechanistic.sae.evaluation.compare import Comparison, compare_saes
    from mi_crow.mechanistic.sae.evaluation.config import EvaluateConfig
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

_RULES = {
    f"rules.{rule.module}": [one.sae for one in BY_ARCH.values() if one.module == rule.module]
    for rule in BY_ARCH.values()
}
__getattr__: Getter = lazy_exports(
    __name__,
    {
        **_RULES,
        "base": ("SaeOutput", "SparseAutoencoder", "SparseLatents"),
        "config": ("SaeTrainingConfig", "TrainConfig"),
        "cross_layer.sae": ("CrossLayerSae",),
        "evaluation.compare": ("Comparison", "compare_saes"),
        "evaluation.config": ("EvaluateConfig",),
        "formats.load": ("load_sae",),
        "metadata": ("SaeMetadata",),
        "train.run": ("SaeTrainer", "train_many"),
    },
)

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
