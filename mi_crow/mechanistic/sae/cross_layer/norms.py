"""How much the latents of an SAE over several layers write to each, and which layer is their own.

A latent of a cross-layer transcoder, and of Gemma Scope 2's crosscoders, is of the layer that it
reads (Ameisen et al. 2025, "Circuit Tracing", section 2). A latent of a crosscoder reads all
layers: it is counted to the one in which its decoder row is longest, since most of them peak in one
layer and decay before and after it (Lindsey et al. 2024, "Sparse crosscoders for cross-layer
features and model diffing"). Rows of different layers are compared in units of each layer's
activations, which grow with depth.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mi_crow.mechanistic.sae.cross_layer.refs import weights

if TYPE_CHECKING:
    from mi_crow.mechanistic.sae.cross_layer.sae import CrossLayerSae

_ROWS = 1 << 14  # of a decoder at once: their squares would take as much memory as the rows
_EXACT = 1e-2  # how near to one the norms of a latent have to add up


def decoder_norms(sae: "CrossLayerSae") -> Tensor:
    """The lengths of the decoder rows of all latents: fp32 [n_latents, layers], the layers in the
    order of `target_layers`; 0 where a latent does not write. Of a crosscoder in units of each
    layer's activations.

    Reads every decoder once and keeps none. Raises CorruptDataError.
    """
    record, cpu = sae.record, torch.device("cpu")
    places = {layer.number: place for place, layer in enumerate(record.layers)}
    found = torch.zeros(record.n_latents, len(places))
    for layer in record.layers:
        own = range(record.n_latents) if record.shared else sae.latents_at(layer.number)
        for to, ref in layer.decoders.items():
            rows = weights(ref, "W_dec", Path(sae.metadata.hook_name), cpu, torch.float32)
            lengths = [torch.linalg.vector_norm(part, dim=1) for part in rows.split(_ROWS)]
            found[own.start : own.stop, places[to]] = torch.cat(lengths)
    return in_own_units(found) if record.shared else found


def in_own_units(norms: Tensor) -> Tensor:
    """The norms [n, layers] of a crosscoder's latents in units of each layer's activations.

    Training compares latents in these units, and our files have them so that the norms of a latent
    add up to one there (`train/across/crosscoder`), which tells the units. Norms that add up to one
    in no units stay as they are.
    """
    a = norms.double()
    # As few equations as there are layers, of which some may say the same.
    sums = (a.t() @ a, a.sum(0)[:, None])
    units = torch.linalg.lstsq(*sums, driver="gelsd").solution[:, 0]
    off = (a @ units - 1).abs()
    fits = bool((units > 0).all()) and bool((off < _EXACT).all())
    return (a * units).float() if fits else norms


def own_places(sae: "CrossLayerSae", norms: Tensor) -> Tensor:
    """The place in `sae.layers` of the layer that each latent is of: int64 [n_latents]. `norms`
    are `decoder_norms`."""
    if sae.record.shared:
        return norms.argmax(dim=1)
    found = torch.zeros(sae.n_latents, dtype=torch.int64)
    for place, number in enumerate(sae.layer_numbers):
        own = sae.latents_at(number)
        found[own.start : own.stop] = place
    return found
