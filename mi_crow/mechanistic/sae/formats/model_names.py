"""The model names in SAE files of other tools: those of `language_model.model_names`."""

from mi_crow.language_model.model_names import hub_model

__all__ = ["hub_model"]
