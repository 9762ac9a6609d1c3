"""How good an SAE is, from its files: as evaluated, else as its training ended or its
import was checked. Torch-free."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mi_crow.errors import MiCrowError
from mi_crow.store.evaluation_file import TRAINING_NAME
from mi_crow.store.json_file import read_object
from mi_crow.store.workspace import SaeSummary

_MEASURED = {"evaluation": "evaluated", "training": "as trained", "check": "as checked"}


@dataclass(frozen=True)
class Standing:
    """Measurements on held-out tokens, or on those of an import's check; None for what was not
    measured."""

    sae_id: str
    fvu: float | None = None
    l0: float | None = None
    dead_share: float | None = None
    source: str = ""  # evaluation | training | check; empty: not measured
    loss_recovered: float | None = None
    ce_added: float | None = None  # nats that replacing the activations costs
    c_dec: float | None = None  # mean |cosine| of two decoder rows; see `decoder_correlation`
    probe_accuracy: float | None = None  # of probes on the most latents, mean over labels

    @property
    def measured(self) -> str:
        """How it was measured, in words; empty where it was not."""
        return _MEASURED.get(self.source, "")

    def as_json(self) -> dict[str, Any]:
        keys = ("fvu", "l0", "dead_share", "loss_recovered", "ce_added", "c_dec")
        keys += ("probe_accuracy", "source")
        return {key: getattr(self, key) for key in keys}


def standing_of(sae: SaeSummary) -> Standing:
    """The best readings there are of one SAE."""
    if sae.evaluation:
        return _standing(sae.sae_id, sae.evaluation, "evaluation")
    if sae.trained or not sae.checked:
        return _standing(sae.sae_id, sae.trained, "training")
    return _standing(sae.sae_id, sae.checked, "check")


def training_of(sae: SaeSummary) -> dict[str, Any]:
    """What the SAE's training wrote of itself: `config` and `result`; empty without it."""
    path = sae.path / TRAINING_NAME
    try:
        return dict(read_object(path).values)
    except (MiCrowError, OSError):
        return {}


def _standing(sae_id: str, readings: Mapping[str, Any], source: str) -> Standing:
    def reading(name: str) -> float | None:
        value = readings.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        return None

    fvu, l0, dead = reading("fvu"), reading("l0"), reading("dead_share")
    source = source if fvu is not None else ""
    costs = reading("loss_recovered"), reading("ce_added"), reading("c_dec")
    return Standing(sae_id, fvu, l0, dead, source, *costs, _probe_accuracy(readings))


def _probe_accuracy(readings: Mapping[str, Any]) -> float | None:
    """That of the probes on the most latents."""
    probes = readings.get("probes")
    scores = probes.get("latents_accuracy") if isinstance(probes, dict) else None
    if not isinstance(scores, dict):
        return None
    known = {
        int(k): float(score)
        for k, score in scores.items()
        if str(k).isdecimal() and isinstance(score, int | float) and not isinstance(score, bool)
    }
    return known[max(known)] if known else None
