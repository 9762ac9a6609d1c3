"""Comparing two SAEs: which features of one the other has found as well."""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from mi_crow.errors import UserError
from mi_crow.mechanistic.sae.base import SparseAutoencoder

CLOSE, SAME = 0.7, 0.9

# Cosines that are held at once.
_BLOCK_ELEMENTS = 1 << 25
_PROPOSALS = 16  # of each latent, for the one-to-one match


@dataclass(frozen=True)
class Comparison:
    """How the features of SAE `a` look in SAE `b`, by the cosine of decoder rows."""

    features: int  # of a, those with a decoder row of zero length left out
    others: int  # of b
    mean_max_cosine: float  # mean over a of the greatest cosine with any feature of b
    share_close: float  # of a, with a cosine of at least 0.7
    share_same: float  # of a, with a cosine of at least 0.9
    stability: float  # share of the smaller SAE matched one to one at 0.7 or more

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@torch.inference_mode()
def compare_saes(a: SparseAutoencoder, b: SparseAutoencoder) -> Comparison:
    """Compares decoder directions. The first figures look from `a`; `stability` is symmetric.

    Paulo and Belrose 2025, "Sparse autoencoders trained on the same data learn different
    features", count one-to-one matches with a cosine of at least 0.7. Theirs is the optimal
    assignment; ours takes pairs greedily, best first, which needs no M x M matrix and gives a share
    that is at most the optimal one. Raises UserError when the SAEs have different widths.
    """
    if a.n_outputs != b.n_outputs:
        raise UserError(
            f"the SAEs have widths {a.n_outputs} and {b.n_outputs}",
            hint="compare SAEs of one layer",
        )
    ours, theirs = _directions(a), _directions(b).to(a.device)
    cosines, partners = _nearest(ours, theirs)
    best = cosines[:, 0]
    matched = _one_to_one(cosines, partners, len(theirs))
    return Comparison(
        features=len(ours),
        others=len(theirs),
        mean_max_cosine=float(best.mean()),
        share_close=float((best >= CLOSE).double().mean()),
        share_same=float((best >= SAME).double().mean()),
        stability=matched / min(len(ours), len(theirs)),
    )


def _directions(sae: SparseAutoencoder) -> Tensor:
    rows = sae.decoder_rows.detach().float()
    rows = rows[torch.linalg.vector_norm(rows, dim=1) > 0]
    if not len(rows):
        raise UserError("an SAE without a single decoder direction cannot be compared")
    return functional.normalize(rows, dim=1)


def _nearest(ours: Tensor, theirs: Tensor) -> tuple[Tensor, Tensor]:
    """The greatest cosines of each of our rows and whose they are: [M, p], greatest first."""
    count = min(_PROPOSALS, len(theirs))
    block = max(1, _BLOCK_ELEMENTS // len(theirs))
    found = [(rows @ theirs.T).topk(count, dim=1) for rows in ours.split(block)]
    return torch.cat([top.values for top in found]), torch.cat([top.indices for top in found])


def _one_to_one(cosines: Tensor, partners: Tensor, n_theirs: int) -> int:
    """Pairs that can be made, best first, each row once, with a cosine of at least CLOSE."""
    rows, columns = (cosines >= CLOSE).nonzero(as_tuple=True)
    order = cosines[rows, columns].argsort(descending=True, stable=True)
    free_ours = [True] * len(cosines)
    free_theirs = [True] * n_theirs
    pairs = 0
    for mine, theirs in zip(
        rows[order].tolist(), partners[rows[order], columns[order]].tolist(), strict=True
    ):
        if free_ours[mine] and free_theirs[theirs]:
            free_ours[mine] = free_theirs[theirs] = False
            pairs += 1
    return pairs
