"""Cross-layer transcoders and crosscoders: latents of several layers that write to several layers.

z_i = JumpReLU(x_i W_enc,i^T + b_enc,i) of each layer i, or ReLU without a threshold;
y_j = b_dec,j + sum over i <= j of z_i W_dec,ij (+ x_j W_skip,j^T). A transcoder predicts what an
MLP adds at layer j (Ameisen et al. 2025, "Circuit Tracing", section 2), a crosscoder of Gemma
Scope 2 the activations that it reads (McDougall et al. 2025, "Gemma Scope 2").
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple, Self, overload

import torch
from torch import Tensor, nn
from torch.nn import functional

from mi_crow.errors import NotFoundError, UserError
from mi_crow.mechanistic.sae.base import SparseAutoencoder
from mi_crow.mechanistic.sae.cross_layer.record import TRANSCODER, CrossLayerRecord, LayerRecord
from mi_crow.mechanistic.sae.cross_layer.refs import TensorRef, check_finite, weights
from mi_crow.mechanistic.sae.cross_layer.saving import save_layers
from mi_crow.mechanistic.sae.kernels.entries import Entries, decode_entries, encode_above
from mi_crow.mechanistic.sae.metadata import SaeMetadata
from mi_crow.mechanistic.sae.outputs import LossContext, SaeOutput, SparseLatents, TrainingOutput
from mi_crow.mechanistic.sae.sharing import SINGLE_PROCESS

Layers = Mapping[int, Tensor]


class CrossLayerOutput(NamedTuple):
    """One pass at inference, by number of the layer."""

    reconstruction: dict[int, Tensor]  # [..., d]
    latents: dict[int, SparseLatents]  # of that layer alone


class _Encoder(NamedTuple):
    rows: Tensor  # [M, d]
    bias: Tensor  # [M]
    floor: Tensor | float  # [M], what a pre-activation has to exceed


class CrossLayerSae(SparseAutoencoder):
    """Reads the activations of several layers, given by number: `{7: x, 13: y}`, each [..., d].

    As an SAE like others it reads the activations of all layers side by side [..., n_inputs] and
    gives those of all outputs side by side [..., n_outputs]; a latent then has one number among
    those of all layers. No tensor is read before it is needed, and what has been read stays in
    memory until `release`. `train/across` trains them.
    """

    def __init__(
        self,
        record: CrossLayerRecord,
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        place: Path = Path(),
    ) -> None:
        """`place` is for messages about damaged tensors."""
        nn.Module.__init__(self)  # none of the parameters of an SAE of one layer
        self.record = record
        self.metadata: SaeMetadata = record.metadata
        self.n_latents: int = record.n_latents
        self.n_inputs: int = record.n_inputs
        self.n_outputs: int = sum(layer.n_outputs for layer in record.layers)
        self.transcodes = True  # what it predicts is beside what it reads
        self.apply_b_dec_to_input = False
        self.input_norm = "none"
        self.centred = False
        self.sharing = SINGLE_PROCESS
        self._device, self._dtype, self._place = torch.device(device), dtype, place
        self._layers = {layer.number: layer for layer in record.layers}
        self._read: dict[tuple[int, str], Tensor] = {}

    # What it consists of.

    @property
    def layers(self) -> tuple[str, ...]:
        """The hook points that are encoded, in order."""
        return tuple(layer.read for layer in self._layers.values())

    @property
    def target_layers(self) -> tuple[str, ...]:
        """The hook points that are predicted, in order."""
        return tuple(layer.written for layer in self._layers.values())

    @property
    def layer_numbers(self) -> tuple[int, ...]:
        """The numbers of the layers' blocks, in order."""
        return tuple(self._layers)

    @property
    def widths(self) -> tuple[int, ...]:
        """How many numbers it reads at each layer, in order."""
        return tuple(layer.n_inputs for layer in self._layers.values())

    @property
    def output_widths(self) -> tuple[int, ...]:
        """How many numbers it predicts at each layer, in order."""
        return tuple(layer.n_outputs for layer in self._layers.values())

    def latents_at(self, number: int) -> range:
        """The latents of a layer among those of all layers."""
        first = self.first_latents[number]
        return range(first, first + self._layers[number].n_latents)

    @cached_property
    def first_latents(self) -> dict[int, int]:
        """By number of the layer: the first of its latents among those of all layers."""
        counts = [layer.n_latents for layer in self._layers.values()]
        return dict(zip(self._layers, accumulate(counts, initial=0), strict=False))

    def layer_of(self, latent: int) -> tuple[int, int]:
        """The number of the layer that a latent is of, and its number there. Raises UserError."""
        for number in self._layers:
            if latent in self.latents_at(number):
                return number, latent - self.first_latents[number]
        raise UserError(
            f"{latent} is not a feature of this SAE",
            hint=f"it has features 0 to {self.n_latents - 1}",
        )

    @property
    def device(self) -> torch.device:
        return self._device

    @property
    def dtype(self) -> torch.dtype:
        return self._dtype

    @property
    def in_memory(self) -> tuple[str, ...]:
        """The names of the tensors that have been read and not released."""
        return tuple(name for _, name in self._read)

    def release(self, *layers: int) -> None:
        """Forgets the tensors of these layers (of all, if none is given) until they are needed."""
        for key in list(self._read):
            if not layers or key[0] in layers:
                del self._read[key]

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Moves what has been read, and what will be, to another device or dtype."""
        for value in (*args, *kwargs.values()):
            if isinstance(value, torch.dtype):
                self._dtype = value
            elif isinstance(value, str | torch.device):
                self._device = torch.device(value)
        for key, tensor in self._read.items():
            self._read[key] = tensor.to(self._device, self._dtype)
        return self

    # By layer.

    @overload
    def encode(self, x: Tensor) -> Tensor: ...
    @overload
    def encode(self, x: Layers) -> dict[int, Tensor]: ...
    def encode(self, x: Tensor | Layers) -> Tensor | dict[int, Tensor]:
        """Dense latents: of activations by layer {number: [..., d]} those of each layer {number:
        [..., M]}; of activations side by side [..., n_inputs] those of all, [..., n_latents].

        Raises NotFoundError for a layer that it does not read, UserError for another width.
        """
        if isinstance(x, Tensor):
            return super().encode(x)
        found = self.encode_layers(x)
        return {one: latents.dense(self._layers[one].n_latents) for one, latents in found.items()}

    def encode_layers(self, x: Layers) -> dict[int, SparseLatents]:
        """The same, only those that may be active: {number: [..., k]}."""
        found = {}
        for number, rows in x.items():
            values, entries = self._encoded(number, rows.reshape(-1, rows.shape[-1]))
            spread, indices = entries.padded(values)
            shape = (*rows.shape[:-1], spread.shape[-1])
            found[number] = SparseLatents(spread.view(shape), indices.view(shape))
        return found

    @overload
    def forward(self, x: Tensor) -> SaeOutput: ...
    @overload
    def forward(self, x: Layers) -> CrossLayerOutput: ...
    def forward(self, x: Tensor | Layers) -> SaeOutput | CrossLayerOutput:
        """Latents and reconstruction of activations by layer or side by side, see `encode`.

        A layer's reconstruction needs the activations of all layers that write to it. Raises
        UserError naming those that are missing.
        """
        if isinstance(x, Tensor):
            latents = self.encode_sparse(x)
            return SaeOutput(self.decode_sparse(latents, x), latents)
        latents = self.encode_layers(x)
        return CrossLayerOutput({to: self.rebuilt(to, latents, x) for to in x}, latents)

    def written_by(self, number: int) -> tuple[int, ...]:
        """The numbers of the layers that layer `number` writes to."""
        return tuple(self._layers[number].decoders)

    def sources(self, to: int) -> tuple[int, ...]:
        """The numbers of the layers that write to layer `to`."""
        return tuple(number for number, layer in self._layers.items() if to in layer.decoders)

    def writes(self, latents: Sequence[int]) -> dict[int, Tensor]:
        """What one unit of each of these latents, numbered among all, adds to the layers that they
        write to: {number: [n, d]}, zeros where one does not write. Only these rows are read."""
        owners = {self.layer_of(latent)[0] for latent in latents}
        found: dict[int, Tensor] = {}
        for number in sorted(owners):
            for to in self._layers[number].decoders:
                rows = self.rows_into(latents, number, to)
                found[to] = found[to] + rows if to in found else rows
        return dict(sorted(found.items()))

    def rows_into(self, latents: Sequence[int], number: int, to: int) -> Tensor:
        """What those of layer `number` add to layer `to`: [n, d] fp32, zeros for other layers'."""
        own = self.latents_at(number)
        ref = self._layers[number].decoders[to]
        places = [place for place, latent in enumerate(latents) if latent in own]
        rows = torch.zeros(len(latents), ref.shape[1], device=self.device)
        if places:
            read = ref.rows([latents[place] - own.start for place in places])
            rows[places] = read.to(self.device, torch.float32)
            check_finite(rows, "W_dec", ref.source or self._place)
        return rows

    # Side by side.

    def _encode_entries(self, x: Tensor) -> tuple[Tensor, Entries]:
        values, columns, rows = [], [], []
        for number, part in zip(self._layers, x.split(list(self.widths), dim=-1), strict=True):
            found, entries = self._encoded(number, part)
            values.append(found)
            columns.append(entries.columns + self.first_latents[number])
            rows.append(entries.rows)
        order = torch.cat(rows).sort(stable=True)
        entries = Entries(torch.cat(columns)[order.indices], order.values, len(x), self.n_latents)
        return torch.cat(values)[order.indices], entries

    def _encode_rows(self, x: Tensor) -> SparseLatents:
        values, entries = self._encode_entries(x)
        return SparseLatents(*entries.padded(values))

    def decode(self, z: Tensor, x: Tensor | None = None) -> Tensor:
        widths = [layer.n_latents for layer in self._layers.values()]
        z_of = dict(zip(self._layers, z.to(self.dtype).split(widths, dim=-1), strict=True))
        inputs = self._by_layer(x)
        out = []
        for to in self._layers:
            written = [z_of[one] @ self._decoder(one, to) for one in self.sources(to)]
            out.append(self.completed_at(to, torch.stack(written).sum(0), inputs))
        return torch.cat(out, dim=-1)

    def decode_sparse(self, latents: SparseLatents, x: Tensor | None = None) -> Tensor:
        shape = latents.values.shape
        values = latents.values.reshape(-1, shape[-1])
        indices = latents.indices.reshape(-1, shape[-1])
        by_layer: dict[int, SparseLatents] = {}
        for number, layer in self._layers.items():
            own = indices - self.first_latents[number]
            inside = (own >= 0) & (own < layer.n_latents)
            kept = SparseLatents(torch.where(inside, values, 0), torch.where(inside, own, 0))
            by_layer[number] = kept
        inputs = self._by_layer(None if x is None else x.reshape(-1, self.n_inputs))
        out = [self.rebuilt(to, by_layer, inputs) for to in self._layers]
        return torch.cat(out, dim=-1).view(*shape[:-1], self.n_outputs)

    @property
    def decoder_rows(self) -> Tensor:
        """[n_latents, d]: the direction of each latent. Of a transcoder the sum of all that it adds
        to the stream, of a crosscoder what it means at the last layer. Raises UserError where the
        layers have different widths."""
        return self._directions

    @cached_property
    def _directions(self) -> Tensor:
        widths = {layer.n_outputs for layer in self._layers.values()}
        if len(widths) > 1:
            raise UserError("the layers of this SAE have different widths: it has no directions")
        rows = torch.zeros(self.n_latents, widths.pop(), device=self.device)
        last = self.layer_numbers[-1]
        for number, layer in self._layers.items():
            own = rows[self.first_latents[number] :][: layer.n_latents]
            for to, ref in layer.decoders.items():
                if self.architecture == TRANSCODER or to == last:
                    own += weights(ref, "W_dec", self._place, self.device, torch.float32)
        return rows

    def latent_units(self, x: Tensor) -> Tensor | float:
        return 1.0

    # What an SAE of one layer has and this one does not.

    def config(self) -> dict[str, Any]:
        return {}

    def weights(self) -> dict[str, Tensor]:
        """All tensors by the names in our files, read into memory."""
        return {
            name: self._tensor(layer.number, name, ref)
            for layer in self._layers.values()
            for name, ref in layer.tensors().items()
        }

    def save(self, folder: str | Path) -> Path:
        """Writes `sae_weights.safetensors`, one tensor at a time, and then `cfg.json`, which names
        the layers: a layout of our own."""
        return save_layers(self.record, self.metadata, self.dtype, Path(folder), self._place)

    def training_output(self, x: Tensor, target: Tensor, context: LossContext) -> TrainingOutput:
        """Raises UserError: what has been trained is not trained further."""
        raise UserError("a cross-layer SAE cannot be trained further", hint="train a new one")

    # One layer.

    def _encoded(self, number: int, x: Tensor) -> tuple[Tensor, Entries]:
        """The latents of rows [n, d] of one layer."""
        self._check_width(number, x)
        return encode_above(x.to(self.dtype), *self._encoder(number))

    def _check_width(self, number: int, x: Tensor) -> None:
        layer = self._known(number)
        if x.shape[-1] != layer.n_inputs:
            raise UserError(
                f"the activations of layer {number} have width {x.shape[-1]}, the SAE takes "
                f"{layer.n_inputs}",
                hint=f"give those of {layer.read}",
            )

    def rebuilt(self, to: int, latents: Mapping[int, SparseLatents], x: Layers | None) -> Tensor:
        """What is written to one layer [..., d], from the latents of each layer."""
        missing = [one for one in self.sources(to) if one not in latents]
        if missing:
            names = ", ".join(map(str, missing))
            raise UserError(
                f"the reconstruction of layer {to} also needs the activations of layer {names}",
                hint="give them too, or encode this layer alone",
            )
        total: Tensor | None = None
        for one in self.sources(to):
            values, indices = latents[one]
            flat = values.reshape(-1, values.shape[-1])
            entries = Entries.of_topk(indices.reshape(flat.shape), self._layers[one].n_latents)
            rows = decode_entries(flat.reshape(-1), entries, self._decoder(one, to))
            rows = rows.view(*values.shape[:-1], rows.shape[-1])
            total = rows if total is None else total + rows
        assert total is not None  # every layer writes to itself
        return self.completed_at(to, total, x)

    def completed_at(self, to: int, rows: Tensor, x: Layers | None) -> Tensor:
        """What its latents write to one layer, with its bias and skip connection."""
        layer = self._layers[to]
        out = rows + self._tensor(to, f"b_dec.{to}", layer.b_dec)
        if layer.W_skip is None:
            return out
        if x is None:
            raise UserError(
                "this SAE cannot decode latents alone: it has skip connections",
                hint="give the activations too: decode(latents, x)",
            )
        skip = self._tensor(to, f"W_skip.{to}", layer.W_skip)
        return out + functional.linear(x[to].to(self.dtype), skip)

    def _by_layer(self, x: Tensor | None) -> Layers | None:
        """Activations side by side, by number of their layer."""
        if x is None:
            return None
        return dict(zip(self._layers, x.split(list(self.widths), dim=-1), strict=True))

    def _known(self, number: int) -> LayerRecord:
        if number not in self._layers:
            raise NotFoundError(
                f"this SAE does not read layer {number!r}",
                hint=f"it reads {', '.join(map(str, self._layers))}",
            )
        return self._layers[number]

    def _encoder(self, number: int) -> _Encoder:
        layer = self._layers[number]
        rows = self._tensor(number, f"encoder_rows.{number}", layer.encoder_rows)
        bias = self._tensor(number, f"b_enc.{number}", layer.b_enc)
        if layer.threshold is None:
            return _Encoder(rows, bias, 0.0)
        floor = self._tensor(number, f"threshold.{number}", layer.threshold)
        return _Encoder(rows, bias, floor.clamp_min(0))  # lets nothing negative through

    def _decoder(self, number: int, to: int) -> Tensor:
        return self._tensor(number, f"W_dec.{number}.{to}", self._layers[number].decoders[to])

    def _tensor(self, number: int, name: str, ref: TensorRef) -> Tensor:
        """A tensor of a layer, read when it is first asked for. Raises CorruptDataError."""
        key = number, name
        if key not in self._read:
            with torch.inference_mode(False):  # kept also for those who want gradients
                self._read[key] = weights(ref, name, self._place, self.device, self.dtype)
        return self._read[key]
