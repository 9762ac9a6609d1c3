"""How alike the decoder rows of an SAE are: a sign of too small or too large an L0.

c_dec = mean over pairs i < j of |cos(W_dec,i, W_dec,j)| (Chanin and Garriga-Alonso 2025, "Sparse
but wrong: incorrect L0 leads to incorrect features in sparse autoencoders", 2508.16560). Of SAEs of
one layer and size those that mix features, since their L0 is not the true one, have a larger one.
"""

import torch
from torch.nn import functional

from mi_crow.mechanistic.sae.base import SparseAutoencoder

# Up to this many latents every pair counts, above it so many rows, drawn once, against all others.
_ALL, _DRAWN = 16_384, 4_096
_BLOCK_ELEMENTS = 1 << 25  # cosines computed at once


@torch.inference_mode()
def decoder_correlation(sae: SparseAutoencoder) -> float:
    """c_dec of the latents whose decoder row is not zero; nan with fewer than two of them."""
    rows = sae.decoder_rows.detach().float()
    rows = rows[torch.linalg.vector_norm(rows, dim=1) > 0]
    if len(rows) < 2:
        return float("nan")
    rows = functional.normalize(rows, dim=1)
    drawn = rows
    if len(rows) > _ALL:
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
        drawn = rows[order[:_DRAWN].to(rows.device)]
    total = torch.zeros((), dtype=torch.float64, device=rows.device)
    for block in drawn.split(max(1, _BLOCK_ELEMENTS // len(rows))):
        total += (block @ rows.T).abs().sum(dtype=torch.float64)
    pairs = len(drawn) * (len(rows) - 1)
    own = torch.linalg.vector_norm(drawn, dim=1).square().sum(dtype=torch.float64)
    return float((total - own) / pairs)
