"""Layers of the running model, for training and indexing without a captured run."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from time import time
from typing import TYPE_CHECKING

import torch

from mi_crow.datasets import Texts
from mi_crow.language_model.capture.forward import Copy, Forward
from mi_crow.language_model.capture.plan import Batch, PartPlan
from mi_crow.language_model.capture.source import CaptureSource
from mi_crow.language_model.capture.writer import not_finite
from mi_crow.language_model.config import CaptureConfig
from mi_crow.language_model.placement.batch_size import BatchSize, documents_at_once
from mi_crow.progress import Progress
from mi_crow.store.runs.manifest import LayerSpec, RunManifest
from mi_crow.store.runs.parts import StoredRows

if TYPE_CHECKING:
    from mi_crow.language_model.language_model import LanguageModel


class LiveLayer:
    """Activations of one hook point, or of several, in the model's own dtype (else fp32) and on its
    device."""

    def __init__(self, lm: "LanguageModel", config: CaptureConfig, progress: Progress) -> None:
        """Raises NotFoundError for an unknown layer of `config`."""
        self.lm: LanguageModel = lm
        at_once = documents_at_once(config.batch_size, lm.device, config.context_length)
        self.config: CaptureConfig = replace(config, batch_size=at_once)
        points = [lm.layers.resolve(name) for name in config.layers]
        self.layers: tuple[LayerSpec, ...] = tuple(
            LayerSpec(point.stored, point.point, lm.layers.width(point)) for point in points
        )
        self.layer: LayerSpec = self.layers[0]
        self.dtype: str = {torch.bfloat16: "bf16", torch.float16: "fp16"}.get(lm.dtype, "fp32")
        size = BatchSize(at_once, progress.log)
        self._forward = Forward(lm, points, self.dtype, size, to_host=False)

    def source(self, texts: Texts) -> CaptureSource:
        """The texts as parts. Raises UserError for a context that has no room for text."""
        return CaptureSource(self.lm, texts, self.config, self.layers)

    def manifest(self, source: CaptureSource, fingerprint: str = "") -> RunManifest:
        """The manifest that a capture of `source` would have; its run has no id."""
        return RunManifest(
            run_id="",
            model_id=self.lm.model_id,
            revision=self.lm.revision,
            tokenizer_hash=self.lm.tokenizer_hash,
            layers=list(self.layers),
            dtype=self.dtype,
            dataset=asdict(self.config.dataset),
            fingerprint=fingerprint,
            settings=source.settings(),
            created=time(),
            status="complete",
        )

    @property
    def read(self) -> tuple[LayerSpec, ...]:
        """What `every` gives, in this order."""
        return self.layers

    @property
    def dtypes(self) -> tuple[str, ...]:
        """Of the models that are read."""
        return (self.dtype,)

    def rows(self, plan: PartPlan) -> Iterator[tuple[Batch, StoredRows]]:
        """The rows of a part at the first layer, batch by batch. Raises MiCrowError for rows that
        are not finite."""
        for batch, (first, *_) in self.every(plan):
            yield batch, first

    def every(self, plan: PartPlan) -> Iterator[tuple[Batch, tuple[StoredRows, ...]]]:
        """As `rows`, at each layer that is read."""
        for copy in self._forward.part(plan):
            yield copy.batch, self._checked(copy)

    def of_batch(self, batch: Batch) -> tuple[StoredRows, ...]:
        """The rows of one batch, at each layer that is read."""
        pieces = [self._checked(copy) for copy in self._forward.batch(batch)]
        return tuple(_joined(parts) for parts in zip(*pieces, strict=True))

    def _checked(self, copy: Copy) -> tuple[StoredRows, ...]:
        if not bool(copy.finite.all()):
            names = {layer.name: layer.point for layer in self.layers}
            raise not_finite(copy, names, self.dtype)
        return tuple(copy.rows[layer.name] for layer in self.layers)


def _joined(parts: Sequence[StoredRows]) -> StoredRows:
    """Rows in the model's dtype, which have no scales, one after another."""
    if len(parts) == 1:
        return parts[0]
    values, norms = [part.values for part in parts], [part.norms for part in parts]
    return StoredRows(torch.cat(values), torch.cat(norms), None)
