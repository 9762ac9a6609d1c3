"""The encoder's product over all tokens of a run: what no index can do without."""

import time

import torch

from mi_crow.mechanistic.sae.base import SparseAutoencoder
from mi_crow.store.runs.reader import RunReader

_BATCH = {"cpu": 2048, "cuda": 16_384}
_CELLS = {"cpu": 1 << 26, "cuda": 1 << 31}  # of the block that all products go into


class EncoderProduct:
    """`x @ W.T` over all tokens, batch by batch into one block, and nothing else."""

    def __init__(self, reader: RunReader, sae: SparseAutoencoder) -> None:
        self._device = sae.device
        kind = self._device.type
        batch = min(_BATCH[kind], _CELLS[kind] // sae.n_latents)
        stored = [part.take(slice(0, len(part))) for part in reader.parts()]
        # The parts' rows end to end, so that every batch but the last is full.
        self._batches = torch.cat(stored).to(self._device).split(batch)
        self._columns = sae.encoder_rows.detach().t()
        self._out = torch.empty(batch, sae.n_latents, device=self._device)

    @torch.inference_mode()
    def seconds(self) -> float:
        total = 0.0
        for batch in self._batches:
            x = batch.float()
            self._wait()
            began = time.perf_counter()
            torch.mm(x, self._columns, out=self._out[: len(x)])
            self._wait()
            total += time.perf_counter() - began
        return total

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
