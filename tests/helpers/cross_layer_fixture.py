"""A small cross-layer transcoder and a crosscoder for the tests' tiny model of three blocks."""

import torch
from torch import Tensor

from mi_crow.mechanistic.sae import CrossLayerSae, SaeMetadata
from mi_crow.mechanistic.sae.cross_layer.kinds import Crosscoder, CrossLayerTranscoder
from mi_crow.mechanistic.sae.cross_layer.record import CrossLayerRecord, LayerRecord, ModelRead
from mi_crow.mechanistic.sae.cross_layer.refs import TensorRef
from mi_crow.mechanistic.sae.cross_layer.shared import SharedCrosscoder
from mi_crow.mechanistic.sae.cross_layer.two_models import TwoModelCrosscoder
from mi_crow.mechanistic.sae.train.across.crosscoder import (
    BatchTopKCrosscoder,
    crosscoder_record,
)

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


def shared(
    numbers: tuple[int, ...], models: tuple[ModelRead, ...] = (), seed: int = 1
) -> SharedCrosscoder:
    """A random crosscoder whose latents read all of these layers, of both models where there are
    two."""
    roles = tuple(model.role for model in models for _ in numbers)
    layers = [(number, f"resid_post.{number}") for number in numbers]
    if models:
        named = [(place, layers[place % len(layers)][1]) for place in range(len(roles))]
        layers = named
    rule = BatchTopKCrosscoder(LATENTS, (WIDTH,) * len(layers), 4, seed=seed).requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    rule.b_dec.copy_(0.1 * torch.randn(WIDTH * len(layers), generator=generator))
    scales = [1.0 + 0.5 * place for place in range(len(layers))]
    metadata = SaeMetadata(model_name=models[-1].name if models else "")
    record = crosscoder_record(rule, layers, scales, metadata, roles, models)
    return (TwoModelCrosscoder if models else SharedCrosscoder)(record)


def dense(sae: CrossLayerSae, x: dict[int, Tensor]) -> Tensor:
    """Latents [..., all] of activations by layer, one number each."""
    return torch.cat([*sae.encode(x).values()], dim=-1)
