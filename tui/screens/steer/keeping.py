"""Keeping generations in the annotations, with everything that made them."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from tui.screens.steer.kept_reading import as_kept
from tui.screens.steer.writing import PassageDone, Plan, Sample, SideText

if TYPE_CHECKING:
    from mi_crow.mechanistic.concepts.annotations import Annotations


def keep(plan: Plan, done: Sequence[PassageDone], sample: int, annotations: "Annotations") -> str:
    """Saves one sample of every passage beside the baseline, with what wrote it; says how many.

    Reads the SAE's weights once; without their hash where they were replaced since.
    """
    several = any(len(passage.samples) > 1 for passage in done)
    for passage in done:
        shown = sample_of(passage, sample)
        both = replace(shown, baseline=sample_of(done[0], sample).baseline)  # a sweep shares it
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
                **({"sample": sample, "samples": plan.settings.samples} if several else {}),
                **plan.settings.constraint.as_params(),
                **({"messages": plan.chat.as_json()} if plan.chat is not None else {}),
                "prompt_tokens": done[0].prompt_tokens,
                "bos_added": done[0].bos_added,
                "interventions": [one.as_json() for one in plan.stacks[passage.place]],
            },
            baseline=both.baseline.text,
            steered=both.steered.text,
            metrics=dict(passage.metrics) | _own_figures(shown) | as_kept(both),
        )
    return f"Saved {len(done)} generations" if len(done) > 1 else "Saved this generation"


def sample_of(passage: PassageDone, sample: int) -> Sample:
    """One sample of a passage; the first where it has no others."""
    if sample < len(passage.samples):
        return passage.samples[sample]
    return Sample(SideText(passage.baseline), SideText(passage.steered))


def _own_figures(sample: Sample) -> dict[str, float]:
    """What was measured on this sample alone, where it was."""
    kl, perplexity = sample.steered.kl, sample.steered.perplexity
    return {
        name: value for name, value in (("kl", kl), ("perplexity", perplexity)) if value is not None
    }


def _versions() -> dict[str, str]:
    """Versions of what takes part in writing, without importing it."""
    # Reading the metadata of packages takes longer than the rest of opening the screen.
    from importlib.metadata import PackageNotFoundError, version

    from mi_crow import __version__

    found = {"mi_crow": __version__}
    for package in ("torch", "transformers"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
