"""Training on whitened activations, and what becomes of the SAE on plain ones."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from mi_crow.mechanistic.sae.base import SparseAutoencoder
from mi_crow.mechanistic.sae.source import TokenSource, fixed_batches

# Tokens of the covariance, and the fewest for each dimension.
_TOKENS, _TOKENS_A_DIMENSION = 131_072, 32


@dataclass(frozen=True)
class Whitening:
    """x -> (x - mean) matrix, after which all directions vary alike; both matrices symmetric."""

    mean: Tensor  # [d] fp64
    matrix: Tensor  # [d, d] fp64
    inverse: Tensor  # [d, d] fp64
    # Mean and matrix as steps take them: d^2 numbers that each would convert and copy anew.
    _ready: dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def whitened(self, x: Tensor) -> Tensor:
        """Activations x [n, d] whitened, in their own dtype."""
        kind = x.device, x.dtype
        if kind not in self._ready:
            self._ready[kind] = self.mean.to(*kind), self.matrix.to(*kind)
        mean, matrix = self._ready[kind]
        return (x - mean) @ matrix

    @torch.no_grad()
    def fold(self, sae: SparseAutoencoder) -> None:
        """Turns an SAE of whitened activations into one of plain ones, in place and exactly: the
        same latents, and the reconstruction that whitened is the one before."""
        self._change(sae, self.matrix, self.inverse)
        sae.b_dec.copy_(self._times(sae.b_dec, self.inverse) + self.mean.to(sae.device))

    @torch.no_grad()
    def unfold(self, sae: SparseAutoencoder) -> None:
        """The reverse of `fold`."""
        self._change(sae, self.inverse, self.matrix)
        sae.b_dec.copy_(self._times(sae.b_dec.double() - self.mean.to(sae.device), self.matrix))

    def _change(self, sae: SparseAutoencoder, encoder: Tensor, decoder: Tensor) -> None:
        sae.encoder_rows.copy_(self._times(sae.encoder_rows, encoder))
        sae.W_dec.copy_(self._times(sae.W_dec, decoder))

    def _times(self, rows: Tensor, matrix: Tensor) -> Tensor:
        return rows.double() @ matrix.to(rows.device)

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint keeps of it, by name."""
        return {"mean": self.mean, "matrix": self.matrix, "inverse": self.inverse}


@torch.no_grad()
def whitening_of(source: TokenSource, max_norm: float | None, shrinkage: float) -> Whitening:
    """The whitening by C^(-1/2), C the covariance of a fixed sample of training tokens, of which
    the part `shrinkage` is replaced by as much variance in every direction alike.

    Sums over batches in double precision: d^2 numbers of memory, d^2 products a token and a
    decomposition of d^3. Whitened directions that hardly vary would be noise alone; shrinkage
    bounds how much they are raised, by sqrt(mean variance / shrinkage).
    """
    d = source.width
    total, square, n = torch.zeros(d, dtype=torch.float64), torch.zeros(d, d).double(), 0
    for batch in fixed_batches(source, max(_TOKENS, _TOKENS_A_DIMENSION * d), max_norm):
        rows = batch.cpu().double()
        total += rows.sum(0)
        square += rows.T @ rows
        n += len(rows)
    mean = total / n
    covariance = square / n - torch.outer(mean, mean)
    even = covariance.diagonal().mean()
    shrunk = (1 - shrinkage) * covariance + shrinkage * even * torch.eye(d).double()
    values, vectors = torch.linalg.eigh(shrunk)
    values = values.clamp_min(values.max() * 1e-12)
    matrix = (vectors * values.rsqrt()) @ vectors.T
    return Whitening(mean, matrix, (vectors * values.sqrt()) @ vectors.T)
