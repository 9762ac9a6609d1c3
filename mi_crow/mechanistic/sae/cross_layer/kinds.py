"""The two kinds of cross-layer SAEs: opening one, and the layers that its latents are of."""

from collections.abc import Sequence
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


def own_layers(sae: CrossLayerSae, latents: Sequence[int]) -> list[str]:
    """The hook points that these latents are of, see `norms`. Raises UserError for one that is not
    there."""
    numbers = [sae.layer_of(latent)[0] for latent in latents]
    if isinstance(sae, SharedCrosscoder):
        return [sae.layers[sae.strongest[latent]] for latent in latents]
    return [sae.layers[sae.layer_numbers.index(number)] for number in numbers]
