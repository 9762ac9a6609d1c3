"""What a file of any format says about an SAE: its rule, its tensors by our names, its origin."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from mi_crow.mechanistic.sae.metadata import SaeMetadata


@dataclass(frozen=True)
class TensorRef:
    """A tensor that is not read yet."""

    shape: tuple[int, ...]
    read: Callable[[], Tensor]

    @classmethod
    def of(cls, tensor: Tensor) -> "TensorRef":
        """A tensor that is in memory."""
        return cls(tuple(tensor.shape), lambda: tensor)

    def t(self) -> "TensorRef":
        """The transposed matrix."""
        return TensorRef(self.shape[::-1], lambda: self.read().t())

    def map(self, change: Callable[[Tensor], Tensor]) -> "TensorRef":
        """The same with `change`, which keeps the shape, applied when it is read."""
        return TensorRef(self.shape, lambda: change(self.read()))


@dataclass(frozen=True)
class SaeRecord:
    """An SAE as its file has it. What is to be folded into the weights is only named here."""

    architecture: str  # as the classes name it
    tensors: Mapping[str, TensorRef]  # by state_dict names: encoder_rows [M, d], W_dec [M, d], ...
    metadata: SaeMetadata
    k: int | None = None
    widths: tuple[int, ...] | None = None  # of a Matryoshka SAE's nested dictionaries
    apply_b_dec_to_input: bool = True
    input_norm: str = "none"
    dtype: torch.dtype | None = None  # what the file is meant to compute in; None: not said
    input_scale: float | None = None  # the tensors are those of inputs times this
    output_scale: float | None = None  # the same for a transcoder's outputs
    wants_input_scale: bool = False  # they are, and the file does not say the factor
    decoder_norms: bool = False  # pre-activations are to be multiplied by the decoder rows' norms
    assumed: tuple[str, ...] = ()  # sentences on the hook point that the file leaves open
    notes: tuple[str, ...] = ()  # sentences on what else of the file is good to know

    @property
    def n_latents(self) -> int:
        return self.tensors["encoder_rows"].shape[0]

    @property
    def n_inputs(self) -> int:
        return self.tensors["encoder_rows"].shape[1]

    @property
    def n_outputs(self) -> int:
        return self.tensors["W_dec"].shape[1]
