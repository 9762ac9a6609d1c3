"""A corpus through the running model, read as a captured run is, with nothing stored."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict
from time import time
from typing import TYPE_CHECKING

import pyarrow as pa
import torch
from torch import Tensor

from mi_crow.background import read_ahead
from mi_crow.datasets import Texts
from mi_crow.errors import UserError
from mi_crow.language_model.capture.forward import BatchSize, Forward
from mi_crow.language_model.capture.plan import PartPlan
from mi_crow.language_model.capture.source import CaptureSource
from mi_crow.language_model.capture.writer import not_finite
from mi_crow.language_model.config import CaptureConfig
from mi_crow.progress import Progress, raise_if_stopped
from mi_crow.ranks import ALONE
from mi_crow.store.runs.manifest import LayerSpec, RunManifest
from mi_crow.store.runs.parts import DTYPES, Part

if TYPE_CHECKING:
    from mi_crow.language_model.language_model import LanguageModel

_PLANS_AHEAD = 1
_SAMPLE_DOCUMENTS = 256


class LivePart(Part):
    """One part in memory: rows on the model's device, documents on the host."""

    def __init__(self, table: pa.Table, rows: Tensor, norms: Tensor) -> None:
        """`table` follows DOCUMENT_SCHEMA; rows [n, d] in the order of its kept tokens, norms [n]
        fp32."""
        self._table, self._rows = table, rows
        self._norms = norms.cpu()

    def __len__(self) -> int:
        return len(self._rows)

    def take(self, index: slice | Tensor) -> Tensor:
        """Rows [m, d] on the model's device; a view for a slice."""
        return self._rows[index if isinstance(index, slice) else index.to(self._rows.device)]

    @property
    def norms(self) -> Tensor:
        return self._norms

    def columns(self, *names: str) -> pa.Table:
        return self._table.select(list(names))


class LiveRun:
    """One layer of a model over texts: the parts that a capture with `config` would write."""

    def __init__(
        self, lm: "LanguageModel", texts: Texts, config: CaptureConfig, progress: Progress
    ) -> None:
        """`config` names one layer. Raises NotFoundError for an unknown one, UserError for texts
        that nobody knows the end of."""
        self._lm, self._config, self._progress = lm, config, progress
        # What the model computes in loses nothing on the way.
        dtype = {torch.bfloat16: "bf16", torch.float16: "fp16"}.get(lm.dtype, "fp32")
        self._point = lm.layers.resolve(config.layers[0])
        width = lm.layers.width(self._point)
        self.layer: LayerSpec = LayerSpec(self._point.stored, self._point.point, width)
        self._source = CaptureSource(lm, texts, config, [self.layer])
        self._total = self._source.total
        self.manifest: RunManifest = RunManifest(
            run_id="",
            model_id=lm.model_id,
            revision=lm.revision,
            tokenizer_hash=lm.tokenizer_hash,
            layers=[self.layer],
            dtype=dtype,
            dataset=asdict(config.dataset),
            fingerprint=texts.fingerprint(),
            settings=self._source.settings(),
            created=time(),
            status="complete",
        )

    @property
    def width(self) -> int:
        return self.layer.width

    @property
    def n_tokens(self) -> int:
        """About how many tokens there will be, outliers included: as many as the limit says, else
        what a sample of the texts promises."""
        most, unit = self._total
        if unit == "token":
            return most
        _, kept, documents = self._source.sample(_SAMPLE_DOCUMENTS)
        return int(sum(kept) / max(len(kept), 1) * documents)

    def parts(self) -> Iterator[Part]:
        """The parts in order, each made when it is asked for. Raises UserError for texts without
        a token, MiCrowError for an activation that is not finite, CancelledError."""
        size = BatchSize(self._config.batch_size, self._progress.log)
        forward = Forward(self._lm, [self._point], self.manifest.dtype, size, to_host=False)
        plans = self._source.plans(self._source.todo(self.manifest, 1), ALONE)
        tokens = 0
        with closing(read_ahead(plans, _PLANS_AHEAD, "index-tokens")) as ready:
            for plan in ready:
                tokens += plan.tokens
                yield self._filled(plan, forward)
        if not tokens:
            raise UserError(
                f"dataset {self._config.dataset.source!r} gave no tokens",
                hint="its texts contain only special tokens",
            )

    def _filled(self, plan: PartPlan, forward: Forward) -> LivePart:
        device, name = self._lm.device, self.layer.name
        rows = torch.empty(plan.tokens, self.width, dtype=DTYPES[self.manifest.dtype]).to(device)
        norms = torch.empty(plan.tokens, device=device)
        for copy in forward.part(plan):
            raise_if_stopped(self._progress)
            if not bool(copy.finite.all()):
                raise not_finite(copy, {name: self.layer.point}, self.manifest.dtype)
            places = torch.from_numpy(copy.batch.places).to(device)
            rows[places] = copy.rows[name].values
            norms[places] = copy.rows[name].norms
        return LivePart(plan.table, rows, norms)
