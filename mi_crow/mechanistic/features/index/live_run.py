"""A corpus through the running model, read as a captured run is, with nothing stored."""

from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING

import pyarrow as pa
import torch
from torch import Tensor

from mi_crow.background import read_ahead
from mi_crow.datasets import Texts
from mi_crow.errors import UserError
from mi_crow.language_model.capture.live_layer import LiveLayer
from mi_crow.language_model.capture.plan import PartPlan
from mi_crow.language_model.config import CaptureConfig
from mi_crow.progress import Progress, raise_if_stopped
from mi_crow.ranks import ALONE, Ranks
from mi_crow.store.runs.manifest import LayerSpec, RunManifest
from mi_crow.store.runs.parts import DTYPES, Part

if TYPE_CHECKING:
    from mi_crow.language_model.language_model import LanguageModel

_PLANS_AHEAD = 1
_SAMPLE_DOCUMENTS = 256


class LivePart(Part):
    """One part in memory: rows on the model's device, documents on the host."""

    def __init__(
        self, table: pa.Table, rows: Tensor, norms: Tensor, place: tuple[int, int] = (0, 0)
    ) -> None:
        """`table` follows DOCUMENT_SCHEMA; rows [n, d] in the order of its kept tokens, norms [n]
        fp32; `place`: shard and piece."""
        self.place: tuple[int, int] = place
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
        self._progress = progress
        self._live = LiveLayer(lm, config, progress)
        self.layer: LayerSpec = self._live.layer
        self._source = self._live.source(texts)
        self._total = self._source.total
        self.manifest: RunManifest = self._live.manifest(self._source, texts.fingerprint())

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

    def parts(self, ranks: Ranks = ALONE) -> Iterator[LivePart]:
        """The parts of this process in order, each made when it is asked for. Raises UserError for
        texts without a token, MiCrowError for an activation that is not finite, CancelledError."""
        plans = self._source.plans(self._source.todo(self.manifest, ranks.world), ranks)
        tokens = 0
        with closing(read_ahead(plans, _PLANS_AHEAD, "index-tokens")) as ready:
            for plan in ready:
                tokens += plan.tokens
                yield self._filled(plan)
        if not tokens and ranks.world == 1:
            raise self.no_tokens()

    def no_tokens(self) -> UserError:
        """What is wrong with texts without a token."""
        return UserError(
            f"dataset {self._live.config.dataset.source!r} gave no tokens",
            hint="its texts contain only special tokens",
        )

    def _filled(self, plan: PartPlan) -> LivePart:
        device = self._live.lm.device
        rows = torch.empty(plan.tokens, self.width, dtype=DTYPES[self._live.dtype]).to(device)
        norms = torch.empty(plan.tokens, device=device)
        for batch, found in self._live.rows(plan):
            raise_if_stopped(self._progress)
            places = torch.from_numpy(batch.part_rows).to(device)
            rows[places], norms[places] = found.values, found.norms
        return LivePart(plan.table, rows, norms, (plan.shard, plan.piece))
