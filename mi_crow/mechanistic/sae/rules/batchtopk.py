"""BatchTopK SAE: k latents a token on average over a batch, one threshold at inference."""

from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor
from torch.nn import functional

from mi_crow.mechanistic.sae.base import LossContext, SaeOptions, TrainingOutput
from mi_crow.mechanistic.sae.kernels.entries import (
    Entries,
    decode_entries,
    encode_above,
    entries_above,
    likely_floor,
    pre_activations,
    strongest_entries,
)
from mi_crow.mechanistic.sae.rules.losses import auxk_loss, variance_share
from mi_crow.mechanistic.sae.rules.ragged import RaggedSae
from mi_crow.mechanistic.sae.rules.topk import check_k

# Share of the old threshold that a step leaves: about the last twenty batches count. With a hundred
# a short run's threshold is still that of its beginning (L0 21 for k = 32 after 150 steps).
KEPT = 0.95
SAFE = 0.7  # of the threshold: a floor that leaves enough


class BatchTopKSae(RaggedSae):
    """Training: z = ReLU(pre) where it is among the n k largest of a batch of n tokens, else 0.
    Inference: z = pre * [pre > threshold], the threshold a running mean of the least positive
    activation of the training batches. pre = (x - b_dec) W_enc + b_enc.

    Bussmann et al. 2024, "BatchTopK sparse autoencoders", section 3. `threshold` [M] holds the
    one number for every latent, as JumpReLU files have it. An untrained SAE has the threshold 0.
    """

    architecture: ClassVar[str] = "batchtopk"
    stored_as: ClassVar[str | None] = "jumprelu"  # its rule at inference
    encoder_tensors: ClassVar[tuple[str, ...]] = ("b_enc", "threshold")

    def __init__(
        self, n_latents: int, n_inputs: int, k: int, **options: Unpack[SaeOptions]
    ) -> None:
        check_k(k, n_latents)
        super().__init__(n_latents, n_inputs, **options)
        self.k = k
        self.threshold: Tensor
        self.register_buffer("threshold", torch.zeros_like(self.b_enc))

    def config(self) -> dict[str, Any]:
        return {"k": self.k}

    def _scaled_tensors(self) -> list[Tensor]:
        return [*super()._scaled_tensors(), self.threshold]

    def _encode_entries(self, x: Tensor) -> tuple[Tensor, Entries]:
        return encode_above(self.encoder_input(x), self.encoder_rows, self.b_enc, self.threshold)

    def _strongest(self, inputs: Tensor) -> tuple[Tensor, Entries]:
        """The n k largest positive pre-activations of the batch, differentiable."""
        encoder, bias = self.encoder_rows, self.b_enc
        # Batches differ by some percent: well below the running mean there is always enough.
        guess = SAFE * float(self.threshold[0])
        operands = inputs.detach(), encoder.detach(), bias.detach()
        if self.sharing.single_process:
            values, entries = strongest_entries(*operands, self.k, guess)
        else:
            values, entries = self._strongest_of_all(*operands, guess)
        self._follow(values)
        return pre_activations(inputs, encoder, bias, values, entries), entries

    def _strongest_of_all(
        self, inputs: Tensor, encoder: Tensor, bias: Tensor, guess: float
    ) -> tuple[Tensor, Entries]:
        """`strongest_entries` where other processes have a share of the tokens or latents."""
        sharing = self.sharing
        wanted = self.k * int(
            sharing.total_over_tokens(torch.tensor(inputs.shape[0], device=inputs.device))
        )
        if guess <= 0:
            floor = likely_floor(inputs, encoder, bias, self.k / sharing.ranks.world)
            guess = float(sharing.minimum(torch.tensor(floor, device=inputs.device)))
        values, entries = entries_above(inputs, encoder, bias, guess)
        if guess > 0 and self._found(values) < wanted:
            values, entries = entries_above(inputs, encoder, bias)
        if self._found(values) <= wanted:
            return values, entries
        kept = (values >= sharing.nth_largest(values, wanted)).nonzero()[:, 0]
        return values[kept], entries.select(kept)

    def _found(self, values: Tensor) -> int:
        """How many entries all processes have."""
        return int(self.sharing.total(torch.tensor(values.numel(), device=values.device)))

    @torch.no_grad()
    def _follow(self, values: Tensor) -> None:
        """Moves the threshold towards the least of the batch's activations [e]."""
        # Padded, since infinity would come from the host, and the device be waited for.
        least = self.sharing.minimum(functional.pad(values, (0, 1), value=torch.inf).min())
        fresh = self.threshold == 0
        moved = self.threshold.lerp(least.expand_as(self.threshold), 1 - KEPT)
        moved = torch.where(fresh, least, moved)
        self.threshold.copy_(torch.where(least.isfinite(), moved, self.threshold))

    def training_output(self, x: Tensor, target: Tensor, context: LossContext) -> TrainingOutput:
        """Losses `reconstruction` and, with dead latents, `auxk`."""
        inputs = self.encoder_input(x)
        z, entries = self._strongest(inputs)
        residual = target - self.completed(decode_entries(z, entries, self.W_dec), x)
        fvu = variance_share(residual, context)
        losses = {"reconstruction": fvu, **auxk_loss(self, inputs, residual, context)}
        return TrainingOutput(losses, fvu.detach(), entries.columns)
