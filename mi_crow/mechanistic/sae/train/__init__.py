"""Training: the trainer, its loop and state, and a training's place on the disk.

Names load on first use, so that the rooms without torch cost none.
"""

from typing import TYPE_CHECKING, Any

from mi_crow.lazy import lazy_exports

if TYPE_CHECKING:
    from mi_crow.mechanistic.sae.config import SaeTrainingConfig
    from mi_crow.mechanistic.sae.train.run import SaeTrainer, train_many

_EXPORTS = {
    "SaeTrainer": "mi_crow.mechanistic.sae.train.run",
    "SaeTrainingConfig": "mi_crow.mechanistic.sae.config",
    "train_many": "mi_crow.mechanistic.sae.train.run",
}

__all__ = ["SaeTrainer", "SaeTrainingConfig", "train_many"]


def __getattr__(name: str) -> Any:
    return lazy_exports(__name__, _EXPORTS, name)
