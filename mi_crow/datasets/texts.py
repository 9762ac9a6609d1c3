"""What a capture reads: documents in a fixed order, in memory or not."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import sha256
from typing import Any, Protocol

import numpy as np

Row = tuple[str, str | None]  # text, label
# One text from messages with `role` and `content`; ValueError for those it refuses.
Render = Callable[[list[dict[str, Any]]], str]
# The text of token ids; ValueError for ids that its tokenizer does not have.
Decode = Callable[[Sequence[int]], str]


class TokenText(str):
    """A text that came as token ids, which go to the model as they are."""

    ids: np.ndarray  # [n] int32, special tokens included

    @classmethod
    def of(cls, text: str, ids: Sequence[int]) -> "TokenText":
        made = cls(text)
        made.ids = np.asarray(ids, np.int32)
        return made


class Texts(Protocol):
    """Documents, each a text that is not empty and perhaps a label, in a fixed order."""

    @property
    def source(self) -> str:
        """Its name in errors and manifests."""
        ...

    @property
    def size(self) -> int | None:
        """How many documents there are at most; None if only reading them all would tell."""
        ...

    @property
    def chat(self) -> bool:
        """True if a chat template made the texts or they came as token ids: they already contain
        their special tokens."""
        ...

    @property
    def skipped(self) -> int:
        """How many records without a text were skipped so far."""
        ...

    def rows(self, start: int = 0) -> Iterator[Row]:
        """Text and label of document `start` and those after it."""
        ...

    def fingerprint(self) -> str:
        """SHA-256 that changes with the texts, the labels and their order."""
        ...


def rows_digest(rows: Iterable[Row]) -> tuple[str, int]:
    """SHA-256 over texts and labels in order, and how many rows there were."""
    digest, count = sha256(), 0
    for text, label in rows:
        for piece in (text, label or ""):
            data = piece.encode("utf-8", "surrogatepass")
            digest.update(len(data).to_bytes(8, "big") + data)
        count += 1
    return digest.hexdigest(), count
