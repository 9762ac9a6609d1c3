"""Language models: loading, layers, hooks, inference, generation, capture."""

from typing import TYPE_CHECKING, Any

from mi_crow.lazy import lazy_exports

if TYPE_CHECKING:
    from mi_crow.language_model.generation import Generation
    from mi_crow.language_model.language_model import LanguageModel
    from mi_crow.language_model.layers import HookPoint

_EXPORTS = {
    "Generation": "mi_crow.language_model.generation",
    "HookPoint": "mi_crow.language_model.layers",
    "LanguageModel": "mi_crow.language_model.language_model",
}

__all__ = ["Generation", "HookPoint", "LanguageModel"]


def __getattr__(name: str) -> Any:
    return lazy_exports(__name__, _EXPORTS, name)
