"""Which texts make each latent fire most, kept while texts run through the model.

All latents are merged at once: one table [M, top_k] of activations and text numbers, one top-k
over it and the batch. No loop over tokens or latents.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

_NO_TEXT = -1
_SPARE_TEXTS = 1024  # texts in no row that may pile up before they are dropped


class TextTracker:
    """The `top_k` texts of each latent; a text counts once, by its strongest token."""

    def __init__(self, n_latents: int, top_k: int, device: torch.device) -> None:
        self._values = torch.zeros(n_latents, top_k, device=device)
        self._numbers = torch.full((n_latents, top_k), _NO_TEXT, device=device)
        self._texts: dict[int, str] = {}
        self._number_of: dict[str, int] = {}
        self._assigned = 0  # numbers assigned so far
        self._kept = 0  # texts left when some were last dropped

    @torch.no_grad()
    def add(self, texts: Sequence[str], values: Tensor, indices: Tensor) -> None:
        """Merges a batch in: sparse latents [batch, length, k], zero where nothing fires."""
        unique = list(dict.fromkeys(texts))
        strongest = self._strongest(texts, unique, values, indices)
        numbers = torch.tensor([self._number(text) for text in unique], device=strongest.device)
        self._move_known(numbers, strongest)
        pool = torch.cat([self._values, strongest.t()], dim=1)
        owners = torch.cat([self._numbers, numbers.expand(pool.shape[0], -1)], dim=1)
        self._values, columns = pool.topk(self._values.shape[1], dim=1)
        self._numbers = owners.gather(1, columns).masked_fill_(self._values <= 0, _NO_TEXT)
        if len(self._texts) > 2 * self._kept + _SPARE_TEXTS:
            self._drop_texts()

    def top_texts(self) -> dict[int, list[tuple[str, float]]]:
        """Latent -> (text, activation), strongest first; latents that never fired are left out."""
        fired = (self._values[:, 0] > 0).nonzero()[:, 0]
        rows = zip(
            fired.tolist(), self._numbers[fired].tolist(), self._values[fired].tolist(), strict=True
        )
        return {
            latent: [
                (self._texts[number], value)
                for number, value in zip(numbers, values, strict=True)
                if number != _NO_TEXT
            ]
            for latent, numbers, values in rows
        }

    def _strongest(
        self, texts: Sequence[str], unique: list[str], values: Tensor, indices: Tensor
    ) -> Tensor:
        """Greatest activation of each latent in each distinct text: [texts, M]."""
        n_latents = self._values.shape[0]
        row_of = {text: row for row, text in enumerate(unique)}
        rows = torch.tensor([row_of[text] for text in texts], device=values.device)
        # One flat index per pair of text and latent, so that equal texts of a batch meet.
        flat = rows[:, None, None] * n_latents + indices
        table = torch.zeros(len(unique) * n_latents, device=values.device)
        table.scatter_reduce_(0, flat.reshape(-1), values.reshape(-1).float(), "amax")
        return table.view(len(unique), n_latents).to(self._values.device)

    def _move_known(self, numbers: Tensor, strongest: Tensor) -> None:
        """Moves texts of the batch that are in the table already out of it, into `strongest`
        [texts, M]: each counts once, by its greatest activation."""
        for row in torch.isin(numbers, self._numbers).nonzero()[:, 0].tolist():
            same = self._numbers == numbers[row]
            known = (self._values * same).amax(1)
            strongest[row] = torch.maximum(strongest[row], known)
            self._values = self._values.masked_fill(same, 0.0)

    def _number(self, text: str) -> int:
        number = self._number_of.get(text)
        if number is None:
            number, self._assigned = self._assigned, self._assigned + 1
            self._number_of[text], self._texts[number] = number, text
        return number

    def _drop_texts(self) -> None:
        """Forgets texts that are in no latent's row, so that memory stays that of the table."""
        used = set(self._numbers.unique().tolist())
        self._texts = {number: text for number, text in self._texts.items() if number in used}
        self._number_of = {text: number for number, text in self._texts.items()}
        self._kept = len(self._texts)
