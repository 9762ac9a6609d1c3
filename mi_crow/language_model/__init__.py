"""Language models: loading, layers, hooks, inference, generation, capture."""

from typing import TYPE_CHECKING

from mi_crow.lazy import Getter, lazy_exports

if TYPE_CHECKING:
    from mi_crow.language_model.generation import Generation
    from mi_crow.language_model.language_model import LanguageModel
    from mi_crow.language_model.layers import HookPoint

__getattr__: Getter = lazy_exports(
    __name__,
    {
        "generation": ("Generation",),
        "language_model": ("LanguageModel",),
        "layers": ("HookPoint",),
    },
)

__all__ = ["Generation", "HookPoint", "LanguageModel"]
