"""An SAE as a file of any format describes it: its rule, its tensors by our names, its origin."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from mi_crow.mechanistic.sae.cross_layer.refs import TensorRef
from mi_crow.mechanistic.sae.metadata import SaeMetadata


@dataclass(frozen=True)
class SaeRecord:
    """An SAE as it is in its file, with what `build` will fold into the weights."""

    architecture: str  # its name in `architectures.TABLE`
    tensors: Mapping[str, TensorRef]  # by state_dict names: encoder_rows [M, d], W_dec [M, d], ...
    metadata: SaeMetadata
    k: int | None = None
    widths: tuple[int, ...] | None = None  # of a Matryoshka SAE's nested dictionaries
    options: Mapping[str, Any] = field(default_factory=dict)  # others that the rule takes
    apply_b_dec_to_input: bool = True
    input_norm: str = "none"
    dtype: torch.dtype | None = None  # that the file names; None: it names none
    input_scale: float | None = None  # the tensors are for inputs times this
    output_scale: float | None = None  # the same for a transcoder's outputs
    wants_input_scale: bool = False  # they are for scaled inputs; the file may lack the factor
    decoder_norms: bool = False  # pre-activations are multiplied by the norms of the decoder rows
    assumed: tuple[str, ...] = ()  # sentences on a hook point that the file does not name
    notes: tuple[str, ...] = ()  # other sentences for the user
    format: str = ""  # where its file's name does not say it
    chosen: bool = False  # its file holds several, among which the layer asked for chose

    @property
    def n_latents(self) -> int:
        return self.tensors["W_dec"].shape[0]

    @property
    def n_inputs(self) -> int:
        # Where there is no encoder, the decoder's rows are.
        return self.tensors.get("encoder_rows", self.tensors["W_dec"]).shape[1]

    @property
    def n_outputs(self) -> int:
        return self.tensors["W_dec"].shape[1]
