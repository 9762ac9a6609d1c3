"""What every sparse autoencoder is: four tensors, encode, decode, attach, save.

An architecture adds the rule that chooses the active latents and its training losses.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from mi_crow.errors import UserError
from mi_crow.mechanistic.sae.kernels import decode_rows, dense_latents
from mi_crow.mechanistic.sae.metadata import SaeMetadata

if TYPE_CHECKING:
    from mi_crow.language_model.language_model import LanguageModel
    from mi_crow.mechanistic.concepts.autoencoder_concepts import AutoencoderConcepts


class SparseLatents(NamedTuple):
    """The latents of n tokens, only those that may be active."""

    values: Tensor  # [..., k] >= 0; a zero means inactive
    indices: Tensor  # int64 [..., k], no index twice in a row

    def dense(self, n_latents: int) -> Tensor:
        """[..., M] with zeros where nothing is active."""
        shape = self.values.shape
        flat = dense_latents(
            self.values.reshape(-1, shape[-1]), self.indices.reshape(-1, shape[-1]), n_latents
        )
        return flat.view(*shape[:-1], n_latents)


class SaeOutput(NamedTuple):
    """One pass over n tokens."""

    reconstruction: Tensor  # [..., d]
    latents: SparseLatents
    losses: dict[str, Tensor]  # named scalars that add up to the training loss; empty at inference


@dataclass(frozen=True)
class LossContext:
    """What a training loss needs to know besides the batch."""

    variance: float  # mean squared distance of a token from the mean token, training units
    dead: Tensor | None  # int64 ids of the latents that count as dead; None when there are none
    aux_alpha: float
    k_aux: int
    l1_lambda: float


class SparseAutoencoder(nn.Module, ABC):
    """z = act((x - b_dec) W_enc + b_enc), x_hat = z W_dec + b_dec.

    Parameters mean what they mean in SAELens files, W_enc aside, which is held by latent:
    `encoder_rows` [M, d] = W_enc^T, `b_enc` [M], `W_dec` [M, d], `b_dec` [d]. A fresh SAE has
    random unit decoder rows drawn from `seed`, the encoder as their transpose and zero biases.
    """

    architecture: ClassVar[str]

    def __init__(
        self,
        n_latents: int,
        n_inputs: int,
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if n_latents < 1 or n_inputs < 1:
            raise UserError(
                f"an SAE needs at least one latent and one input, not {n_latents} and {n_inputs}"
            )
        self.n_latents = n_latents
        self.n_inputs = n_inputs
        self.apply_b_dec_to_input = True
        self.metadata = SaeMetadata()
        self._concepts: AutoencoderConcepts | None = None
        # Drawn on the CPU, so that a seed means the same SAE on every device.
        directions = torch.randn(
            n_latents, n_inputs, generator=torch.Generator().manual_seed(seed), dtype=torch.float32
        )
        directions /= directions.norm(dim=1, keepdim=True)
        self.W_dec = nn.Parameter(directions.to(device, dtype))
        self.encoder_rows = nn.Parameter(self.W_dec.detach().clone())
        self.b_enc = nn.Parameter(torch.zeros(n_latents, device=device, dtype=dtype))
        self.b_dec = nn.Parameter(torch.zeros(n_inputs, device=device, dtype=dtype))

    @abstractmethod
    def _encode_rows(self, x: Tensor) -> SparseLatents:
        """[n, d] in the SAE's dtype -> the latents of each row, differentiable."""

    @abstractmethod
    def training_output(self, x: Tensor, context: LossContext) -> SaeOutput:
        """One training pass over x [n, d] with this architecture's losses."""

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """The keys of `cfg.json` that belong to this architecture alone."""

    @property
    def device(self) -> torch.device:
        return self.W_dec.device

    @property
    def dtype(self) -> torch.dtype:
        return self.W_dec.dtype

    @property
    def W_enc(self) -> Tensor:
        """The encoder as SAELens writes it, [d, M]: a view of `encoder_rows`."""
        return self.encoder_rows.t()

    @property
    def decoder_rows(self) -> Tensor:
        """[M, d]: what one unit of each latent adds to the activation."""
        return self.W_dec

    @property
    def concepts(self) -> "AutoencoderConcepts":
        """Names, top texts and manipulation of this SAE's latents."""
        if self._concepts is None:
            from mi_crow.mechanistic.concepts.autoencoder_concepts import AutoencoderConcepts

            self._concepts = AutoencoderConcepts(self)
        return self._concepts

    def encoder_input(self, x: Tensor) -> Tensor:
        """x - b_dec in the SAE's dtype (x itself for SAEs that do not subtract it)."""
        x = x.to(self.dtype)
        return x - self.b_dec if self.apply_b_dec_to_input else x

    def encode_sparse(self, x: Tensor) -> SparseLatents:
        """Latents of activations x [..., d], only those that may be active: [..., k].

        Raises UserError when x has another width than the SAE.
        """
        if x.shape[-1] != self.n_inputs:
            raise UserError(
                f"the activations have width {x.shape[-1]}, the SAE takes {self.n_inputs}",
                hint="use the layer that the SAE was trained on",
            )
        latents = self._encode_rows(x.reshape(-1, self.n_inputs))
        shape = (*x.shape[:-1], latents.values.shape[-1])
        return SparseLatents(latents.values.view(shape), latents.indices.view(shape))

    def encode(self, x: Tensor) -> Tensor:
        """Latents of activations x [..., d], dense: [..., M]."""
        return self.encode_sparse(x).dense(self.n_latents)

    def decode(self, z: Tensor) -> Tensor:
        """Reconstruction from dense latents [..., M]: [..., d]."""
        return z.to(self.dtype) @ self.W_dec + self.b_dec

    def decode_sparse(self, latents: SparseLatents) -> Tensor:
        """Reconstruction from sparse latents [..., k]: [..., d]."""
        shape = latents.values.shape
        rows = decode_rows(
            latents.values.reshape(-1, shape[-1]),
            latents.indices.reshape(-1, shape[-1]),
            self.W_dec,
        )
        return (rows + self.b_dec).view(*shape[:-1], self.n_inputs)

    def forward(self, x: Tensor) -> SaeOutput:
        """Latents and reconstruction of activations x [..., d]."""
        latents = self.encode_sparse(x)
        return SaeOutput(self.decode_sparse(latents), latents, {})

    @torch.no_grad()
    def fold_scale(self, scale: float) -> None:
        """Turns an SAE of scaled inputs into one of plain inputs, in place and exactly.

        Afterwards x gives what scale * x gave before, divided by `scale`: latents z / scale and
        reconstruction x_hat / scale. Both matrices stay as they are.
        """
        for tensor in self._scaled_tensors():
            tensor.div_(scale)

    def _scaled_tensors(self) -> list[Tensor]:
        """What is measured in units of the input or of the latents (thresholds too)."""
        return [self.b_enc, self.b_dec]

    @torch.no_grad()
    def normalise_decoder(self) -> None:
        """Gives every decoder row unit length, in place."""
        norms = torch.linalg.vector_norm(self.W_dec, dim=1, keepdim=True)
        self.W_dec.div_(norms.clamp_min_(torch.finfo(norms.dtype).tiny))

    def save(self, folder: str | Path) -> Path:
        """Writes `sae_weights.safetensors` and then `cfg.json` (SAELens layout) into `folder`."""
        from mi_crow.mechanistic.sae.saelens import save_sae

        return save_sae(self, Path(folder))

    def attach(self, lm: "LanguageModel", layer_signature: str | int | None = None) -> Any:
        """Attaches this SAE to a layer of `lm` (None: the layer it was trained on)."""
        from mi_crow.mechanistic.steering.attach import attach_sae

        return attach_sae(lm, self, layer_signature)
