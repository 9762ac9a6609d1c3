"""Training: the trainer, its loop and state, and a training's place on the disk.

Names load on first use, so that the rooms without torch cost none.
"""

from typing import TYPE_CHECKING

from mi_crow.lazy import Getter, lazy_exports

if TYPE_CHECKING:
    from mi_crow.mechanistic.sae.config import SaeTrainingConfig
    from mi_crow.mechanistic.sae.train.run import SaeTrainer, train_many

__getattr__: Getter = lazy_exports(
    __name__,
    {
        ".config": ("SaeTrainingConfig",),
        "run": ("SaeTrainer", "train_many"),
    },
)

__all__ = ["SaeTrainer", "SaeTrainingConfig", "train_many"]
