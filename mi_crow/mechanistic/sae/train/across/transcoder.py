"""Cross-layer transcoders in training: latents of each layer that write to it and all later ones.

Ameisen et al. 2025, "Circuit tracing", section 2: z_l = act(x_l W_enc,l^T + b_enc,l), y_l = b_dec,l
+ sum over m <= l of z_m W_dec,ml; what sparsity weighs of a latent is its activation times the norm
of all that it writes, which is one here. In place of their penalty the rule is BatchTopK's: of n
tokens the n k strongest latents of all layers, then a threshold (Bussmann et al. 2024).
"""

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from mi_crow.mechanistic.sae.base import SparseAutoencoder
from mi_crow.mechanistic.sae.cross_layer.record import TRANSCODER, CrossLayerRecord, LayerRecord
from mi_crow.mechanistic.sae.cross_layer.refs import TensorRef
from mi_crow.mechanistic.sae.kernels.entries import (
    Entries,
    decode_entries,
    encode_above,
    entries_above,
    pre_activations,
)
from mi_crow.mechanistic.sae.kernels.unit_rows import random_unit_rows
from mi_crow.mechanistic.sae.metadata import SaeMetadata
from mi_crow.mechanistic.sae.outputs import LossContext, SparseLatents, TrainingOutput
from mi_crow.mechanistic.sae.rules.batchtopk import KEPT, SAFE
from mi_crow.mechanistic.sae.rules.dead_latents import part_of_dead
from mi_crow.mechanistic.sae.rules.losses import variance_share
from mi_crow.mechanistic.sae.rules.topk import check_k
from mi_crow.mechanistic.sae.sharing import SINGLE_PROCESS, Sharing


class _Found(NamedTuple):
    """The entries of one layer."""

    values: Tensor  # [e]
    entries: Entries


class CltShape(NamedTuple):
    """Shapes of a cross-layer transcoder."""

    layers: int
    width: int  # of each input and each output
    latents: int  # of each layer


class BatchTopKClt(SparseAutoencoder):
    """Inputs of all layers side by side to outputs of all layers side by side."""

    architecture: ClassVar[str] = TRANSCODER

    def __init__(
        self,
        shape: CltShape,
        k: int,
        *,
        device: str | torch.device = "cpu",
        seed: int = 0,
    ) -> None:
        """`k`: active latents per token, over all layers."""
        check_k(k, shape.layers * shape.latents)
        nn.Module.__init__(self)  # none of the parameters of an SAE of one layer
        self.shape: CltShape = shape
        self.k: int = k
        self.n_latents: int = shape.layers * shape.latents
        self.n_inputs: int = shape.layers * shape.width
        self.n_outputs: int = self.n_inputs
        self.transcodes: bool = True
        self.apply_b_dec_to_input: bool = False
        self.input_norm = "none"
        self.centred = False
        self.metadata: SaeMetadata = SaeMetadata()
        self.sharing: Sharing = SINGLE_PROCESS
        generator = torch.Generator().manual_seed(seed)

        def drawn(width: int) -> nn.Parameter:
            return nn.Parameter(random_unit_rows(shape.latents, width, generator, "cpu").to(device))

        later = range(shape.layers, 0, -1)  # how many layers each one writes to
        self.encoders: nn.ParameterList = nn.ParameterList([drawn(shape.width) for _ in later])
        self.biases: nn.ParameterList = nn.ParameterList(
            [nn.Parameter(torch.zeros(shape.latents, device=device)) for _ in later]
        )
        # Of each layer the rows into itself and all later ones, side by side.
        self.decoders: nn.ParameterList = nn.ParameterList([drawn(n * shape.width) for n in later])
        self.b_dec: nn.Parameter = nn.Parameter(torch.zeros(self.n_outputs, device=device))
        self.threshold: Tensor
        self.register_buffer("threshold", torch.zeros((), device=device))

    def config(self) -> dict[str, Any]:
        return {"k": self.k, "rule": "batchtopk", **self.shape._asdict()}

    @property
    def device(self) -> torch.device:
        return self.b_dec.device

    @property
    def dtype(self) -> torch.dtype:
        return self.b_dec.dtype

    def unit_rows(self) -> tuple[Tensor, ...]:
        return tuple(self.decoders)

    @torch.no_grad()
    def normalise_decoder(self) -> None:
        for decoder in self.decoders:
            decoder.div_(_norms(decoder)[:, None])

    @torch.no_grad()
    def fold_decoder_norms(self) -> None:
        """Does nothing: a fresh one has unit rows, and none is trained further."""

    @torch.no_grad()
    def fold_scale(self, scale: float, output_scale: float | None = None) -> None:
        output_scale = scale if output_scale is None else output_scale
        for tensor in (*self.biases, self.threshold):
            tensor.div_(scale)
        self.b_dec.div_(output_scale)
        for decoder in self.decoders:
            decoder.mul_(scale / output_scale)

    def training_output(self, x: Tensor, target: Tensor, context: LossContext) -> TrainingOutput:
        """Losses `reconstruction` and, with dead latents, `auxk`."""
        inputs = self._by_layer(x)
        found = self._strongest(inputs)
        residual = target - (self._decoded(found, len(x)) + self.b_dec)
        fvu = variance_share(residual, context)
        losses = {"reconstruction": fvu, **self._auxk(inputs, residual, context)}
        return TrainingOutput(losses, fvu.detach(), self._numbered(found))

    def _encode_rows(self, x: Tensor) -> SparseLatents:
        found = [
            _Found(*encode_above(*operands, self.threshold.clamp_min(0)))
            for operands in self._operands(self._by_layer(x.to(self.dtype)))
        ]
        rows, order = torch.cat([one.entries.rows for one in found]).sort(stable=True)
        entries = Entries(self._numbered(found)[order], rows, len(x), self.n_latents)
        values = torch.cat([one.values for one in found])[order]
        return SparseLatents(*entries.padded(values))

    def decode_sparse(self, latents: SparseLatents, x: Tensor | None = None) -> Tensor:
        shape = latents.values.shape
        values = latents.values.reshape(-1, shape[-1])
        indices = latents.indices.reshape(-1, shape[-1])
        found = []
        for layer in range(self.shape.layers):
            own = indices - layer * self.shape.latents
            inside = (own >= 0) & (own < self.shape.latents)
            entries = Entries.of_topk(torch.where(inside, own, 0), self.shape.latents)
            found.append(_Found(torch.where(inside, values, 0).reshape(-1), entries))
        out = self._decoded(found, len(values)) + self.b_dec
        return out.view(*shape[:-1], self.n_outputs)

    # One layer after the other.

    def _by_layer(self, x: Tensor) -> tuple[Tensor, ...]:
        return x.split(self.shape.width, dim=-1)

    def _operands(self, inputs: Sequence[Tensor]) -> list[tuple[Tensor, Tensor, Tensor]]:
        return list(zip(inputs, self.encoders, self.biases, strict=True))

    def _numbered(self, found: Sequence[_Found]) -> Tensor:
        """The latents of all entries, numbered among those of all layers."""
        first = range(0, self.n_latents, self.shape.latents)
        return torch.cat([one.entries.columns + at for at, one in zip(first, found, strict=True)])

    def _decoded(self, found: Sequence[_Found], n: int) -> Tensor:
        """What all latents write, [n, n_outputs]."""
        total: Tensor | None = None
        for layer, (one, decoder) in enumerate(zip(found, self.decoders, strict=True)):
            rows = decode_entries(one.values, one.entries, decoder)
            rows = functional.pad(rows, (layer * self.shape.width, 0))
            total = rows if total is None else total + rows
        assert total is not None
        return total

    def _strongest(self, inputs: Sequence[Tensor]) -> list[_Found]:
        """The n k largest positive pre-activations of all layers, differentiable."""
        operands, sharing = self._operands(inputs), self.sharing
        n = torch.tensor(len(inputs[0]), device=self.device)
        wanted = self.k * int(sharing.total_over_tokens(n))
        # Batches differ by some percent: well below the running mean there is always enough.
        guess = SAFE * float(self.threshold)
        found = _above(operands, guess)
        if guess > 0 and self._count(found) < wanted:
            found = _above(operands, 0.0)
        if self._count(found) > wanted:
            least = sharing.nth_largest(torch.cat([one.values for one in found]), wanted)
            kept = [(one.values >= least).nonzero()[:, 0] for one in found]
            found = [
                _Found(one.values[places], one.entries.select(places))
                for one, places in zip(found, kept, strict=True)
            ]
        self._follow(torch.cat([one.values for one in found]))
        return [
            _Found(pre_activations(*own, one.values, one.entries), one.entries)
            for own, one in zip(operands, found, strict=True)
        ]

    def _count(self, found: Sequence[_Found]) -> int:
        """How many entries all processes have."""
        own = sum(one.values.numel() for one in found)
        return int(self.sharing.total(torch.tensor(own, device=self.device)))

    @torch.no_grad()
    def _follow(self, values: Tensor) -> None:
        """Moves the threshold towards the least of the batch's activations [e]."""
        # Padded, since infinity would come from the host, and the device be waited for.
        least = self.sharing.minimum(functional.pad(values, (0, 1), value=torch.inf).min())
        moved = torch.where(self.threshold == 0, least, self.threshold.lerp(least, 1 - KEPT))
        self.threshold.copy_(torch.where(least.isfinite(), moved, self.threshold))

    def _auxk(
        self, inputs: Sequence[Tensor], residual: Tensor, context: LossContext
    ) -> dict[str, Tensor]:
        """What the dead latents of each layer make of what the live ones left over; {} without
        dead ones (see `auxk_loss`). Each layer has its part of `k_aux`."""
        if context.dead is None or context.aux_alpha <= 0:
            return {}
        size, most = self.shape.latents, max(1, context.k_aux // self.shape.layers)
        total, active = torch.zeros_like(residual), 0
        for layer, operands in enumerate(self._operands(inputs)):
            own = context.dead - layer * size
            dead = own[(own >= 0) & (own < size)]
            if not dead.numel():
                continue
            k = min(most, dead.numel())
            x, encoder, bias = operands
            encoder, bias = encoder.index_select(0, dead), bias.index_select(0, dead)
            decoder = self.decoders[layer].index_select(0, dead)
            part = part_of_dead(x.detach(), encoder, bias, decoder, k, self.sharing)
            total = total + functional.pad(part, (layer * self.shape.width, 0))
            active += k
        weight = context.aux_alpha * min(active / context.k_aux, 1.0)
        return {"auxk": weight * variance_share(residual.detach() - total, context)}


def _above(operands: Sequence[tuple[Tensor, Tensor, Tensor]], floor: float) -> list[_Found]:
    detached = ([tensor.detach() for tensor in one] for one in operands)
    return [_Found(*entries_above(x, rows, bias, floor)) for x, rows, bias in detached]


def _norms(rows: Tensor) -> Tensor:
    """[M], never 0."""
    return torch.linalg.vector_norm(rows, dim=1).clamp_min_(torch.finfo(rows.dtype).tiny)


@torch.no_grad()
def transcoder_record(
    sae: BatchTopKClt,
    layers: Sequence[tuple[int, str, str]],
    scales: Sequence[float],
    metadata: SaeMetadata,
) -> CrossLayerRecord:
    """The trained transcoder, which takes each input times its scale and gives each output times
    its own, as one of plain activations. `layers`: the number of each block and the hook points
    that are read and written; `scales`: those of all inputs, then those of all outputs."""
    read, written = scales[: len(layers)], scales[len(layers) :]
    numbers = [number for number, _, _ in layers]
    centres = sae.b_dec.split(sae.shape.width)
    records = []
    for place, (number, name, target) in enumerate(layers):
        blocks = sae.decoders[place].split(sae.shape.width, dim=1)
        decoders = {
            to: _held(block / scale)
            for to, block, scale in zip(numbers[place:], blocks, written[place:], strict=True)
        }
        records.append(
            LayerRecord(
                number,
                name,
                target,
                _held(sae.encoders[place] * read[place]),
                _held(sae.biases[place]),
                decoders,
                _held(centres[place] / written[place]),
                _held(sae.threshold.expand(sae.shape.latents)),
            )
        )
    return CrossLayerRecord(TRANSCODER, tuple(records), metadata, torch.float32).checked(
        "the trained transcoder"
    )


def _held(tensor: Tensor) -> TensorRef:
    return TensorRef.of(tensor.detach().float().contiguous())
