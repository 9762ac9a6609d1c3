"""Comparing two SAEs: which features of one also exist in the other."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from mi_crow.errors import UserError
from mi_crow.mechanistic.sae.base import SparseAutoencoder
from mi_crow.store.json_object import JsonRecord

CLOSE, SAME = 0.7, 0.9

# Cosines computed at once.
_BLOCK_ELEMENTS = 1 << 25
_CANDIDATES = 16  # partners of each latent considered for the one-to-one matching


@dataclass(frozen=True)
class Comparison(JsonRecord):
    """How well the features of SAE `a` are found in SAE `b`, by the cosine of decoder rows."""

    features: int  # of a, without those whose decoder row is zero
    others: int  # of b
    mean_max_cosine: float  # mean over a of the largest cosine with a feature of b
    share_close: float  # of a, with a cosine of at least 0.7
    share_same: float  # of a, with a cosine of at least 0.9
    stability: float  # share of the smaller SAE matched one to one at 0.7 or more


@torch.inference_mode()
def compare_saes(a: SparseAutoencoder, b: SparseAutoencoder) -> Comparison:
    """Compares decoder directions. All figures but `stability` are about the features of `a`.

    Paulo and Belrose 2025, "Sparse autoencoders trained on the same data learn different
    features", count one-to-one matches with a cosine of at least 0.7. Theirs is the optimal
    assignment; ours matches greedily, best pairs first, which needs no M x M matrix and gives at
    most the optimal share. Raises UserError when the SAEs have different widths.
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
        raise UserError("an SAE whose decoder rows are all zero cannot be compared")
    return functional.normalize(rows, dim=1)


def _nearest(ours: Tensor, theirs: Tensor) -> tuple[Tensor, Tensor]:
    """The largest cosines of each of our rows and their partners: [M, p], largest first."""
    count = min(_CANDIDATES, len(theirs))
    block = max(1, _BLOCK_ELEMENTS // len(theirs))
    found = [(rows @ theirs.T).topk(count, dim=1) for rows in ours.split(block)]
    return torch.cat([top.values for top in found]), torch.cat([top.indices for top in found])


def _one_to_one(cosines: Tensor, partners: Tensor, n_theirs: int) -> int:
    """The number of pairs with a cosine of at least CLOSE, matched best first, each row once."""
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
