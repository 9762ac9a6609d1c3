"""Keeping generations in the annotations, with everything that made them."""

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from mi_crow import __version__
from tui.screens.steer.writing import PassageDone, Plan

if TYPE_CHECKING:
    from mi_crow.mechanistic.concepts.annotations import Annotations


def keep(plan: Plan, done: Sequence[PassageDone], annotations: "Annotations") -> str:
    """Saves every passage beside the baseline, with what wrote it; says how many.

    Reads the SAE's weights once; without their hash where they were replaced since.
    """
    for passage in done:
        origin = passage.origin
        weights = origin.weights.sha256() if origin.weights is not None else None
        annotations.save_generation(
            model_id=origin.model_id,
            revision=origin.revision,
            sae_ids=[origin.sae_id] if origin.sae_id else [],
            weight_hashes=[weights] if weights else [],
            device=origin.device,
            versions=_versions(),
            prompt=plan.prompt,
            seed=plan.settings.seed,
            settings={
                "max_new_tokens": plan.settings.max_new_tokens,
                "temperature": plan.settings.temperature,
                **plan.settings.constraint.as_params(),
                "prompt_tokens": done[0].prompt_tokens,
                "bos_added": done[0].bos_added,
                "interventions": [one.as_json() for one in plan.stacks[passage.place]],
            },
            baseline=done[0].baseline,
            steered=passage.steered,
            metrics=dict(passage.metrics),
        )
    return f"Saved {len(done)} generations" if len(done) > 1 else "Saved this generation"


def _versions() -> dict[str, str]:
    """Versions of what takes part in writing, without importing it."""
    found = {"mi_crow": __version__}
    for package in ("torch", "transformers"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
