"""The probe results of an evaluation as rows for display. Torch-free."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_MEASURES = {"AUROC": "", "accuracy": "_accuracy"}


@dataclass(frozen=True)
class ProbeRow:
    """Means over labels on held-out documents."""

    probe: str  # its inputs, and the measure
    by_k: dict[str, float]  # on k columns
    everything: float | None  # on all columns


def probe_rows(probes: Mapping[str, Any]) -> list[ProbeRow]:
    """Rows for `probes` of evaluation.json, as far as measured: latents, and for comparison the raw
    activations."""
    raw = probes.get("raw") or {}
    rows = []
    for measure, suffix in _MEASURES.items():
        for name, kind in (("latents", "latents"), ("activations", "residual")):
            by_k = dict(probes.get(f"{kind}{suffix}") or {})
            everything = raw.get(measure.lower()) if kind == "residual" else None
            if by_k or everything is not None:
                rows.append(ProbeRow(f"{name}, {measure}", by_k, everything))
    return rows
