"""What every sparse autoencoder is: four tensors, encode, decode, attach, save.

An architecture adds the rule that chooses the active latents and its training losses.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypedDict

import torch
from torch import Tensor, nn
from torch.nn import functional

from mi_crow.errors import CorruptDataError, UserError
from mi_crow.mechanistic.sae import extensions
from mi_crow.mechanistic.sae.architectures import STEP
from mi_crow.mechanistic.sae.input_norm import TokenUnits, normalised, restored
from mi_crow.mechanistic.sae.kernels.bags import decode_rows
from mi_crow.mechanistic.sae.kernels.entries import Entries
from mi_crow.mechanistic.sae.kernels.unit_rows import random_unit_rows
from mi_crow.mechanistic.sae.metadata import SaeMetadata
from mi_crow.mechanistic.sae.outputs import (
    LossContext,
    SaeOutput,
    SparseLatents,
    TrainingOutput,
    Weights,
)
from mi_crow.mechanistic.sae.saving import save_sae
from mi_crow.mechanistic.sae.sharing import SINGLE_PROCESS, Sharing

if TYPE_CHECKING:
    from mi_crow.language_model.language_model import LanguageModel
    from mi_crow.mechanistic.concepts.autoencoder_concepts import AutoencoderConcepts


class SaeOptions(TypedDict, total=False):
    """What the constructor of every architecture takes by name."""

    device: str | torch.device  # "cpu"
    dtype: torch.dtype  # torch.float32
    seed: int  # 0; of the random weights


class SkipOptions(SaeOptions, total=False):
    """The same for transcoders."""

    skip: bool  # False; a linear skip connection


class OutputOptions(SkipOptions, total=False):
    """The same for architectures that may predict another activation than they read."""

    n_outputs: int | None  # None: the inputs are reconstructed


class SparseAutoencoder(nn.Module, ABC):
    """z = act((x - b_dec) W_enc + b_enc), x_hat = z W_dec + b_dec.

    Parameters mean what they mean in SAELens files, W_enc aside, which is held by latent:
    `encoder_rows` [M, d] = W_enc^T, `b_enc` [M], `W_dec` [M, d], `b_dec` [d]. A fresh SAE has
    random unit decoder rows drawn from `seed`, the encoder as their transpose and zero biases.

    A transcoder reads one activation and predicts another: W_dec is [M, n_outputs] and b_dec
    [n_outputs], nothing is subtracted from the input, and with `skip` x W_skip^T is added.

    SAEs of other tools may normalise each token (`input_norm`) or take its mean off (`centred`),
    which is undone after decoding.
    """

    architecture: ClassVar[str]
    # The SAELens name it is stored under, where SAELens would compute something else under its own.
    stored_as: ClassVar[str | None] = None
    # Whether a loss with a coefficient decides how many latents are active, and not a number k.
    steers_sparsity: ClassVar[bool] = False
    penalties: ClassVar[tuple[str, ...]] = (STEP,)  # the trainer sets one of them in `penalty`
    # Whether latents may be negative; everywhere else they are at least 0, and 0 means inactive.
    signed: ClassVar[bool] = False
    tied: ClassVar[bool] = False  # the decoder's rows are the encoder too, which has no parameters
    # What the encoder has beside W_enc, by the names of SAELens files: its biases and thresholds.
    encoder_tensors: ClassVar[tuple[str, ...]] = ("b_enc",)
    learning_rates: ClassVar[dict[str, float]] = {}  # of parameters that learn faster or slower

    def __init__(
        self,
        n_latents: int,
        n_inputs: int,
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        seed: int = 0,
        n_outputs: int | None = None,
        skip: bool = False,
    ) -> None:
        super().__init__()
        if min(n_latents, n_inputs, n_inputs if n_outputs is None else n_outputs) < 1:
            raise UserError(
                f"an SAE needs at least one latent and one input, not {n_latents} and {n_inputs}"
            )
        self.n_latents = n_latents
        self.n_inputs = n_inputs
        self.n_outputs: int = n_inputs if n_outputs is None else n_outputs
        self.transcodes: bool = n_outputs is not None
        self.apply_b_dec_to_input: bool = not self.transcodes
        self.input_norm = "none"
        self.centred = False  # subtracts the mean of each token, and adds it back (see `centring`)
        self.metadata: SaeMetadata = SaeMetadata()
        self.sharing: Sharing = SINGLE_PROCESS
        self.penalty: str = STEP
        # Drawn on the CPU, so that a seed means the same SAE on every device. On the meta device an
        # SAE has shapes alone: that is how files are loaded without a second copy.
        source = "meta" if torch.device(device).type == "meta" else "cpu"
        generator = torch.Generator().manual_seed(seed)
        decoder = random_unit_rows(n_latents, self.n_outputs, generator, source)
        self.W_dec: nn.Parameter = nn.Parameter(decoder.to(device, dtype))
        if not self.tied:
            own = decoder
            if self.transcodes:
                own = random_unit_rows(n_latents, n_inputs, generator, source)
            zeros = torch.zeros(n_latents, device=device, dtype=dtype)
            self.encoder_rows: nn.Parameter = nn.Parameter(own.to(device, dtype, copy=True))
            self.b_enc: nn.Parameter = nn.Parameter(zeros)
        self.b_dec: nn.Parameter = nn.Parameter(
            torch.zeros(self.n_outputs, device=device, dtype=dtype)
        )
        self.W_skip: nn.Parameter | None = None
        if skip:
            zeros = torch.zeros(self.n_outputs, n_inputs, device=device, dtype=dtype)
            self.W_skip = nn.Parameter(zeros)

    @abstractmethod
    def _encode_rows(self, x: Tensor) -> SparseLatents:
        """[n, d] of any floating-point dtype -> the latents of each row by the rule of inference,
        differentiable."""

    @abstractmethod
    def training_output(self, x: Tensor, target: Tensor, context: LossContext) -> TrainingOutput:
        """One training pass over x [n, d] with this architecture's losses; `target` [n, d] is x
        itself, or for a transcoder what it should predict."""

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """The keys of `cfg.json` that belong to this architecture alone."""

    def starting_coefficient(self, variance: float, target_l0: float) -> float:
        """A guess at the coefficient that leads to `target_l0` active latents a token."""
        return 0.0

    def calibrate(self, x: Tensor, l0: float) -> None:
        """Sets what starts best from data, on inputs x [n, n_inputs] in training units, for about
        `l0` active latents a token. Called once, for a fresh SAE whose sparsity is steered."""

    @property
    def target_in_loss(self) -> bool:
        """Whether that loss leads to a target by itself; if not, its coefficient is controlled."""
        return False

    def after_step(self) -> None:
        """Called after every optimizer step: for parameters that have to stay in a range."""

    @property
    def encoder_bias(self) -> nn.Parameter:
        """[M]: what decides, with the product, whether a latent may be active."""
        return self.b_enc

    @property
    def device(self) -> torch.device:
        return self.W_dec.device

    @property
    def dtype(self) -> torch.dtype:
        return self.W_dec.dtype

    @property
    def encoder(self) -> "Weights":
        """The encoder as the layer that other libraries make of it: `weight` [M, d], `bias` [M]."""
        return Weights(self.encoder_rows, self.b_enc)

    @property
    def decoder(self) -> "Weights":
        """The decoder in the same way: `weight` [d, M], `bias` [d]."""
        return Weights(self.W_dec.t(), self.b_dec)

    @property
    def W_enc(self) -> Tensor:
        """The encoder as SAELens writes it, [d, M]: a view of `encoder_rows`."""
        return self.encoder_rows.t()

    @property
    def decoder_rows(self) -> Tensor:
        """[M, d]: what one unit of each latent adds to the activation."""
        return self.W_dec

    @cached_property
    def concepts(self) -> "AutoencoderConcepts":
        """Names, top texts and manipulation of this SAE's latents."""
        return extensions.concepts_of(self)

    def weights(self) -> dict[str, Tensor]:
        """All tensors by their SAELens names: parameters and thresholds, W_enc as [d, M]."""
        tensors = {name: tensor.detach() for name, tensor in self.state_dict().items()}
        tensors["W_enc"] = tensors.pop("encoder_rows").t()
        return tensors

    @torch.no_grad()
    def load_weights(self, tensors: Mapping[str, Tensor]) -> None:
        """Takes over tensors named and shaped as `weights` gives them. Raises CorruptDataError
        for one that is missing, unknown or of another shape."""
        wanted = self.weights()
        for name in sorted(wanted.keys() | tensors.keys()):
            found = tuple(tensors[name].shape) if name in tensors else "nothing"
            expected = tuple(wanted[name].shape) if name in wanted else "nothing"
            if found != expected:
                raise CorruptDataError(
                    f"the weights hold {found} for {name}, this {self.architecture} SAE takes "
                    f"{expected}"
                )
        state = self.state_dict()
        for name, tensor in tensors.items():
            if name == "W_enc":
                state["encoder_rows"].copy_(tensor.t())
            else:
                state[name].copy_(tensor)

    def encoder_input(self, x: Tensor) -> Tensor:
        """x - b_dec in the SAE's dtype (x itself for SAEs that do not subtract it)."""
        x = x.to(self.dtype)
        return self.sharing.sum_gradient(x - self.b_dec if self.apply_b_dec_to_input else x)

    def encode_sparse(self, x: Tensor) -> SparseLatents:
        """Latents of activations x [..., d], only those that may be active: [..., k].

        Raises UserError when x has another width than the SAE.
        """
        latents = self._encode_rows(self._rows_to_encode(x))
        shape = (*x.shape[:-1], latents.values.shape[-1])
        return SparseLatents(latents.values.view(shape), latents.indices.view(shape))

    def encode_entries(self, x: Tensor) -> tuple[Tensor, Entries]:
        """The same as a ragged list: values [e] and where they are, token by token.

        No token is padded to the number of latents of another. Raises what `encode_sparse` does.
        """
        return self._encode_entries(self._rows_to_encode(x))

    def _encode_entries(self, x: Tensor) -> tuple[Tensor, Entries]:
        values, indices = self._encode_rows(x)
        return values.reshape(-1), Entries.of_topk(indices, self.n_latents)

    def _rows_to_encode(self, x: Tensor) -> Tensor:
        """Activations [..., d] as normalised rows [n, d]."""
        if x.shape[-1] != self.n_inputs:
            raise UserError(
                f"the activations have width {x.shape[-1]}, the SAE takes {self.n_inputs}",
                hint="use the layer that the SAE was trained on",
            )
        return self._normalised(x.reshape(-1, self.n_inputs))[0]

    def encode(self, x: Tensor) -> Tensor:
        """Latents of activations x [..., d], dense: [..., M]."""
        return self.encode_sparse(x).dense(self.n_latents)

    def decode(self, z: Tensor, x: Tensor | None = None) -> Tensor:
        """Reconstruction from dense latents [..., M]: [..., d].

        An SAE that normalises each token or has a skip connection needs the activations x
        [..., d] that the latents came from. Raises UserError when they are missing.
        """
        return self.completed(z.to(self.dtype) @ self.W_dec, x)

    def decode_sparse(self, latents: SparseLatents, x: Tensor | None = None) -> Tensor:
        """Reconstruction from sparse latents [..., k]: [..., d]; x as for `decode`."""
        shape = latents.values.shape
        rows = decode_rows(
            latents.values.reshape(-1, shape[-1]),
            latents.indices.reshape(-1, shape[-1]),
            self.W_dec,
        )
        return self.completed(rows.view(*shape[:-1], self.n_outputs), x)

    def forward(self, x: Tensor) -> SaeOutput:
        """Latents and reconstruction of activations x [..., d]."""
        latents = self.encode_sparse(x)
        return SaeOutput(self.decode_sparse(latents, x), latents)

    def latent_units(self, x: Tensor) -> Tensor | float:
        """How much of its decoder row one unit of a latent adds to activations x [..., d]: 1, or
        [..., 1] for an SAE that normalises each token."""
        _, units = self._normalised(x)
        return 1.0 if units is None else units.size

    def training_tokens(self, stored: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs [n, n_inputs] and targets [n, n_outputs] of stored tokens [n, training_width]: a
        transcoder's are side by side, an SAE's are the same."""
        if not self.transcodes:
            return stored, stored
        return stored[:, : self.n_inputs], stored[:, self.n_inputs :]

    @property
    def training_width(self) -> int:
        """Columns of the tokens that this SAE is trained on."""
        return self.n_inputs + self.n_outputs if self.transcodes else self.n_inputs

    @torch.no_grad()
    def fold_scale(self, scale: float, output_scale: float | None = None) -> None:
        """Turns an SAE of scaled inputs into one of plain inputs, in place and exactly.

        Afterwards x gives what scale * x gave before, divided by `scale`: latents z / scale and
        reconstruction x_hat / scale. Both matrices stay as they are. A transcoder's output may
        have a scale of its own; its matrices into the output then take up the ratio.
        """
        output_scale = scale if output_scale is None else output_scale
        for tensor in self._scaled_tensors():
            tensor.div_(scale)
        self.b_dec.div_(output_scale)
        if output_scale != scale:
            self.W_dec.mul_(scale / output_scale)
            if self.W_skip is not None:
                self.W_skip.mul_(scale / output_scale)

    def _scaled_tensors(self) -> list[Tensor]:
        """What is measured in units of the latents: encoder biases and thresholds."""
        return [self.b_enc]

    @torch.no_grad()
    def fold_decoder_norms(self) -> None:
        """Gives the decoder unit rows and the latents the units that this takes, in place.

        Exact for rules that compare a latent with its own threshold. Rules that compare latents
        with each other (TopK and its kin) then choose by what each adds to the reconstruction.
        """
        norms = self._decoder_norms()
        self.W_dec.div_(norms[:, None])
        self.encoder_rows.mul_(norms[:, None])
        for tensor in self._scaled_tensors():
            tensor.mul_(norms)

    def _normalised(self, x: Tensor) -> tuple[Tensor, TokenUnits | None]:
        if self.input_norm == "none" and not self.centred:
            return x, None
        return normalised(x.to(self.dtype), self.input_norm, self.centred)

    def completed(self, rows: Tensor, x: Tensor | None) -> Tensor:
        """What the latents add [..., d], plus everything that is not theirs, in plain units."""
        out = self.sharing.sum_over_latents(rows) + self.b_dec
        if self.W_skip is None and self.input_norm == "none" and not self.centred:
            return out
        if x is None:
            raise UserError(
                "this SAE cannot decode latents alone: it "
                + ("has a skip connection" if self.W_skip is not None else "normalises its input"),
                hint="give the activations too: decode(latents, x)",
            )
        inputs, units = self._normalised(x)
        if self.W_skip is not None:
            out = out + functional.linear(inputs.to(self.dtype), self.W_skip)
        return restored(out, units)

    def unit_rows(self) -> tuple[Tensor, ...]:
        """The matrices whose rows training keeps at length one."""
        return (self.W_dec,)

    @torch.no_grad()
    def normalise_decoder(self) -> None:
        """Gives every decoder row unit length, in place."""
        self.W_dec.div_(self._decoder_norms()[:, None])

    def _decoder_norms(self) -> Tensor:
        """[M], never 0."""
        return torch.linalg.vector_norm(self.W_dec, dim=1).clamp_min_(torch.finfo(self.dtype).tiny)

    def part_of_latents(self, sharing: Sharing) -> Self:
        """A copy on the device of `sharing` with the latents that are this process's."""
        part = copy.copy(self)
        part.sharing, part._parameters, part._buffers = sharing, {}, {}
        for name, tensor in self.state_dict().items():
            own = (sharing.own_latents(tensor) if is_by_latent(name) else tensor).clone()
            own = own.to(sharing.device)
            if name in self._buffers:
                part.register_buffer(name, own)
            else:
                part.register_parameter(name, nn.Parameter(own))
        part.n_latents = part.W_dec.shape[0]
        return part

    def save(self, folder: str | Path) -> Path:
        """Writes `sae_weights.safetensors` and then `cfg.json` (SAELens layout) into `folder`."""
        return save_sae(self, Path(folder))

    def attach(self, lm: "LanguageModel", layer_signature: str | int | None = None) -> Any:
        """Attaches this SAE to a layer of `lm` (None: the layer it was trained on)."""
        return extensions.attach(lm, self, layer_signature)


def is_by_latent(name: str) -> bool:
    """Whether the tensor of this name has one row a latent."""
    return name not in ("b_dec", "W_skip")
