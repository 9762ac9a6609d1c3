"""Changing what a model does through its features: interventions, generation, measured effects.

Names load on first use, so that interventions cost no torch.
"""

from typing import TYPE_CHECKING

from mi_crow.lazy import Getter, lazy_exports

if TYPE_CHECKING:
    from mi_crow.mechanistic.steering.interventions import Intervention, parse_intervention
    from mi_crow.mechanistic.steering.run import inspect_text, steer_prompt
    from mi_crow.mechanistic.steering.steer import steering

__getattr__: Getter = lazy_exports(
    __name__,
    {
        "interventions": ("Intervention", "parse_intervention"),
        "run": ("inspect_text", "steer_prompt"),
        "steer": ("steering",),
    },
)

__all__ = ["Intervention", "inspect_text", "parse_intervention", "steer_prompt", "steering"]
