"""Which texts make each latent fire most, kept while texts run through the model.

All latents are merged at once: one table [M, top_k] of activations and text numbers, one top-k
over it and the batch. No loop over tokens or latents.
"""

import torch
from torch import Tensor


class TextTracker:
    """The `top_k` texts of each latent, a text counting by its strongest token."""

    def __init__(self, n_latents: int, top_k: int, device: torch.device) -> None:
        self._texts: list[str] = []
        self._values = torch.zeros(n_latents, top_k, device=device)
        self._numbers = torch.full((n_latents, top_k), -1, dtype=torch.int64, device=device)

    def add(self, texts: list[str], values: Tensor, indices: Tensor) -> None:
        """Counts a batch: sparse latents [batch, length, k], silent positions at zero."""
        batch, n_latents = values.shape[0], self._values.shape[0]
        strongest = torch.zeros(batch, n_latents, device=self._values.device)
        strongest.scatter_reduce_(
            1, indices.reshape(batch, -1), values.reshape(batch, -1).float(), "amax"
        )
        numbers = torch.arange(batch, device=strongest.device) + len(self._texts)
        self._texts.extend(texts)
        pool = torch.cat([self._values, strongest.t()], dim=1)
        owners = torch.cat([self._numbers, numbers.expand(n_latents, batch)], dim=1)
        # Stable, so that of equal texts the earlier stays.
        order = pool.argsort(dim=1, descending=True, stable=True)[:, : self._values.shape[1]]
        self._values, self._numbers = pool.gather(1, order), owners.gather(1, order)

    def top_texts(self) -> dict[int, list[tuple[str, float]]]:
        """Latent -> (text, activation), strongest first; latents that never fired are left out."""
        fired = (self._values > 0).any(dim=1).nonzero()[:, 0].tolist()
        values, numbers = self._values.cpu(), self._numbers.cpu()
        return {
            latent: [
                (self._texts[number], value)
                for number, value in zip(
                    numbers[latent].tolist(), values[latent].tolist(), strict=True
                )
                if value > 0
            ]
            for latent in fired
        }
