"""SAEs beside each other: what each file declares, what was measured, what it cost. Torch-free."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from mi_crow.mechanistic.sae.evaluation.standing import Standing, standing_of, training_of
from mi_crow.store.workspace import SaeSummary

Curves = Mapping[str, tuple[tuple[float, float], ...]]  # by metric: (tokens, value)


@dataclass(frozen=True)
class SaeFigures:
    """One SAE. What nobody knows is None; times and tokens are those of its training."""

    sae_id: str
    model_id: str
    layer: str
    architecture: str
    n_inputs: int
    n_latents: int
    k: int | None  # as the file declares it
    target_l0: float | None  # what the training aimed for, where it aims
    measured: Standing
    tokens: int | None = None
    steps: int | None = None
    seconds: float | None = None

    @property
    def place(self) -> tuple[str, str]:
        """The model and the layer: L0 and FVU compare between SAEs of one place only."""
        return self.model_id, self.layer

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"measured": self.measured.as_json()}


def figures_of(sae: SaeSummary) -> SaeFigures:
    """Reads the small files of one SAE; those that are damaged count as missing."""
    trained = training_of(sae)
    result, config = _object(trained, "result"), _object(trained, "config")
    target = _number(_object(config, "training"), "target_l0")
    tokens, steps = _number(result, "tokens"), _number(result, "steps")
    return SaeFigures(
        sae.sae_id,
        sae.model_id,
        sae.layer,
        sae.architecture,
        sae.n_inputs,
        sae.n_latents,
        sae.k,
        target,
        standing_of(sae),
        None if tokens is None else round(tokens),
        None if steps is None else round(steps),
        _number(result, "seconds"),
    )


def _object(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = values.get(name)
    return value if isinstance(value, Mapping) else {}


def _number(values: Mapping[str, Any], name: str) -> float | None:
    value = values.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if abs(value) < 1e300 else None
