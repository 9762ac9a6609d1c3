"""From texts to the plans of the parts that are still to be captured."""

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import accumulate, islice
from typing import Any

from mi_crow.datasets import Texts
from mi_crow.errors import UserError
from mi_crow.language_model.base import CausalModel
from mi_crow.language_model.capture.plan import PartPlan, plan_part
from mi_crow.language_model.capture.token_stream import TokenizedText, tokenized
from mi_crow.language_model.capture.windows import Row, SourceText, Windowing, cut_by_tokens
from mi_crow.language_model.chat import template_writes
from mi_crow.language_model.config import CaptureConfig
from mi_crow.language_model.placement.batch_size import DOCUMENTS
from mi_crow.language_model.tokenize import special_ids, start_id
from mi_crow.ranks import ALONE, Ranks
from mi_crow.store.runs.manifest import LayerSpec, RunManifest, stored_bytes

# A part's rows are held in memory until it is written.
_PART_BYTES = 256 << 20
# Fewer texts are tokenized before a process for that would have started.
_FEW_TEXTS = 2000


@dataclass(frozen=True)
class Todo:
    """What a capture still has to do; the same on every rank."""

    closed: dict[int, int]  # complete shards: their kept tokens
    pieces: dict[int, int]  # written pieces of incomplete shards
    documents: int | None  # stop after these; None: at the end, or at the token limit

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Todo":
        closed, pieces = (
            {int(shard): int(n) for shard, n in data[key].items()} for key in ("closed", "pieces")
        )
        return cls(closed, pieces, data["documents"])


class CaptureSource:
    """The texts of one capture, planned as parts."""

    def __init__(
        self,
        lm: CausalModel,
        texts: Texts,
        config: CaptureConfig,
        layers: Sequence[LayerSpec],
    ) -> None:
        """Raises UserError for a context with room only for the special tokens."""
        self._lm, self._texts, self._config = lm, texts, config
        self._context = min(config.context_length, lm.context or config.context_length)
        self._windowing = Windowing(
            lm.tokenizer,
            self._context,
            split_long=config.long_documents == "split",
            pack=config.pack,
            keep_special=config.keep_special,
            chat=texts.chat,
            bos=config.bos,
            embedding_rows=lm.embedding_rows,
        )
        width = sum(stored_bytes(config.dtype, layer.width) for layer in layers)
        self._part_tokens = max(1, _PART_BYTES // width)
        self._size = _smallest(texts.size, config.dataset.limit)

    @property
    def total(self) -> tuple[int, str]:
        """How much there is to do, and in which unit.

        Raises UserError for texts of unknown number without a limit.
        """
        if (limit := self._config.dataset.token_limit) is not None:
            return limit, "token"
        if self._size is None:
            raise UserError(
                f"the number of texts in {self._texts.source!r} is not known",
                hint="limit the run with --limit or --token-limit",
            )
        return self._size, "document"

    @property
    def truncated(self) -> int:
        """How many of the documents tokenized so far were cut."""
        return self._windowing.truncated

    def settings(self) -> dict[str, Any]:
        """What the manifest records of how texts become tokens."""
        return {
            "context_length": self._context,
            "long_documents": self._config.long_documents,
            "pack": self._config.pack,
            "chat": self._texts.chat,
            "keep_special": self._config.keep_special,
            "bos": self._config.bos,
            "begins_with_bos": self._begins_with_bos(),
            "special_ids": sorted(special_ids(self._lm.tokenizer)),
            "added_before": list(self._windowing.prefix),
            "added_after": list(self._windowing.suffix),
            "part_tokens": self._part_tokens,
        }

    def _begins_with_bos(self) -> bool:
        """Whether texts begin with a BOS token, added by us or by the chat template."""
        start = start_id(self._lm.tokenizer)
        if start in self._windowing.prefix:
            return True
        return self._texts.chat and template_writes(self._lm.tokenizer, start)

    def sample(self, documents: int) -> tuple[list[SourceText], list[int], int]:
        """The first texts, their numbers of kept tokens, and how many texts there are at most (0:
        not known)."""
        texts = [SourceText(*row) for row in islice(self._numbered(0), documents)]
        found = tokenized(
            self._lm.tokenizer,
            [(None, [text.text for text in texts])],
            self._windowing.offsets_above,
            own_process=False,
        )
        _, tokens = next(iter(found))
        return texts, [self._windowing.kept_tokens(one) for one in tokens], self._size or 0

    def todo(self, manifest: RunManifest, world: int) -> Todo:
        """What is left to do after the parts of `manifest`."""
        closed, pieces = {}, {}
        for part in manifest.parts:
            pieces[part.shard] = pieces.get(part.shard, 0) + 1
            closed[part.shard] = closed.get(part.shard, 0) + part.tokens
        complete = {part.shard for part in manifest.parts if part.closes}
        documents = None
        if world > 1 and self._config.dataset.token_limit is not None:
            documents = self._documents_in_limit(self._config.dataset.token_limit)
        return Todo(
            {shard: tokens for shard, tokens in closed.items() if shard in complete},
            {shard: count for shard, count in pieces.items() if shard not in complete},
            documents,
        )

    def plans(self, todo: Todo, ranks: Ranks) -> Iterator[PartPlan]:
        """The parts of this rank that are not written yet, in order."""
        limit = self._config.dataset.token_limit if todo.documents is None else None
        before = 0  # kept tokens of the shards so far
        closed = dict(todo.closed)
        for (shard, texts), tokens in self._tokenized(self._shards(todo, ranks)):
            before += sum(closed.pop(done) for done in sorted(closed) if done < shard)
            if limit is not None:
                if before >= limit:
                    return
                n = self._documents_within(tokens, limit - before)
                texts, tokens = texts[:n], tokens[:n]
            rows = self._windowing.rows(texts, tokens)
            groups = list(cut_by_tokens(rows, self._part_tokens))
            before += sum(len(row.kept) for group in groups for row in group)
            for piece, group in enumerate(groups):
                if piece >= todo.pieces.get(shard, 0):
                    yield plan_part(
                        group,
                        self._config.batch_size or DOCUMENTS,
                        self._lm.padding_id,
                        shard=shard,
                        piece=piece,
                        closes=piece == len(groups) - 1,
                        pinned=self._lm.device.type == "cuda",
                    )

    def all_rows(self) -> Generator[Row, None, None]:
        """Every row of every document, in order."""
        everything = self._tokenized(self._shards(Todo({}, {}, None), ALONE))
        with closing(everything):
            for (_, texts), tokens in everything:
                yield from self._windowing.rows(texts, tokens)

    def _tokenized(
        self, shards: Iterator[tuple[int, list[SourceText]]]
    ) -> Generator[tuple[tuple[int, list[SourceText]], list[TokenizedText]], None, None]:
        batches = (((shard, texts), [text.text for text in texts]) for shard, texts in shards)
        return tokenized(
            self._lm.tokenizer,
            batches,
            self._windowing.offsets_above,
            own_process=self._size is None or self._size > _FEW_TEXTS,
        )

    def _shards(self, todo: Todo, ranks: Ranks) -> Iterator[tuple[int, list[SourceText]]]:
        """This rank's share of the incomplete shards, in order."""
        size = self._config.shard_size
        first = next(shard for shard in range(len(todo.closed) + 1) if shard not in todo.closed)
        numbered = self._numbered(first * size)
        if todo.documents is not None:
            numbered = islice(numbered, max(todo.documents - first * size, 0))
        turn = 0
        shard = first
        while texts := [SourceText(*row) for row in islice(numbered, size)]:
            if shard not in todo.closed:
                if turn % ranks.world == ranks.rank:
                    yield shard, texts
                turn += 1
            shard += 1

    def _numbered(self, start: int) -> Iterator[tuple[int, str, str | None]]:
        """Number, text and label of the documents from `start` on."""
        rows = self._texts.rows(start)
        if self._size is not None:
            rows = islice(rows, max(self._size - start, 0))
        for number, (text, label) in enumerate(rows, start):
            yield number, text, label

    def _documents_within(self, tokens: Sequence[TokenizedText], room: int) -> int:
        """How many of these documents it takes to reach `room` kept tokens, at most all."""
        sums = accumulate(self._windowing.kept_tokens(one) for one in tokens)
        return next((n for n, total in enumerate(sums, 1) if total >= room), len(tokens))

    def _documents_in_limit(self, limit: int) -> int:
        """How many documents of the whole dataset are within the token limit."""
        documents = 0
        numbered = self._numbered(0)
        size = self._config.shard_size
        shards = iter(lambda: [SourceText(*row) for row in islice(numbered, size)], [])
        for _, tokens in self._tokenized(enumerate(shards)):
            documents += self._documents_within(tokens, limit)
            limit -= sum(map(self._windowing.kept_tokens, tokens))
            if limit <= 0:
                break
        return documents


def _smallest(*numbers: int | None) -> int | None:
    known = [number for number in numbers if number is not None]
    return min(known) if known else None
