"""Changing what a model does through its features: interventions, generation, measured effects.

Names load on first use, so that interventions cost no torch.
"""

from typing import TYPE_CHECKING, Any

from mi_crow.lazy import lazy_exports

if TYPE_CHECKING:
    from mi_crow.mechanistic.steering.interventions import Intervention, parse_intervention
    from mi_crow.mechanistic.steering.run import inspect_text, steer_prompt
    from mi_crow.mechanistic.steering.steer import steering

_ROOM = "mi_crow.mechanistic.steering"
_EXPORTS = {
    "Intervention": f"{_ROOM}.interventions",
    "inspect_text": f"{_ROOM}.run",
    "parse_intervention": f"{_ROOM}.interventions",
    "steer_prompt": f"{_ROOM}.run",
    "steering": f"{_ROOM}.steer",
}

__all__ = ["Intervention", "inspect_text", "parse_intervention", "steer_prompt", "steering"]


def __getattr__(name: str) -> Any:
    return lazy_exports(__name__, _EXPORTS, name)
