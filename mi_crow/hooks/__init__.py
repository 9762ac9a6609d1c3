"""Reading and changing a model's activations while it runs: detectors and controllers."""

from typing import TYPE_CHECKING

from mi_crow.lazy import Getter, lazy_exports

if TYPE_CHECKING:
    from mi_crow.hooks.controllers import (
        ConditionalController,
        FunctionController,
        NeuronsController,
        PipelineController,
        ScaleController,
    )
    from mi_crow.hooks.detectors import (
        LayerActivationDetector,
        ModelInputDetector,
        ModelOutputDetector,
    )
    from mi_crow.hooks.hook import Controller, Detector, Hook, HookType
    from mi_crow.hooks.running import StatisticsDetector
    from mi_crow.hooks.tensors import first_tensor, replace_tensor

__getattr__: Getter = lazy_exports(
    __name__,
    {
        "controllers": (
            "ConditionalController",
            "FunctionController",
            "NeuronsController",
            "PipelineController",
            "ScaleController",
        ),
        "detectors": ("LayerActivationDetector", "ModelInputDetector", "ModelOutputDetector"),
        "hook": ("Controller", "Detector", "Hook", "HookType"),
        "running": ("StatisticsDetector",),
        "tensors": ("first_tensor", "replace_tensor"),
    },
)

__all__ = [
    "ConditionalController",
    "Controller",
    "Detector",
    "FunctionController",
    "Hook",
    "HookType",
    "LayerActivationDetector",
    "ModelInputDetector",
    "ModelOutputDetector",
    "NeuronsController",
    "PipelineController",
    "ScaleController",
    "StatisticsDetector",
    "first_tensor",
    "replace_tensor",
]
