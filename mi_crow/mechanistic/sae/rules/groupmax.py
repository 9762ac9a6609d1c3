"""GroupMax SAE: the latents are in k groups, and the strongest of each group is active."""

from typing import ClassVar, Unpack

import torch
from torch import Tensor

from mi_crow.errors import UserError
from mi_crow.mechanistic.sae.base import OutputOptions, SkipOptions, SparseLatents
from mi_crow.mechanistic.sae.kernels.entries import Entries, pre_activations
from mi_crow.mechanistic.sae.kernels.product import product_blocks
from mi_crow.mechanistic.sae.rules.topk import TopKSae


class GroupMaxSae(TopKSae):
    """z_i = ReLU(pre_i) where i is the strongest of its group, else 0; pre = (x - b_dec) W_enc +
    b_enc. Group j holds the latents j M / k to (j + 1) M / k - 1.

    The cheap stand-in for TopK of EleutherAI's sparsify, whose files it reads and writes.
    """

    architecture: ClassVar[str] = "groupmax"

    def __init__(
        self, n_latents: int, n_inputs: int, k: int, **options: Unpack[OutputOptions]
    ) -> None:
        super().__init__(n_latents, n_inputs, k, **options)
        if n_latents % k:
            raise UserError(f"{n_latents} latents cannot be put into {k} groups of one size")

    def _choose(self, inputs: Tensor) -> tuple[Tensor, Entries]:
        values, indices = self._strongest(inputs.detach())
        entries = Entries.of_topk(indices, self.n_latents)
        pre = pre_activations(inputs, self.encoder_rows, self.b_enc, values.view(-1), entries)
        return pre.view(values.shape).relu(), entries

    def _encode_rows(self, x: Tensor) -> SparseLatents:
        return self._chosen_rows(x)

    @torch.no_grad()
    def _strongest(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """The strongest pre-activation of each group and its latent: [n, k], int64 [n, k]."""
        size = self.n_latents // self.k
        values = inputs.new_empty(len(inputs), self.k)
        indices = torch.empty(len(inputs), self.k, dtype=torch.int64, device=inputs.device)
        for start, pre in product_blocks(inputs, self.encoder_rows, self.b_enc):
            top = pre.unflatten(1, (self.k, size)).max(dim=2)
            values[start : start + len(pre)] = top.values
            indices[start : start + len(pre)] = top.indices
        return values, indices + torch.arange(0, self.n_latents, size, device=inputs.device)


class GroupMaxTranscoder(GroupMaxSae):
    """The same rule, from one activation [d] to another [n_outputs]."""

    architecture: ClassVar[str] = "groupmax_transcoder"

    def __init__(
        self, n_latents: int, n_inputs: int, n_outputs: int, k: int, **options: Unpack[SkipOptions]
    ) -> None:
        super().__init__(n_latents, n_inputs, k, n_outputs=n_outputs, **options)
