"""Matryoshka SAE: BatchTopK whose first latents must also do well on their own."""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor

from mi_crow.errors import UserError
from mi_crow.mechanistic.sae.base import LossContext, SaeOptions, TrainingOutput
from mi_crow.mechanistic.sae.kernels.entries import Entries, decode_entries
from mi_crow.mechanistic.sae.rules.batchtopk import BatchTopKSae
from mi_crow.mechanistic.sae.rules.losses import auxk_loss, variance_share

# Shares of the latents in the first groups; the last group takes the rest.
GROUP_SHARES = (1 / 32, 1 / 16, 1 / 8, 1 / 4)


class MatryoshkaSae(BatchTopKSae):
    """BatchTopK with nested dictionaries: the first m latents reconstruct too, for m in `widths`.

    Bussmann et al. 2025, "Learning multi-level features with Matryoshka sparse autoencoders",
    section 3: the loss is the mean of |x - x_hat_m|^2 over the widths m, x_hat_m the decoding of
    the latents before m. Default groups of 1/32, 1/16, 1/8, 1/4 of the latents and the rest.
    """

    architecture: ClassVar[str] = "matryoshka"

    def __init__(
        self,
        n_latents: int,
        n_inputs: int,
        k: int,
        *,
        widths: Sequence[int] | None = None,
        **options: Unpack[SaeOptions],
    ) -> None:
        """`widths`: how many latents each nested dictionary has, ascending, the last n_latents."""
        super().__init__(n_latents, n_inputs, k, **options)
        self.widths: tuple[int, ...] = (
            default_widths(n_latents) if widths is None else tuple(widths)
        )
        ascending = all(a < b for a, b in zip((0, *self.widths), self.widths, strict=False))
        if not ascending or self.widths[-1:] != (n_latents,):
            raise UserError(f"nested widths must ascend to {n_latents}, not be {list(self.widths)}")

    def config(self) -> dict[str, Any]:
        return {**super().config(), "matryoshka_widths": list(self.widths)}

    def training_output(self, x: Tensor, target: Tensor, context: LossContext) -> TrainingOutput:
        """Losses `reconstruction` (of all latents), `nested` (of the smaller dictionaries; both
        divided by their number) and, with dead latents, `auxk`."""
        inputs = self.encoder_input(x)
        z, entries = self._strongest(inputs)
        # One chain of residuals, group by group: a running sum over [n, groups, d] costs twice as
        # much in both directions.
        residual = target - self.b_dec
        shares = []
        for part in self._parts(z, entries):
            residual = residual - part
            shares.append(variance_share(residual, context))
        losses = {"reconstruction": shares[-1] / len(shares)}
        if len(shares) > 1:
            losses["nested"] = torch.stack(shares[:-1]).sum() / len(shares)
        losses |= auxk_loss(self, inputs, residual, context)
        return TrainingOutput(losses, shares[-1].detach(), entries.columns)

    def _parts(self, z: Tensor, entries: Entries) -> tuple[Tensor, ...]:
        """What each group of latents adds to the reconstruction: [n, d] a group.

        Entries ascend by latent within a token, so those of a group are together: one bag a
        token and group.
        """
        groups = len(self.widths)
        edges = torch.tensor(self.widths, device=z.device)
        numbers = entries.columns + self.sharing.first_latent
        group = torch.searchsorted(edges, numbers, right=True)
        bags = Entries(
            entries.columns,
            entries.rows * groups + group,
            entries.n_tokens * groups,
            self.n_latents,
        )
        parts = self.sharing.sum_over_latents(decode_entries(z, bags, self.W_dec))
        return parts.view(entries.n_tokens, groups, self.n_inputs).unbind(1)


def default_widths(n_latents: int) -> tuple[int, ...]:
    """Widths of the nested dictionaries for `GROUP_SHARES`; small dictionaries have fewer."""
    ends = [round(share * n_latents) for share in accumulate(GROUP_SHARES)]
    return (*sorted({end for end in ends if 0 < end < n_latents}), n_latents)
