"""A cross-layer SAE as its files describe it, before its tensors are read."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch

from mi_crow.errors import CorruptDataError
from mi_crow.language_model.hook_points.names import number_of
from mi_crow.mechanistic.sae.cross_layer.refs import TensorRef
from mi_crow.mechanistic.sae.metadata import SaeMetadata

TRANSCODER, CROSSCODER = "cross_layer_transcoder", "crosscoder"
KINDS = (TRANSCODER, CROSSCODER)
_NUMBER = re.compile(r"(\.)\d+(\.|$)")
_LISTED = 8  # layers that a description names one by one
# The two models that a crosscoder may compare, on the same texts.
BASE, TUNED = "base", "tuned"
ROLES = (BASE, TUNED)


@dataclass(frozen=True)
class ModelRead:
    """One of two models that a crosscoder reads."""

    role: str  # one of ROLES
    name: str  # as the run's manifest says it
    revision: str | None = None
    run_id: str | None = None  # with its activations


@dataclass(frozen=True)
class LayerRecord:
    """One layer: what is encoded there, and what is written there."""

    number: int  # of its block
    read: str  # hook point whose activations are encoded
    written: str  # hook point that is predicted
    encoder_rows: TensorRef  # [M, d_in]
    b_enc: TensorRef  # [M]
    decoders: Mapping[int, TensorRef]  # by number of the layer written to: [M, d_out]
    b_dec: TensorRef  # [d_out], of what is written here
    threshold: TensorRef | None = None  # [M]; None: ReLU
    W_skip: TensorRef | None = None  # [d_out, d_in], from this layer's input to its output
    model: str = ""  # one of ROLES, where two models are read; `number` is then its place

    @property
    def n_latents(self) -> int:
        return self.encoder_rows.shape[0]

    @property
    def n_inputs(self) -> int:
        return self.encoder_rows.shape[1]

    @property
    def n_outputs(self) -> int:
        return self.b_dec.shape[0]

    def of_model(self, point: str) -> str:
        """A hook point of this layer, with the model where two are read: `base:resid_post.3`."""
        return f"{self.model}:{point}" if self.model else point

    def tensors(self) -> dict[str, TensorRef]:
        """All of them, by the names in our files."""
        found = {
            f"encoder_rows.{self.number}": self.encoder_rows,
            f"b_enc.{self.number}": self.b_enc,
            f"b_dec.{self.number}": self.b_dec,
        }
        if self.threshold is not None:
            found[f"threshold.{self.number}"] = self.threshold
        if self.W_skip is not None:
            found[f"W_skip.{self.number}"] = self.W_skip
        return found | {f"W_dec.{self.number}.{to}": ref for to, ref in self.decoders.items()}


@dataclass(frozen=True)
class CrossLayerRecord:
    """All layers, ascending by number."""

    architecture: str  # one of KINDS
    layers: tuple[LayerRecord, ...]
    metadata: SaeMetadata
    dtype: torch.dtype | None = None
    format: str = ""
    assumed: tuple[str, ...] = field(default=())
    notes: tuple[str, ...] = field(default=())
    # Of a crosscoder: each latent reads all layers, the sum of what their encoders make of them,
    # and every layer has a decoder of its own for it. The threshold is that of the last layer.
    shared: bool = False
    k: int | None = None  # shared latents of a token that are kept, the largest; None: all
    models: tuple[ModelRead, ...] = ()  # both, where two are read; a layer says which is its own

    @property
    def n_latents(self) -> int:
        if self.shared:
            return self.layers[0].n_latents
        return sum(layer.n_latents for layer in self.layers)

    @property
    def n_inputs(self) -> int:
        return sum(layer.n_inputs for layer in self.layers)

    def numbers(self) -> int:
        """How many numbers all tensors hold together."""
        total = 0
        for layer in self.layers:
            for ref in layer.tensors().values():
                size = 1
                for length in ref.shape:
                    size *= length
                total += size
        return total

    def checked(self, place: str) -> "CrossLayerRecord":
        """The same with the layers in its metadata. Raises CorruptDataError where tensors do not
        fit each other, naming `place`."""
        outputs = {layer.number: layer.n_outputs for layer in self.layers}
        if not self.layers or len(outputs) != len(self.layers):
            raise CorruptDataError(f"{place} does not hold each of its layers once")
        self._check_models(place)
        if self.shared:
            self._check_shared(place)
        for layer in self.layers:
            wanted = {
                "b_enc": (layer.b_enc, (layer.n_latents,)),
                "threshold": (layer.threshold, (layer.n_latents,)),
                "W_skip": (layer.W_skip, (layer.n_outputs, layer.n_inputs)),
                **{
                    f"the decoder into layer {to}": (ref, (layer.n_latents, outputs.get(to)))
                    for to, ref in layer.decoders.items()
                },
            }
            for name, (ref, shape) in wanted.items():
                if ref is not None and ref.shape != shape:
                    raise CorruptDataError(
                        f"{place} holds {ref.shape} for {name} of layer {layer.number}, which "
                        f"should be {shape}"
                    )
        layers = {
            "layers": [layer.of_model(layer.read) for layer in self.layers],
            "target_layers": [layer.of_model(layer.written) for layer in self.layers],
        }
        metadata = replace(
            self.metadata,
            hook_name=in_short([*dict.fromkeys(layer.read for layer in self.layers)]),
            other={**self.metadata.other, **layers},
        )
        return replace(self, metadata=metadata)

    def _check_models(self, place: str) -> None:
        """Two models, the layers of the first before those of the second, or none."""
        owners = [layer.model for layer in self.layers]
        roles = tuple(model.role for model in self.models)
        both = self.shared and roles == ROLES and set(owners) == set(ROLES)
        if not (both and owners == sorted(owners, key=ROLES.index)) and (roles or any(owners)):
            raise CorruptDataError(f"{place} does not say which layers each of two models has")

    def _check_shared(self, place: str) -> None:
        if self.architecture != CROSSCODER or (self.k is not None and self.k < 1):
            raise CorruptDataError(f"{place} describes latents of all layers that cannot be")
        for layer in self.layers:
            if layer.n_latents != self.n_latents or [*layer.decoders] != [layer.number]:
                raise CorruptDataError(
                    f"{place} does not hold a decoder of {self.n_latents} latents for layer "
                    f"{layer.number}"
                )


def in_short(names: list[str]) -> str:
    """`mlp_in.0-25` for a row of hook points of one kind, `resid_post.7,13` for some of them, else
    the first name."""
    numbers = [number_of(name) for name in names]
    alike = {_NUMBER.sub(r"\g<1>{}\g<2>", name) for name in names}
    if len(alike) > 1 or len(names) == 1 or None in numbers:
        return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
    first, last = numbers[0] or 0, numbers[-1] or 0
    shown = ",".join(map(str, numbers[:_LISTED])) + (",..." if len(names) > _LISTED else "")
    if numbers == list(range(first, last + 1)):
        shown = f"{first}-{last}"
    return alike.pop().format(shown)
