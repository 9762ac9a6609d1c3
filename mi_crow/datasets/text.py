"""A set of texts with optional labels, in a fixed order."""

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

from mi_crow.datasets.files import Row, fields_of, read_path
from mi_crow.errors import NotFoundError, UserError


class TextDataset:
    """Texts, and a label for each where the source has one. Empty texts are not allowed."""

    def __init__(
        self,
        texts: Sequence[str],
        labels: Sequence[str | None] | None = None,
        source: str = "list",
    ) -> None:
        self.texts = [_encodable(text) for text in texts]
        self.labels: list[str | None] = list(labels) if labels else [None] * len(self.texts)
        self.source = source
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
    ) -> "TextDataset":
        """Texts of a dataset on the Hugging Face hub (or in its cache).

        Raises NotFoundError when it cannot be had, UserError for a split or field it lacks.
        """
        import datasets

        try:
            loaded = datasets.load_dataset(name, split=split, streaming=limit is not None)
        except ValueError as error:
            raise UserError(f"dataset {name!r} cannot be read ({_first_line(error)})") from error
        except Exception as error:
            raise NotFoundError(
                f"dataset {name!r} is neither a local path nor to be had from the hub "
                f"({_first_line(error)})",
                hint="check the name and the network, or give a file",
            ) from error
        rows = fields_of(iter(loaded), text_field, label_field, name)
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


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _encodable(text: Any) -> Any:
    """`text` with lone surrogates, which no tokenizer or file takes, as replacement characters."""
    if not isinstance(text, str) or text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
