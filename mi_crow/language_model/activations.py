"""Saving a model's activations from the library (see `capture.job` for the job)."""

from collections.abc import Sequence

import torch

from mi_crow.bounds import COUNT
from mi_crow.datasets import TextDataset, Texts
from mi_crow.errors import UserError
from mi_crow.language_model.base import CausalModel
from mi_crow.language_model.config import CaptureConfig, DatasetSpec, ModelSpec
from mi_crow.progress import NullProgress, Progress
from mi_crow.store.runs.parts import DTYPES


class Activations:
    """Saves activations of one model into its store."""

    def __init__(self, lm: CausalModel) -> None:
        self._lm = lm

    def save(
        self,
        layer_signature: str | int | Sequence[str | int],
        dataset: Texts | Sequence[str],
        sample_limit: int | None = None,
        batch_size: int | None = None,
        shard_size: int = 512,
        dtype: str | torch.dtype = "bf16",
        context_length: int = 128,
        run_name: str | None = None,
        progress: Progress | None = None,
    ) -> str:
        """Writes an activations run; returns its id.

        `sample_limit`, `batch_size` (None: what suits the device) and `shard_size` count documents;
        `dtype` is that of storage.
        Raises UserError when the model has no store, NotFoundError for an unknown layer.
        """
        # Here, since whoever only runs a model need not load pyarrow (0.4 s).
        from mi_crow.language_model.capture.run import Capture

        store = self._lm.store
        if store is None:
            raise UserError(
                "this model has no store", hint="pass store=LocalStore(folder) when loading it"
            )
        texts = TextDataset(dataset) if isinstance(dataset, Sequence) else dataset
        COUNT.check(sample_limit, "limit")
        single = isinstance(layer_signature, str | int)
        layers = [layer_signature] if single else list(layer_signature)
        config = CaptureConfig(
            model=ModelSpec(self._lm.model_id, revision=self._lm.revision),
            dataset=DatasetSpec(texts.source, limit=sample_limit),
            layers=tuple(self._lm.layers.resolve(layer).point for layer in layers),
            dtype=_storage_name(dtype),
            context_length=context_length,
            batch_size=batch_size,
            shard_size=shard_size,
            name=run_name,
        )
        capture = Capture(self._lm, texts, config)
        return capture.run(store.workspace, progress or NullProgress()).run_id


def _storage_name(dtype: str | torch.dtype) -> str:
    names = {kind: name for name, kind in DTYPES.items()}
    return dtype if isinstance(dtype, str) else names.get(dtype, str(dtype))
