"""Training tokens straight from the running model: no disk, any number of tokens.

The stream of kept tokens is cut into blocks. Each is captured, shuffled on the model's device and
split into batches before the next one. Where a block begins depends only on texts, settings and
the batch size, so training can start at any batch.
"""

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import count
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mi_crow.background import read_ahead
from mi_crow.datasets import HELDOUT, TRAIN, TextDataset, Texts, load_texts
from mi_crow.errors import UserError
from mi_crow.language_model.capture.live_layer import LiveLayer
from mi_crow.language_model.capture.plan import PartPlan, plan_part
from mi_crow.language_model.capture.source import CaptureSource
from mi_crow.language_model.capture.windows import Row
from mi_crow.language_model.chat import chat_renderer
from mi_crow.language_model.config import CaptureConfig
from mi_crow.language_model.placement.batch_size import DOCUMENTS
from mi_crow.language_model.token_ids import ids_decoder
from mi_crow.mechanistic.sae.config import TrainConfig
from mi_crow.mechanistic.sae.run_tokens import RunTokens
from mi_crow.mechanistic.sae.source import permutation
from mi_crow.progress import Progress
from mi_crow.ranks import ALONE, Ranks
from mi_crow.store.runs.manifest import LayerSpec, RunManifest
from mi_crow.store.runs.parts import DTYPES
from mi_crow.store.runs.reads import EVERY_ROW, Reads

if TYPE_CHECKING:
    from mi_crow.language_model.language_model import LanguageModel

# A block holds at most this many tokens and bytes, and a sixteenth of the training, so that the
# first step does not wait long.
_BLOCK_TOKENS = 1 << 18
_BLOCK_BYTES = 1 << 30
_BLOCKS = 16
_LEAST_BLOCK_TOKENS = 16_384
_HELDOUT_TOKENS = 32_768


@dataclass(frozen=True)
class LiveTokens:
    """Captured rows on the model's device."""

    x: Tensor  # [n, d]
    norms: Tensor  # [n] fp32

    def within(self, max_norm: float | None) -> Tensor:
        return self.x if max_norm is None else self.x[self.norms <= max_norm]


def live_tokens(
    config: TrainConfig, stream: CaptureConfig, progress: Progress, ranks: Ranks = ALONE
) -> RunTokens:
    """The tokens of the model and texts that `stream` names, on the device of the training.
    Processes that split the tokens run the model on different texts.

    Raises UserError or NotFoundError in one sentence.
    """
    lm, texts = model_and_texts(config, stream)
    stream = replace(stream, seed=config.training.seed)
    source = LiveSource(LiveLayer(lm, stream, progress), texts, length_of(config), ranks)
    return RunTokens(source.manifest, source.layer, None, source)


def model_and_texts(config: TrainConfig, stream: CaptureConfig) -> tuple["LanguageModel", Texts]:
    """The model of `stream`, on the device of the training, and its texts."""
    from mi_crow.language_model.language_model import LanguageModel

    lm = LanguageModel.from_spec(replace(stream.model, device=config.device))
    chat, ids = chat_renderer(lm.tokenizer), ids_decoder(lm.tokenizer)
    return lm, load_texts(stream.dataset, stream.model.offline, chat, ids)


def length_of(config: TrainConfig) -> int:
    """How many tokens a training on a stream reads."""
    training = config.training
    return training.tokens or (training.steps or 0) * training.batch_size


class LiveSource:
    """A TokenSource that runs the model as tokens are asked for."""

    live = True

    def __init__(self, live: LiveLayer, texts: Texts, tokens: int, ranks: Ranks = ALONE) -> None:
        """`live` is what is read; `tokens` is the length of the training. Each of `ranks` runs the
        model on its own texts and gets its part of every batch from them.

        Raises UserError for a context without room for text.
        """
        self._texts, self._ranks = texts, ranks
        self._live = live
        self.layer: LayerSpec = self._live.layer
        room = _BLOCK_BYTES // self._row_bytes()
        share = max(_LEAST_BLOCK_TOKENS, tokens // _BLOCKS)
        self._block_tokens = max(1, min(_BLOCK_TOKENS, room, share))
        # Made here, so that what cannot work is refused before anything runs.
        self.manifest: RunManifest = self._live.manifest(self._pass(0))

    @property
    def width(self) -> int:
        return self.layer.width

    def _row_bytes(self) -> int:
        """What a token of a block takes."""
        return self.width * DTYPES[self._live.dtype].itemsize

    def count(self, split: str = TRAIN, max_norm: float | None = None) -> int:
        """Number of tokens in the first block, or of the held-out texts found along with it."""
        return len(self._opening[split].within(max_norm))

    def median_norm(self) -> float:
        return float(torch.cat([tokens.norms for tokens in self._opening.values()]).median())

    def sample(
        self, n: int, seed: int, split: str = TRAIN, max_norm: float | None = None
    ) -> Tensor:
        x = self._opening[split].within(max_norm)
        return x[permutation(len(x), seed, -1)[:n].sort().values.to(x.device)]

    def batches(
        self,
        batch_size: int,
        seed: int,
        split: str = TRAIN,
        max_norm: float | None = None,
        start: int = 0,
        reads: Reads = EVERY_ROW,
    ) -> Iterator[Tensor]:
        """Batches [batch_size, d] on the model's device, beginning with batch `start`; this
        process's part of them, whatever `reads` says.

        A block gives as many batches as its tokens fill; in place of tokens above `max_norm`,
        others of the block come twice.
        """
        per_block = max(1, self._block_tokens // batch_size)
        first, offset = divmod(start, per_block)
        plans = self._blocks(per_block * batch_size, split, first)
        own = len(range(self._ranks.rank, batch_size, self._ranks.world))
        with closing(read_ahead(plans, 1, "live-tokens")) as ready:
            for number, plan in zip(count(first), ready, strict=False):
                x = self._captured(plan).within(max_norm)
                if not len(x):
                    raise UserError(
                        f"dataset {self._texts.source!r} gives no usable {split} tokens"
                    )
                order = permutation(len(x), seed, number)
                order = order.repeat(-(-per_block * own // len(x))).to(x.device)
                for batch in range(offset, per_block):
                    yield x[order[batch * own : (batch + 1) * own]]
                offset = 0

    @cached_property
    def _opening(self) -> dict[str, LiveTokens]:
        """The first block's tokens and the held-out ones met on the way to its end."""
        return {split: self._captured(plan) for split, plan in self._opening_plans().items()}

    def _opening_plans(self) -> dict[str, PartPlan]:
        rows: dict[str, list[Row]] = {TRAIN: [], HELDOUT: []}
        tokens = {TRAIN: 0, HELDOUT: 0}
        most = {TRAIN: self._block_tokens, HELDOUT: _HELDOUT_TOKENS}
        with closing(self._pass(0).all_rows()) as stream:
            for row in stream:
                if tokens[row.split] < most[row.split]:
                    rows[row.split].append(row)
                    tokens[row.split] += len(row.kept)
                if tokens[TRAIN] >= most[TRAIN]:
                    break
        return {split: self._plan(chosen) for split, chosen in rows.items()}

    def _blocks(self, tokens: int, split: str, first: int) -> Generator[PartPlan, None, None]:
        """The texts over and over, in stretches of at least `tokens` kept tokens, from the
        `first` stretch on."""
        rows: list[Row] = []
        total = block = 0
        for number in count():
            found = 0
            with closing(self._pass(number).all_rows()) as stream:
                for row in stream:
                    if row.split != split:
                        continue
                    rows.append(row)
                    total += len(row.kept)
                    found += len(row.kept)
                    if total >= tokens:
                        if block >= first:
                            yield self._plan(rows[self._ranks.rank :: self._ranks.world])
                        rows, total, block = [], 0, block + 1
            if not found:
                raise UserError(f"dataset {self._texts.source!r} gives no {split} tokens")

    def _pass(self, number: int) -> CaptureSource:
        """The texts for the nth time; those in memory in another order each time."""
        texts = self._texts
        if isinstance(texts, TextDataset):
            seed = self._live.config.seed * 1_000_003 + number
            texts = texts.random_sample(len(texts), seed)
        return self._live.source(texts)

    def _plan(self, rows: Sequence[Row]) -> PartPlan:
        return plan_part(
            rows,
            self._live.config.batch_size or DOCUMENTS,
            fill=self._live.lm.padding_id,
            shard=0,
            piece=0,
            closes=True,
            pinned=self._live.lm.device.type == "cuda",
        )

    def _captured(self, plan: PartPlan) -> LiveTokens:
        kept = [rows for _, rows in self._live.rows(plan)]
        if not kept:
            device = self._live.lm.device
            nothing = torch.empty(0, self.width, device=device)
            return LiveTokens(nothing, torch.empty(0, device=device))
        # Cloned out of inference mode, since training saves its inputs for the backward pass.
        return LiveTokens(
            torch.cat([rows.values for rows in kept]).clone(),
            torch.cat([rows.norms for rows in kept]).clone(),
        )
