"""What was read in saved texts, token by token, as it is kept beside them; pure."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mi_crow.mechanistic.concepts.annotations_saved import READINGS
from tui.screens.steer.writing import Sample, SideText

if TYPE_CHECKING:
    from mi_crow.mechanistic.concepts.annotations import SavedGeneration

_MOST_VALUES = 4096  # of one text: the first target's on the longest text, several on a short one
_SIDES = ("baseline", "steered")


def as_kept(shown: Sample) -> dict[str, Any]:
    """What was read in both texts, as JSON; empty where nothing was. Of many targets the first."""
    sides = {name: shown.side(name) for name in _SIDES}
    read = {name: side for name, side in sides.items() if side.tokens and side.targets}
    if not read:
        return {}
    longest = max(len(side.tokens) for side in read.values())
    targets = next(iter(read.values())).targets[: max(_MOST_VALUES // longest, 1)]
    kept = {name: _side(side, len(targets)) for name, side in read.items()}
    return {READINGS: {"targets": list(targets), **kept}}


def _side(side: SideText, targets: int) -> dict[str, Any]:
    plain, steered = ([[pair[at]] for pair in side.promoted[:targets]] for at in (0, 1))
    return {
        "tokens": list(side.tokens),
        "acts": [[float(f"{act:.4g}") for act in acts] for acts in side.acts[:targets]],
        "distinct_2": side.distinct_2,
        "perplexity": side.perplexity,
        "factor": [[float(f"{k:.3g}") for k in one] for one in side.factor[:targets]],
        "promoted_log_p": {"plain": plain, "steered": steered},
    }


def sample_of_saved(saved: "SavedGeneration") -> Sample:
    """Both texts of a saved generation, with what was read in them where that was kept."""
    figures = {name: saved.metrics.get(name) for name in ("kl", "perplexity")}
    try:
        return _with_readings(saved, figures)
    except (AttributeError, KeyError, TypeError, ValueError):  # kept before, or damaged
        return Sample(SideText(saved.baseline), SideText.of({"text": saved.steered, **figures}))


def _with_readings(saved: "SavedGeneration", figures: Mapping[str, Any]) -> Sample:
    """Raises what a damaged reading raises."""
    kept = saved.metrics[READINGS]
    targets = tuple(map(str, kept["targets"]))
    baseline = SideText.of({**kept["baseline"], "text": saved.baseline}, targets)
    steered = SideText.of({**kept["steered"], "text": saved.steered, **figures}, targets)
    for side in (baseline, steered):
        if any(len(acts) != len(side.tokens) for acts in side.acts):
            raise ValueError("not one activation for each token")
    return Sample(baseline, steered)
