"""The open feature in the other SAEs of the workspace: which are asked, and the nearest in each."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mi_crow.causes import sentence_of
from mi_crow.errors import MiCrowError
from mi_crow.store.workspace import SaeSummary

if TYPE_CHECKING:
    from mi_crow.mechanistic.concepts.annotations import Annotations

MOST = 6  # SAEs that are asked
_MOST_BYTES = 1 << 30  # of a decoder, which is read whole for each feature
_MOST_AT_ONCE = 64 << 20  # bytes that are read before one notices
_KEPT = 2048  # answers

Mark = tuple[str, int, int, int]


@dataclass(frozen=True)
class Elsewhere:
    """The feature of another SAE whose decoder row is nearest, or why there is none."""

    sae_id: str
    feature: int | None = None
    cosine: float = 0.0
    name: str = ""
    trouble: str = ""

    @property
    def key(self) -> str:
        """What opens it: the SAE and the feature."""
        return f"{self.sae_id}/{'' if self.feature is None else self.feature}"


def others_of(sae: SaeSummary | None, saes: Sequence[SaeSummary]) -> tuple[SaeSummary, ...]:
    """The SAEs whose decoders write into the same space: of the same model and width, those on the
    same layer first, the newest first."""
    if sae is None:
        return ()
    alike = [
        one
        for one in reversed(saes)
        if one.sae_id != sae.sae_id and (one.model_id, _width(one)) == (sae.model_id, _width(sae))
    ]
    return tuple(sorted(alike, key=lambda one: one.layer != sae.layer)[:MOST])


def _width(sae: SaeSummary) -> float:
    """Of a row of the decoder: of an SAE over several layers that of one of them."""
    return sae.n_inputs / max(len(sae.layers), 1)


def takes_long(others: Sequence[SaeSummary]) -> bool:
    """Whether one notices that their decoders are being read."""
    return sum(map(_bytes, others)) > _MOST_AT_ONCE


def _bytes(sae: SaeSummary) -> int:
    return 4 * sae.n_latents * sae.n_inputs


class OtherSaes:
    """Finds the nearest features and keeps what it found; for one thread at a time."""

    def __init__(self) -> None:
        self._found: OrderedDict[tuple[Mark, int, Mark], tuple[int, float] | str] = OrderedDict()

    def look(
        self, own: Path, feature: int, others: Sequence[SaeSummary], annotations: "Annotations"
    ) -> tuple[Elsewhere, ...]:
        """The nearest feature in each of `others` to one of the SAE in the folder `own`. Blocks:
        reads their decoders."""
        return tuple(self._look(own, feature, other, annotations) for other in others)

    def _look(
        self, own: Path, feature: int, other: SaeSummary, annotations: "Annotations"
    ) -> Elsewhere:
        try:
            key = (_mark(own), feature, _mark(other.path))
        except OSError:
            return Elsewhere(other.sae_id, trouble="its weights are not there")
        if key not in self._found:
            self._found[key] = _nearest(own, feature, other)
        self._found.move_to_end(key)
        while len(self._found) > _KEPT:
            self._found.popitem(last=False)
        found = self._found[key]
        if isinstance(found, str):
            return Elsewhere(other.sae_id, trouble=found)
        number, cosine = found
        return Elsewhere(other.sae_id, number, cosine, _name(annotations, other.sae_id, number))


def _mark(folder: Path) -> Mark:
    """Changes when the weights do."""
    status = (folder / "sae_weights.safetensors").stat()
    return str(folder), status.st_mtime_ns, status.st_size, status.st_ino


def _nearest(own: Path, feature: int, other: SaeSummary) -> tuple[int, float] | str:
    from mi_crow.mechanistic.features.similar import DecoderRows, similar_features

    if _bytes(other) > _MOST_BYTES:
        return f"too large to be read: mi-crow feature {feature} --similar-in {other.sae_id}"
    try:
        ours = DecoderRows.open(own, own.name)
        found = similar_features(ours, feature, DecoderRows.open(other.path, other.sae_id), 1)
    except (MiCrowError, OSError) as error:
        return sentence_of(error)
    return (found[0].feature, found[0].cosine) if found else "no feature has a direction"


def _name(annotations: "Annotations", sae_id: str, feature: int) -> str:
    """Its most confident name."""
    try:
        names = annotations.concepts(sae_id, feature)
    except (MiCrowError, OSError):
        return ""  # the table says what is wrong with the annotations
    return max(names, key=lambda one: one.confidence).name if names else ""
