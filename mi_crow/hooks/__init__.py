"""Reading and changing a model's activations while it runs: detectors and controllers."""

from typing import TYPE_CHECKING, Any

from mi_crow.lazy import lazy_exports

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

_EXPORTS = {
    "ConditionalController": "mi_crow.hooks.controllers",
    "Controller": "mi_crow.hooks.hook",
    "Detector": "mi_crow.hooks.hook",
    "FunctionController": "mi_crow.hooks.controllers",
    "Hook": "mi_crow.hooks.hook",
    "HookType": "mi_crow.hooks.hook",
    "LayerActivationDetector": "mi_crow.hooks.detectors",
    "ModelInputDetector": "mi_crow.hooks.detectors",
    "ModelOutputDetector": "mi_crow.hooks.detectors",
    "NeuronsController": "mi_crow.hooks.controllers",
    "PipelineController": "mi_crow.hooks.controllers",
    "ScaleController": "mi_crow.hooks.controllers",
    "StatisticsDetector": "mi_crow.hooks.running",
    "first_tensor": "mi_crow.hooks.tensors",
    "replace_tensor": "mi_crow.hooks.tensors",
}

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


def __getattr__(name: str) -> Any:
    return lazy_exports(__name__, _EXPORTS, name)
