"""Rules that give tokens different numbers of latents, such as those with a threshold."""

from abc import abstractmethod

from torch import Tensor

from mi_crow.mechanistic.sae.base import SparseAutoencoder, SparseLatents
from mi_crow.mechanistic.sae.kernels.entries import Entries


class RaggedSae(SparseAutoencoder):
    """An SAE whose rule chooses a ragged list of latents."""

    @abstractmethod
    def _encode_entries(self, x: Tensor) -> tuple[Tensor, Entries]:
        """[n, d] -> the latents of all rows by the rule of inference, differentiable."""

    def _encode_rows(self, x: Tensor) -> SparseLatents:
        values, entries = self._encode_entries(x)
        return SparseLatents(*entries.padded(values))
