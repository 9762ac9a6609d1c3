"""Sparse autoencoders: architectures, kernels, trainer, formats, evaluation.

Names load on first use, so that `config` costs no torch.
"""

from typing import TYPE_CHECKING, Any

from mi_crow.lazy import lazy_exports

if TYPE_CHECKING:
    from mi_crow.mechanistic.sae.base import SaeOutput, SparseAutoencoder, SparseLatents
    from mi_crow.mechanistic.sae.config import EvaluateConfig, SaeTrainingConfig, TrainConfig
    from mi_crow.mechanistic.sae.load import load_sae
    from mi_crow.mechanistic.sae.metadata import SaeMetadata
    from mi_crow.mechanistic.sae.topk import TopKSae
    from mi_crow.mechanistic.sae.train import SaeTrainer

_ROOM = "mi_crow.mechanistic.sae"
_EXPORTS = {
    "EvaluateConfig": f"{_ROOM}.config",
    "SaeMetadata": f"{_ROOM}.metadata",
    "SaeOutput": f"{_ROOM}.base",
    "SaeTrainer": f"{_ROOM}.train",
    "SaeTrainingConfig": f"{_ROOM}.config",
    "SparseAutoencoder": f"{_ROOM}.base",
    "SparseLatents": f"{_ROOM}.base",
    "TopKSae": f"{_ROOM}.topk",
    "TrainConfig": f"{_ROOM}.config",
    "load_sae": f"{_ROOM}.load",
}

__all__ = [
    "EvaluateConfig",
    "SaeMetadata",
    "SaeOutput",
    "SaeTrainer",
    "SaeTrainingConfig",
    "SparseAutoencoder",
    "SparseLatents",
    "TopKSae",
    "TrainConfig",
    "load_sae",
]


def __getattr__(name: str) -> Any:
    return lazy_exports(__name__, _EXPORTS, name)
