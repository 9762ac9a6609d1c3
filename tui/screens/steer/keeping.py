"""Keeping generations in the annotations, with everything that made them."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from mi_crow import __version__
from tui.screens.steer.writing import PassageDone, Plan

if TYPE_CHECKING:
    from mi_crow.mechanistic.concepts.annotations import Annotations
    from tui.context import AppContext

_WEIGHTS = "sae_weights.safetensors"


@dataclass(frozen=True)
class Made:
    """What wrote the texts."""

    model_id: str
    device: str
    sae_id: str | None
    weights: Path | None


def how_made(context: "AppContext") -> Made:
    """The model, the SAE and the device of the session, as they are now."""
    state, sae = context.session_state, context.sae()
    weights = sae.path / _WEIGHTS if sae is not None else None
    return Made(state.model_id, state.device, context.sae_id, weights)


def keep(plan: Plan, done: Sequence[PassageDone], made: Made, annotations: "Annotations") -> str:
    """Saves every passage beside the baseline; says how many. Reads the SAE's weights once."""
    hashes = [_sha256(made.weights)] if made.weights is not None and made.weights.is_file() else []
    for passage in done:
        annotations.save_generation(
            model_id=made.model_id,
            sae_ids=[made.sae_id] if made.sae_id else [],
            weight_hashes=hashes,
            device=made.device,
            versions=_versions(),
            prompt=plan.prompt,
            seed=plan.settings.seed,
            settings={
                "max_new_tokens": plan.settings.max_new_tokens,
                "temperature": plan.settings.temperature,
                "interventions": [one.as_json() for one in plan.stacks[passage.place]],
            },
            baseline=done[0].baseline,
            steered=passage.steered,
            metrics=dict(passage.metrics),
        )
    return f"Saved {len(done)} generations" if len(done) > 1 else "Saved this generation"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _versions() -> dict[str, str]:
    """Versions of what takes part in writing, without importing it."""
    found = {"mi_crow": __version__}
    for package in ("torch", "transformers"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
