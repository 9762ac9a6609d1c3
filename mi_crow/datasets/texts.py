"""What a capture reads: documents in a fixed order, held in memory or not."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import sha256
from typing import Any, Protocol

import numpy as np

Row = tuple[str, str | None]  # text, label
# Makes one text of messages with `role` and `content`; ValueError for those it refuses.
Render = Callable[[list[dict[str, Any]]], str]


# The text of token ids; ValueError for ids that its tokenizer does not have.
Decode = Callable[[Sequence[int]], str]


class TokenText(str):
    """A text that came as token ids, which go through the model as they are."""

    ids: np.ndarray  # [n] int32, special tokens included

    @classmethod
    def of(cls, text: str, ids: Sequence[int]) -> "TokenText":
        made = cls(text)
        made.ids = np.asarray(ids, np.int32)
        return made


class Texts(Protocol):
    """Documents, each a text that is not empty and perhaps a label, in an order that stays."""

    @property
    def source(self) -> str:
        """What errors and manifests call it."""
        ...

    @property
    def size(self) -> int | None:
        """How many documents there are at most; None where only reading them all would tell."""
        ...

    @property
    def chat(self) -> bool:
        """True when a chat template made the texts, or when they came as token ids: their special
        tokens are in them already."""
        ...

    @property
    def skipped(self) -> int:
        """Records without a text that were passed over, as far as has been read."""
        ...

    def rows(self, start: int = 0) -> Iterator[Row]:
        """Text and label of document `start` and those after it."""
        ...

    def fingerprint(self) -> str:
        """SHA-256 that is another one when texts, labels or their order are."""
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
