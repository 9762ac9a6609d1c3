"""Fills the table of the layers that features of an SAE over several of them are of."""

from typing import Any

import numpy as np
import torch

from mi_crow.mechanistic.features.index.write import TableWriter, equal_lists
from mi_crow.mechanistic.sae.base import SparseAutoencoder
from mi_crow.mechanistic.sae.cross_layer.norms import decoder_norms, own_places
from mi_crow.mechanistic.sae.cross_layer.sae import CrossLayerSae

_AT_ONCE = 1 << 16  # rows appended


@torch.inference_mode()
def write_layers(writer: TableWriter, sae: SparseAutoencoder) -> None:
    """Writes `feature_layers`: nothing for an SAE of one layer. Reads every decoder once."""
    if not isinstance(sae, CrossLayerSae):
        return
    norms = decoder_norms(sae)
    places = own_places(sae, norms).numpy().astype(np.int16)
    for first in range(0, len(places), _AT_ONCE):
        some = slice(first, min(first + _AT_ONCE, len(places)))
        writer.append(
            "feature_layers",
            {
                "feature": np.arange(some.start, some.stop, dtype=np.int32),
                "layer": places[some],
                "norms": equal_lists(norms[some].numpy()),
            },
        )


def layer_facts(sae: SparseAutoencoder) -> dict[str, Any]:
    """What `meta` says of an SAE over several layers: those that it reads, those that it writes to,
    and, where each latent is of the layer that it reads, the first latent of each."""
    if not isinstance(sae, CrossLayerSae):
        return {}
    found: dict[str, Any] = {
        "layers": list(sae.layers),
        "layers_written": list(sae.target_layers),
    }
    if not sae.record.shared:
        found["first_features"] = list(sae.first_latents.values())
    return found
