"""AbsTopK SAE: the k pre-activations of a token that are largest in size, with their signs."""

from typing import ClassVar

import torch
from torch import Tensor

from mi_crow.errors import UserError
from mi_crow.mechanistic.sae.base import LossContext, SparseLatents, TrainingOutput
from mi_crow.mechanistic.sae.kernels.entries import Entries, pre_activations
from mi_crow.mechanistic.sae.kernels.product import product_blocks
from mi_crow.mechanistic.sae.rules.topk import TopKSae


class AbsTopKSae(TopKSae):
    """z_i = pre_i where |pre_i| is one of the k largest of the token, else 0; pre = (x - b_dec)
    W_enc + b_enc. A latent may be negative: one direction then stands for two opposite concepts.

    Zhu et al. 2025, "AbsTopK: Rethinking Sparse Autoencoders For Bidirectional Features"; the files
    are SAELens's (`saes/abstopk_sae.py`). Read only.
    """

    architecture: ClassVar[str] = "abstopk"
    signed: ClassVar[bool] = True

    def _encode_rows(self, x: Tensor) -> SparseLatents:
        return self._chosen_rows(x)

    def _choose(self, inputs: Tensor) -> tuple[Tensor, Entries]:
        values, indices = self._largest(inputs.detach())
        entries = Entries.of_topk(indices, self.n_latents)
        pre = pre_activations(inputs, self.encoder_rows, self.b_enc, values.view(-1), entries)
        return pre.view(values.shape), entries

    @torch.no_grad()
    def _largest(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """The k pre-activations of each row that are largest in size: [n, k], and int64 [n, k]."""
        values = inputs.new_empty(len(inputs), self.k)
        indices = torch.empty(len(inputs), self.k, dtype=torch.int64, device=inputs.device)
        for start, pre in product_blocks(inputs, self.encoder_rows, self.b_enc):
            rows = slice(start, start + len(pre))
            indices[rows] = pre.abs().topk(self.k, dim=1).indices
            values[rows] = pre.gather(1, indices[rows])
        return values, indices

    def training_output(self, x: Tensor, target: Tensor, context: LossContext) -> TrainingOutput:
        """Raises UserError: there is no training of this rule here."""
        raise UserError("an SAE of architecture 'abstopk' can be read, not trained")
