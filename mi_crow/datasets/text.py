"""A set of texts with optional labels, in a fixed order."""

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

from mi_crow.datasets.files import Row, fields_of, read_path
from mi_crow.errors import UserError
from mi_crow.hub import first_line, hub_answers, hub_error, quiet_downloads


class TextDataset:
    """Texts, and a label for each where the source has one. Empty texts are not allowed."""

    def __init__(
        self,
        texts: Sequence[str],
        labels: Sequence[str | None] | None = None,
        source: str = "list",
        chat: bool = False,
        skipped: int = 0,
    ) -> None:
        self.texts = [_encodable(text) for text in texts]
        self.labels: list[str | None] = list(labels) if labels else [None] * len(self.texts)
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
    def from_rows(cls, rows: Sequence[Row], source: str) -> "TextDataset":
        return cls([text for text, _ in rows], [label for _, label in rows], source)

    @classmethod
    def from_local(
        cls, path: str | Path, text_field: str = "text", label_field: str | None = None
    ) -> "TextDataset":
        """Texts of a txt, md, jsonl, json, csv, tsv or parquet file, or of a folder of them."""
        rows = read_path(Path(path).expanduser(), text_field, label_field)
        return cls.from_rows(rows, str(path))

    @classmethod
    def from_huggingface(
        cls,
        name: str,
        split: str = "train",
        text_field: str = "text",
        label_field: str | None = None,
        limit: int | None = None,
        offline: bool = False,
    ) -> "TextDataset":
        """Texts of a dataset on the Hugging Face hub (or in its cache).

        `name` is `org/name`, or `org/name:config` where a dataset has several. Raises NotFoundError
        when it cannot be had, UserError for a config, split or field it lacks.
        """
        with quiet_downloads():
            records = _hub_records(name, split, limit is not None, offline)
            rows = fields_of(records, text_field, label_field, name)
            return cls.from_rows(list(islice(rows, limit)), name)

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
        digest = sha256()
        for text, label in zip(self.texts, self.labels, strict=True):
            for piece in (text, label or ""):
                data = piece.encode("utf-8", "surrogatepass")
                digest.update(len(data).to_bytes(8, "big") + data)
        return digest.hexdigest()

    @property
    def size(self) -> int:
        """How many texts there are."""
        return len(self.texts)

    def rows(self, start: int = 0) -> Iterator[Row]:
        """Text and label of each text from number `start` on."""
        return zip(self.texts[start:], self.labels[start:], strict=True)

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: int) -> str:
        return self.texts[index]

    def __iter__(self) -> Iterator[str]:
        return iter(self.texts)

    def _pick(self, chosen: Sequence[int]) -> "TextDataset":
        return TextDataset(
            [self.texts[i] for i in chosen], [self.labels[i] for i in chosen], self.source
        )


class HuggingFaceDataset(TextDataset):
    """The texts of a loaded `datasets.Dataset`."""

    def __init__(
        self,
        dataset: Iterable[Mapping[str, Any]],
        text_field: str = "text",
        label_field: str | None = None,
        source: str = "dataset",
    ) -> None:
        rows = list(fields_of(dataset, text_field, label_field, source))
        super().__init__([text for text, _ in rows], [label for _, label in rows], source)


def _hub_records(
    name: str, split: str, streaming: bool, offline: bool
) -> Iterator[Mapping[str, Any]]:
    """The records of a dataset on the hub, or in the local cache when the hub does not answer."""
    import datasets

    path, _, config = name.partition(":")
    asked = not offline and hub_answers()
    try:
        with _offline(not asked):
            loaded: Any = datasets.load_dataset(
                path, config or None, split=split, streaming=streaming and asked
            )
            yield from loaded
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"dataset {name!r} cannot be read ({first_line(error)})") from error
    except Exception as error:
        raise hub_error(f"dataset {name!r}", error, asked=asked) from error


@contextmanager
def _offline(wanted: bool) -> Iterator[None]:
    """Inside the block `datasets` looks at its cache alone, without retrying the network."""
    import datasets.config

    before = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = before or wanted
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = before


def _encodable(text: Any) -> Any:
    """`text` with lone surrogates, which no tokenizer or file takes, as replacement characters."""
    if not isinstance(text, str) or text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
