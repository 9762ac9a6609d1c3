"""A set of texts with optional labels, in memory and in a fixed order."""

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mi_crow.clean_text import clean_text
from mi_crow.datasets.texts import Render, Row, Texts, rows_digest
from mi_crow.errors import UserError

if TYPE_CHECKING:
    import datasets


class TextDataset:
    """Texts, and a label for each where the source has one. Implements `Texts`.

    A list with an empty text in it is refused, since its numbers are the caller's; files and data
    sets leave such records out.
    """

    def __init__(
        self,
        texts: Sequence[str],
        labels: Sequence[str | None] | None = None,
        source: str = "list",
        chat: bool = False,
        skipped: int = 0,
    ) -> None:
        """`chat` says that a chat template made the texts, special tokens included; `skipped` how
        many records of the source had no text.

        Raises UserError for an empty list, an empty text, labels of another number.
        """
        self.texts = [clean_text(text) if isinstance(text, str) else text for text in texts]
        given = labels or [None] * len(self.texts)
        self.labels = [clean_text(label) if isinstance(label, str) else label for label in given]
        self.source = source
        self.chat = chat
        self.skipped = skipped
        if not self.texts:
            raise UserError(f"dataset {source!r} is empty", hint="it has no text to read")
        if len(self.labels) != len(self.texts):
            raise UserError(f"{len(self.texts)} texts came with {len(self.labels)} labels")
        for number, text in enumerate(self.texts):
            if not isinstance(text, str) or not text.strip():
                raise UserError(f"text {number} of dataset {source!r} is empty or no text")

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
        """Texts of a txt, md, jsonl, json, csv, tsv or parquet file, of a folder of them, or of a
        folder that `save_to_disk` wrote (to which `split` applies). See `TextStream.from_local`.
        """
        from mi_crow.datasets.stream import TextStream

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
        """Texts of a dataset on the Hugging Face hub (or in its cache); the first `limit` without
        the rest. See `TextStream.from_huggingface`, which holds none of them in memory.

        `name` is `org/name`, or `org/name:config` where a dataset has several. Raises NotFoundError
        when it cannot be had, UserError for a config, split or field it lacks.
        """
        from mi_crow.datasets.stream import TextStream

        texts = TextStream.from_huggingface(
            name, split, text_field, label_field, limit is not None, offline, render
        )
        return cls.from_texts(texts if limit is None else texts.head(limit))

    def random_sample(self, n: int, seed: int = 0) -> "TextDataset":
        """`n` texts (all, when there are fewer) drawn without replacement, in drawn order."""
        if n < 1:
            raise UserError(f"a sample needs at least 1 text, not {n}")
        chosen = random.Random(seed).sample(range(len(self)), min(n, len(self)))
        return self._pick(chosen)

    def head(self, n: int) -> "TextDataset":
        """The first `n` texts."""
        if n < 1:
            raise UserError(f"a limit must be at least 1, not {n}")
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
        from mi_crow.datasets.stream import TextStream

        texts = TextStream.from_dataset(dataset, text_field, label_field, source, render)
        rows = list(texts.rows())
        super().__init__(
            [text for text, _ in rows],
            [label for _, label in rows],
            source,
            texts.chat,
            texts.skipped,
        )
