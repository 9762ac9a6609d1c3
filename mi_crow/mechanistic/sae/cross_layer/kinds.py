"""The two kinds of cross-layer SAEs, and opening one."""

from pathlib import Path
from typing import ClassVar

import torch

from mi_crow.mechanistic.sae.cross_layer.record import CROSSCODER, TRANSCODER, CrossLayerRecord
from mi_crow.mechanistic.sae.cross_layer.sae import CrossLayerSae
from mi_crow.mechanistic.sae.cross_layer.shared import SharedCrosscoder
from mi_crow.mechanistic.sae.cross_layer.two_models import TwoModelCrosscoder


class CrossLayerTranscoder(CrossLayerSae):
    """Predicts what the MLPs of several layers add to the stream."""

    architecture: ClassVar[str] = TRANSCODER


class Crosscoder(CrossLayerSae):
    """Reconstructs the activations of the layers that it reads, each latent from one of them."""

    architecture: ClassVar[str] = CROSSCODER


def open_cross_layer(
    record: CrossLayerRecord, place: Path, device: str | torch.device, dtype: torch.dtype | None
) -> CrossLayerSae:
    """The SAE of a record; `dtype` None is that of the file, else float32."""
    kind = CrossLayerTranscoder if record.architecture == TRANSCODER else Crosscoder
    if record.shared:
        kind = TwoModelCrosscoder if record.models else SharedCrosscoder
    return kind(record, device=device, dtype=dtype or record.dtype or torch.float32, place=place)
