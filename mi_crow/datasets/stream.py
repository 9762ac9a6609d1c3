"""Texts held in memory, and texts read as they are needed: files, Arrow tables, the network."""

import json
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from functools import cached_property
from hashlib import sha256
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mi_crow.bounds import COUNT
from mi_crow.clean_text import clean_text
from mi_crow.datasets.conversations import as_messages, is_conversation
from mi_crow.datasets.fields import Fields, RawRow, is_token_ids, label_text
from mi_crow.datasets.records import ArrowRecords, LocalRecords, Records
from mi_crow.datasets.sampling import least_positions, least_rows
from mi_crow.datasets.saved import is_saved
from mi_crow.datasets.texts import Decode, Render, Row, Texts, TokenText, rows_digest
from mi_crow.errors import UserError
from mi_crow.paths import expanded

if TYPE_CHECKING:
    import datasets

_OPENING = 16  # rows that are looked at before anything else is read


class TextDataset:
    """Texts, and a label for each where the source has one. Implements `Texts`.

    A list with an empty text in it is refused, since the caller counts on its numbers; empty
    records of files and data sets are skipped.
    """

    def __init__(
        self,
        texts: Sequence[str],
        labels: Sequence[str | None] | None = None,
        source: str = "list",
        chat: bool = False,
        skipped: int = 0,
    ) -> None:
        """`chat`: a chat template made the texts, special tokens included; `skipped`: how many
        records of the source had no text.

        Raises UserError for an empty list, an empty text, a different number of labels.
        """
        self.texts: list[str] = [
            clean_text(text) if isinstance(text, str) else text for text in texts
        ]
        given = labels or [None] * len(self.texts)
        self.labels: list[str | None] = [
            clean_text(label) if isinstance(label, str) else label for label in given
        ]
        self.source = source
        self.chat = chat
        self.skipped = skipped
        if not self.texts:
            raise UserError(f"dataset {source!r} is empty", hint="it has no text to read")
        if len(self.labels) != len(self.texts):
            raise UserError(f"{len(self.texts)} texts came with {len(self.labels)} labels")
        for number, text in enumerate(self.texts):
            if not isinstance(text, str) or not text.strip():
                raise UserError(f"text {number} of dataset {source!r} is empty or not a text")

    @classmethod
    def from_rows(
        cls, rows: Sequence[Row], source: str, chat: bool = False, skipped: int = 0
    ) -> "TextDataset":
        texts, labels = [text for text, _ in rows], [label for _, label in rows]
        return TextDataset(texts, labels, source, chat, skipped)

    @classmethod
    def from_texts(cls, texts: Texts) -> "TextDataset":
        """All documents of `texts`, read into memory."""
        rows = list(texts.rows())
        return cls.from_rows(rows, texts.source, texts.chat, texts.skipped)

    @classmethod
    def from_local(
        cls,
        path: str | Path,
        text_field: str = "text",
        label_field: str | None = None,
        split: str = "train",
        render: Render | None = None,
    ) -> "TextDataset":
        """Texts of a file or a folder, read into memory. See `TextStream.from_local`."""
        return cls.from_texts(TextStream.from_local(path, text_field, label_field, split, render))

    @classmethod
    def from_huggingface(
        cls,
        name: str,
        split: str = "train",
        text_field: str = "text",
        label_field: str | None = None,
        limit: int | None = None,
        offline: bool = False,
        render: Render | None = None,
    ) -> "TextDataset":
        """Texts of a dataset on the Hugging Face hub, only the first `limit` when given. See
        `TextStream.from_huggingface`, which keeps none of them in memory. Raises NotFoundError,
        UserError."""
        texts = TextStream.from_huggingface(
            name, split, text_field, label_field, limit is not None, offline, render
        )
        return cls.from_texts(texts if limit is None else texts.head(limit))

    def random_sample(self, n: int, seed: int = 0) -> "TextDataset":
        """`n` texts (all, if there are fewer) drawn without replacement, in random order."""
        COUNT.check(n, "sample")
        chosen = random.Random(seed).sample(range(len(self)), min(n, len(self)))
        return self._pick(chosen)

    def head(self, n: int) -> "TextDataset":
        """The first `n` texts."""
        COUNT.check(n, "limit")
        return self._pick(range(min(n, len(self))))

    def fingerprint(self) -> str:
        """SHA-256 over texts and labels in order: the same for the same content."""
        return rows_digest(self.rows())[0]

    @property
    def size(self) -> int:
        """How many texts there are."""
        return len(self.texts)

    def rows(self, start: int = 0) -> Iterator[Row]:
        """Text and label of each text from number `start` on."""
        for number in range(start, len(self.texts)):
            yield self.texts[number], self.labels[number]

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: int) -> str:
        return self.texts[index]

    def __iter__(self) -> Iterator[str]:
        return iter(self.texts)

    def _pick(self, chosen: Sequence[int]) -> "TextDataset":
        rows = [(self.texts[i], self.labels[i]) for i in chosen]
        return TextDataset.from_rows(rows, self.source, self.chat, self.skipped)


class TextStream:
    """Documents of a source that need not fit into memory. Implements `Texts`.

    Records without text are skipped and counted in `skipped`: missing, empty, blank or of another
    type than the first, or a conversation that the chat template refuses.
    """

    def __init__(
        self, records: Records, render: Render | None = None, decode: Decode | None = None
    ) -> None:
        """`render` makes the texts of conversations, `decode` those of token ids.

        Raises UserError if there is no text at all, or conversations but no `render`, or token ids
        but no `decode`.
        """
        self._records, self._render, self._decode = records, render, decode
        self._limit: int | None = None
        self._refusal = ""
        self.source: str = records.source
        self.skipped: int = 0
        self.chat: bool = False
        self._ids = False
        self._opening = self._open()
        if not self._opening:
            reason = self._refusal or f"no text in field {records.fields.text!r}"
            hint = f"{self.skipped} records were skipped: {reason}"
            raise UserError(
                f"dataset {self.source!r} is empty",
                hint=hint if self.skipped else "it has no text to read",
            )

    @classmethod
    def from_local(
        cls,
        path: str | Path,
        text_field: str = "text",
        label_field: str | None = None,
        split: str = "train",
        render: Render | None = None,
        decode: Decode | None = None,
    ) -> "TextStream":
        """Texts of a txt, md, jsonl, json, csv, tsv or parquet file, of a folder of them ordered by
        name, or of a folder that `save_to_disk` wrote (to which `split` applies)."""
        from mi_crow.datasets.huggingface import saved_records

        path, fields = expanded(path), Fields(text_field, label_field)
        if is_saved(path):
            return cls(saved_records(path, split, fields), render, decode)
        return cls(LocalRecords(path, fields), render, decode)

    @classmethod
    def from_huggingface(
        cls,
        name: str,
        split: str = "train",
        text_field: str = "text",
        label_field: str | None = None,
        streaming: bool = False,
        offline: bool = False,
        render: Render | None = None,
        decode: Decode | None = None,
    ) -> "TextStream":
        """Texts of a data set on the Hugging Face hub, or of its copy in the cache.

        `name` is `org/name`, or `org/name:config`; `split` may have a slice (`train[:1000]`).
        `streaming` copies nothing to the disk. Raises NotFoundError, UserError.
        """
        from mi_crow.datasets.huggingface import hub_records

        fields = Fields(text_field, label_field)
        return cls(hub_records(name, split, fields, streaming, offline), render, decode)

    @classmethod
    def from_dataset(
        cls,
        dataset: "datasets.Dataset | datasets.IterableDataset | Iterable[Mapping[str, Any]]",
        text_field: str = "text",
        label_field: str | None = None,
        source: str = "dataset",
        render: Render | None = None,
    ) -> "TextStream":
        """Texts of a loaded data set, which is not copied; other records are read into memory."""
        from mi_crow.datasets.huggingface import loaded_records

        return cls(loaded_records(dataset, Fields(text_field, label_field), source), render)

    @property
    def size(self) -> int | None:
        """How many documents there are at most; None if that is not known."""
        if self._limit is None:
            return self._records.size
        if isinstance(self._records, LocalRecords):  # its own size takes a pass over all of it
            return self._first_rows[1]
        return min(self._limit, self._records.size or self._limit)

    def rows(self, start: int = 0) -> Iterator[Row]:
        """Text and label of document `start` and those after it; reads those before it too."""
        rows = islice(self._kept(self._records.rows()), self._limit)
        return islice(rows, start, None)

    def head(self, n: int) -> "TextStream":
        """The first `n` documents; what comes after them is not read."""
        COUNT.check(n, "limit")
        first = copy(self)
        first.__dict__.pop("_first_rows", None)
        first.skipped = 0
        first._limit = n if self._limit is None else min(n, self._limit)
        return first

    def random_sample(self, n: int, seed: int = 0) -> Texts:
        """`n` documents (all, if there are fewer) in random order, which depends only on their
        positions and the seed. A source without random access takes one pass, with the sample in
        memory."""
        COUNT.check(n, "sample")
        if self._limit is None and isinstance(self._records, ArrowRecords):
            return self._arrow_sample(self._records, n, seed)
        if self._limit is None:
            rows = least_rows(self._records.rows(), n, seed, self._row)
        else:
            rows = least_rows(self.rows(), n, seed, lambda row: row)
        return TextDataset.from_rows(rows, self.source, self.chat, self.skipped)

    def fingerprint(self) -> str:
        """SHA-256 that changes with the content: of the documents of local files with a limit, else
        of what identifies the source (contents of files, commit of a data set on the hub) and its
        first rows. The same on every machine."""
        if self._limit is not None and isinstance(self._records, LocalRecords):
            return self._first_rows[0]
        fields = self._records.fields
        identity = {
            "records": dict(self._records.identity),
            "fields": [fields.text, fields.label],
            "limit": self._limit,
            "first": rows_digest(self._opening[: self._limit])[0],
        }
        return sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()

    @cached_property
    def _first_rows(self) -> tuple[str, int]:
        return rows_digest(self.rows())

    def _open(self) -> list[Row]:
        """The first documents. The first record that is not blank decides whether all are read as
        texts, conversations or token ids."""
        raws = self._records.rows()
        for blank, raw in enumerate(raws):
            if not _is_blank(raw[0]):
                self.chat = is_conversation(raw[0])
                self._ids = is_token_ids(raw[0])
                if self.chat and self._render is None:
                    raise self._no_template()
                if self._ids:
                    if self._decode is None:
                        raise self._no_tokenizer()
                    # They contain their special tokens, as a chat template's texts do.
                    self.chat = True
                return list(islice(self._kept(chain([raw], raws), blank), _OPENING))
            self.skipped = blank + 1
        return []

    def _kept(self, raws: Iterator[RawRow], skipped: int = 0) -> Iterator[Row]:
        """The records that have a text. Several passes count a skipped record once."""
        for raw in raws:
            row = self._row(raw)
            if row is None:
                skipped += 1
                self.skipped = max(self.skipped, skipped)
            else:
                yield row

    def _row(self, raw: RawRow) -> Row | None:
        """Text and label of a record; None without a text."""
        value, label = raw
        if self._ids:
            value = self._text_of(value) if is_token_ids(value) else None
        elif self.chat:
            messages = as_messages(value)
            if messages is None or self._render is None:
                return None
            try:
                value = self._render(messages)
            except ValueError as error:
                self._refusal = str(error)
                return None
        if not isinstance(value, str) or not value.strip():
            return None
        return clean_text(value), label_text(label)

    def _text_of(self, ids: Sequence[int]) -> TokenText:
        """Raises UserError for ids that the model's tokenizer does not have."""
        assert self._decode is not None
        try:
            return TokenText.of(self._decode(ids), ids)
        except ValueError as error:
            raise UserError(
                f"dataset {self.source!r} contains token ids of another tokenizer ({error})",
                hint="use the model that it was tokenized for, or a data set of texts",
            ) from error

    def _no_tokenizer(self) -> UserError:
        return UserError(
            f"dataset {self.source!r} contains token ids, which only a model's tokenizer can read",
            hint="use it for a capture, or read a data set of texts",
        )

    def _no_template(self) -> UserError:
        return UserError(
            f"dataset {self.source!r} contains conversations in {self._records.fields.text!r}, and "
            "there is no chat template to turn them into texts",
            hint="use a model with a chat template, or name another field with --text-field",
        )

    def _arrow_sample(self, records: ArrowRecords, n: int, seed: int) -> "TextStream":
        """A sample by row numbers: rows without a text are replaced by the next ones."""
        total = records.size or 0
        candidates, kept = n, []
        while len(kept) < n:
            numbers = least_positions(total, candidates, seed).tolist()
            picked = records.picked(numbers, {"sample": n, "seed": seed})
            kept = [
                number
                for number, raw in zip(numbers, picked.rows(), strict=True)
                if self._row(raw) is not None
            ][:n]
            if candidates >= total:
                break
            candidates *= 2
        chosen = records.picked(kept, {"sample": n, "seed": seed})
        return TextStream(chosen, self._render, self._decode)


class HuggingFaceDataset(TextDataset):
    """The texts of a loaded `datasets.Dataset`, or of any records."""

    def __init__(
        self,
        dataset: "datasets.Dataset | datasets.IterableDataset | Iterable[Mapping[str, Any]]",
        text_field: str = "text",
        label_field: str | None = None,
        source: str = "dataset",
        render: Render | None = None,
    ) -> None:
        texts = TextStream.from_dataset(dataset, text_field, label_field, source, render)
        rows = list(texts.rows())
        labels = [label for _, label in rows]
        super().__init__([text for text, _ in rows], labels, source, texts.chat, texts.skipped)


def _is_blank(value: Any) -> bool:
    return value is None or value in ([], {}) or (isinstance(value, str) and not value.strip())
