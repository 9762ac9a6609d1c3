"""Reconstruction quality of an SAE, from sums pooled over tokens.

FVU = sum |x - x_hat|^2 / sum |x - mean|^2 with both sums pooled over all tokens: neither a mean
of batch ratios nor the variance from zero.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from mi_crow.mechanistic.sae.base import SparseAutoencoder
from mi_crow.mechanistic.sae.source import HELDOUT, TRAIN, TokenSource, fixed_batches, not_finite
from mi_crow.share import WHOLE, Share

BATCH = 2048

# Tokens behind reported figures: at most this many held-out ones, and the fixed training sample
# that identifies dead and dense latents.
HELDOUT_TOKENS = 32_768
DENSITY_TOKENS = 100_000

# A latent that fires on more than this share of the tokens is dense.
DENSE = 0.1


class FvuSums:
    """Pooled sums over tokens, in double precision on the device of the tokens."""

    def __init__(self, width: int, device: torch.device) -> None:
        zeros = torch.zeros(width, dtype=torch.float64, device=device)
        self._error = torch.zeros((), dtype=torch.float64, device=device)
        self._square = torch.zeros((), dtype=torch.float64, device=device)
        self._sum = zeros
        self.tokens: int = 0

    def add(self, x: Tensor, reconstruction: Tensor) -> None:
        """Adds tokens x [n, d] and their reconstructions [n, d]."""
        x = x.double()
        self._error += (x - reconstruction.double()).square().sum()
        self._square += x.square().sum()
        self._sum += x.sum(0)
        self.tokens += x.shape[0]

    def row(self) -> Tensor:
        """The sums as one row, float64 [3 + width], for sums over several processes."""
        return torch.cat(
            [torch.stack([self._error, self._square, self._sum.new_tensor(self.tokens)]), self._sum]
        )

    @classmethod
    def of_row(cls, row: Tensor) -> "FvuSums":
        """The sums that `row` gave."""
        made = cls(len(row) - 3, row.device)
        made._error, made._square, made._sum, made.tokens = row[0], row[1], row[3:], int(row[2])
        return made

    def fvu(self) -> float:
        """Fraction of variance unexplained; nan without tokens or variance. Raises CorruptDataError
        when some tokens are not finite."""
        if self.tokens == 0:
            return float("nan")
        if not bool(self._square.isfinite()):
            raise not_finite()
        variance = float(self._square - self._sum.square().sum() / self.tokens)
        return float(self._error) / variance if variance > 0 else float("nan")


@dataclass(frozen=True)
class Quality:
    """Reconstruction and sparsity; `fvu`, `l0` and `cosine` leave out outlier tokens."""

    fvu: float
    fvu_all: float  # outliers included
    outlier_share: float
    l0: float  # active latents per token
    cosine: float  # mean cosine of a token and its reconstruction
    tokens: int  # outliers included

    @property
    def explained_variance(self) -> float:
        return 1.0 - self.fvu


@torch.inference_mode()
def reconstruction_quality(
    sae: SparseAutoencoder,
    x: Tensor,
    outlier_norm: float | None,
    target: Tensor | None = None,
    share: Share = WHOLE,
) -> Quality:
    """Measures tokens x [n, d] in the SAE's input units; those above `outlier_norm` are outliers.

    `target` [n, n_outputs] is what a transcoder predicts. Several processes share the batches.
    """
    targets = x if target is None else target
    pairs = zip(x.split(BATCH), targets.split(BATCH), strict=True)
    rows: dict[int, Tensor] = {}
    for number, (stored, wanted) in share.own(pairs):
        kept, everything = (FvuSums(sae.n_outputs, sae.device) for _ in range(2))
        batch = stored.to(sae.device).float()
        wanted_batch = batch if target is None else wanted.to(sae.device).float()
        reconstruction, latents = sae(batch)
        everything.add(wanted_batch, reconstruction)
        keep = torch.ones(batch.shape[0], dtype=torch.bool, device=sae.device)
        if outlier_norm is not None:
            keep = torch.linalg.vector_norm(batch, dim=1) <= outlier_norm
        kept.add(wanted_batch[keep], reconstruction[keep])
        active = (latents.values[keep] != 0).sum().double()
        cosine = cosine_similarity(wanted_batch[keep], reconstruction[keep].float()).double().sum()
        rows[number] = torch.cat([torch.stack([active, cosine]), everything.row(), kept.row()])
    sums = _in_order(share, rows, 2 * sae.n_outputs + 8)
    active, cosine = sums[0].long(), sums[1]
    everything, kept = (FvuSums.of_row(row) for row in sums[2:].chunk(2))
    return Quality(
        fvu=kept.fvu(),
        fvu_all=everything.fvu(),
        outlier_share=1 - kept.tokens / max(everything.tokens, 1),
        l0=int(sae.sharing.total_over_latents(active)) / max(kept.tokens, 1),
        cosine=float(cosine) / kept.tokens if kept.tokens else float("nan"),
        tokens=everything.tokens,
    )


def _in_order(share: Share, rows: dict[int, Tensor], width: int) -> Tensor:
    """float64 rows [width] of all processes, added in the order of their numbers."""
    host = {number: row.cpu().numpy() for number, row in rows.items()}
    return torch.from_numpy(share.sum_in_order(host, width))


@torch.inference_mode()
def firing_counts(
    sae: SparseAutoencoder, batches: Iterable[Tensor], share: Share = WHOLE
) -> tuple[Tensor, int]:
    """How many tokens each latent fires on, int64 [M], and how many tokens there were. Several
    processes share the batches."""
    counts = torch.zeros(sae.n_latents + 1, dtype=torch.int64, device=sae.device)
    tokens = 0
    for _, batch in share.own(batches):
        inputs, _ = sae.training_tokens(batch)
        latents = sae.encode_sparse(inputs.to(sae.device).float())
        # Inactive entries are counted in an extra last bin.
        active = torch.where(latents.values != 0, latents.indices, sae.n_latents)
        counts += torch.bincount(active.reshape(-1), minlength=sae.n_latents + 1)
        tokens += batch.shape[0]
    if share.alone:
        return counts[:-1], tokens
    summed = share.summed(np.append(counts[:-1].cpu().numpy(), tokens))
    return torch.from_numpy(summed[:-1]).to(sae.device), int(summed[-1])


def heldout_sample(
    sae: SparseAutoencoder, source: TokenSource, outlier_norm: float | None
) -> tuple[Tensor, Tensor]:
    """Inputs and targets of the tokens that quality is measured on."""
    split = HELDOUT if source.count(HELDOUT, outlier_norm) else TRAIN
    return sae.training_tokens(source.sample(HELDOUT_TOKENS, 0, split))


def heldout_quality(
    sae: SparseAutoencoder, source: TokenSource, outlier_norm: float | None, share: Share = WHOLE
) -> Quality:
    """Quality on the held-out tokens of `source`, the same tokens for every SAE.

    A source of few documents may have none: then on training tokens.
    """
    inputs, targets = heldout_sample(sae, source, outlier_norm)
    wanted = targets if sae.transcodes else None
    return reconstruction_quality(sae, inputs, outlier_norm, wanted, share)


def mean_target(
    sae: SparseAutoencoder, source: TokenSource, outlier_norm: float | None, share: Share = WHOLE
) -> Tensor:
    """Mean of the SAE's target, over a fixed sample of training tokens without
    outliers: [n_outputs] fp32 on the SAE's device."""
    rows: dict[int, Tensor] = {}
    for number, batch in share.own(fixed_batches(source, DENSITY_TOKENS, outlier_norm, BATCH)):
        _, targets = sae.training_tokens(batch)
        total = targets.to(sae.device).double().sum(0)
        rows[number] = torch.cat([total.new_tensor([len(batch)]), total])
    sums = _in_order(share, rows, sae.n_outputs + 1)
    return (sums[1:] / sums[0].clamp_min(1)).float().to(sae.device)


def latent_densities(
    sae: SparseAutoencoder, source: TokenSource, outlier_norm: float | None, share: Share = WHOLE
) -> Tensor:
    """Share of a fixed sample of training tokens on which each latent fires: [M]."""
    batches = fixed_batches(source, DENSITY_TOKENS, outlier_norm, BATCH)
    counts, tokens = firing_counts(sae, batches, share)
    return counts.double() / max(tokens, 1)
