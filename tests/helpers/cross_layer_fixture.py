"""A small cross-layer transcoder and a crosscoder for the tests' tiny model of three blocks."""

import torch
from torch import Tensor

from mi_crow.mechanistic.sae import CrossLayerSae, SaeMetadata
from mi_crow.mechanistic.sae.cross_layer.kinds import Crosscoder, CrossLayerTranscoder
from mi_crow.mechanistic.sae.cross_layer.record import CrossLayerRecord, LayerRecord
from mi_crow.mechanistic.sae.cross_layer.refs import TensorRef

WIDTH, LATENTS = 32, 40  # of each layer


def small(kind: str, numbers: tuple[int, ...] = (0, 1, 2), model: str = "") -> CrossLayerSae:
    """Random, with about half of the latents active; `kind` clt or crosscoder."""
    generator = torch.Generator().manual_seed(len(numbers))

    def drawn(*shape: int) -> TensorRef:
        return TensorRef.of(0.3 * torch.randn(*shape, generator=generator))

    clt = kind == "clt"
    read, written = ("mlp_in.{}", "mlp_out.{}") if clt else ("resid_post.{}", "resid_post.{}")
    layers = tuple(
        LayerRecord(
            number,
            read.format(number),
            written.format(number),
            drawn(LATENTS, WIDTH),
            drawn(LATENTS),
            {to: drawn(LATENTS, WIDTH) for to in numbers[at:]},
            drawn(WIDTH),
            TensorRef.of(torch.full((LATENTS,), 0.1)),
            drawn(WIDTH, WIDTH) if clt else None,
        )
        for at, number in enumerate(numbers)
    )
    architecture = "cross_layer_transcoder" if clt else "crosscoder"
    record = CrossLayerRecord(architecture, layers, SaeMetadata(model_name=model))
    made = CrossLayerTranscoder if clt else Crosscoder
    return made(record.checked("a test"))


def dense(sae: CrossLayerSae, x: dict[int, Tensor]) -> Tensor:
    """Latents [..., all] of activations by layer, one number each."""
    return torch.cat([*sae.encode(x).values()], dim=-1)
