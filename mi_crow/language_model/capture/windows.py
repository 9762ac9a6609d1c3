"""Documents to the rows of a run: cut to the context, split into windows, or packed together.

The rows of some documents depend only on these documents and the settings.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mi_crow.datasets.splits import split_of
from mi_crow.errors import UserError
from mi_crow.language_model.capture.token_stream import TokenizedText
from mi_crow.language_model.tokenize import Frame, added_ids, frame_of, special_ids

__all__ = ["Row", "SourceText", "Windowing", "added_ids", "cut_by_tokens"]

_LEAST_PIECE = 8  # tokens of a document that are worth starting at the end of a packed row
_Piece = tuple[int, int, str, str | None, np.ndarray]  # document, window, text, label, ids


@dataclass(frozen=True)
class Row:
    """One sequence for the model: a document, a window of it, or several documents packed."""

    document: int  # number in the dataset; of packed ones the first
    window: int  # 0, 1, .. within the document
    text: str
    label: str | None
    split: str
    documents_started: int  # whose first window is in it
    token_ids: np.ndarray  # [length] int32, special tokens included
    kept: np.ndarray  # [n] int32: positions whose activations are kept


@dataclass(frozen=True)
class SourceText:
    """One document of the dataset."""

    number: int
    text: str
    label: str | None


class Windowing:
    """Turns documents into rows."""

    def __init__(
        self,
        tokenizer: Any,
        context: int,
        *,
        split_long: bool = False,
        pack: bool = False,
        keep_special: bool = False,
        chat: bool = False,
        bos: str = "auto",
        embedding_rows: int | None = None,
    ) -> None:
        """`chat` texts already have their special tokens, so that none are added unless `bos` is
        `yes`; `embedding_rows` is how many token ids the model knows.

        Raises UserError if the context only has room for the special tokens, or `bos` asks for a
        token that the tokenizer does not have.
        """
        self._frame = frame_of(tokenizer, bos)
        if chat:
            before = self._frame.before if bos == "yes" else ()
            self._frame = Frame(before, ())
        self.prefix: tuple[int, ...] = self._frame.before
        self.suffix: tuple[int, ...] = self._frame.after
        # Only tokens that were added to the tokenizer but not to the model can be beyond it.
        beyond = embedding_rows is not None and len(tokenizer) > embedding_rows
        self._rows = embedding_rows if beyond else None
        self._room = context - len(self.prefix) - len(self.suffix)
        if self._room < 1:
            raise UserError(
                f"a context of {context} tokens has room only for the special ones",
                hint=f"use --context-length {context - self._room + 1} or more",
            )
        self._tokenizer = tokenizer
        self._split_long, self._pack = split_long, pack
        self._dropped = np.array([] if keep_special else sorted(special_ids(tokenizer)), np.int64)
        end = tokenizer.eos_token_id
        self._between = [] if end is None else [int(end)]
        self._between_text = "" if end is None else str(tokenizer.eos_token)
        self.truncated: int = 0  # documents that were cut

    @property
    def offsets_above(self) -> int | None:
        """The number of tokens above which a text's windows need its offsets; None: never."""
        if not self._split_long:
            return None
        return 0 if self._pack else self._room

    def kept_tokens(self, tokens: TokenizedText) -> int:
        """How many tokens of a document are kept."""
        ids = tokens.ids if self._split_long else tokens.ids[: self._room]
        inside = len(ids) - int(np.isin(ids, self._dropped).sum())
        if self._dropped.size or self._pack:
            return inside
        starts = range(0, max(len(ids), 1), self._room)
        lacks = [self._frame.missing(ids[start : start + self._room]) for start in starts]
        return inside + sum(len(one.before) + len(one.after) for one in lacks)

    def rows(
        self, documents: Sequence[SourceText], tokens: Sequence[TokenizedText]
    ) -> Iterator[Row]:
        """The rows of some documents, in order.

        A packed row has documents of one split only, so that held-out text stays separate; what is
        left at the end becomes a shorter row.
        """
        pairs = zip(documents, tokens, strict=True)
        if not self._pack:
            for document, found in pairs:
                split = split_of(document.text)
                for piece in self._pieces(document, found, 0):
                    yield self._row([piece], split)
            return
        open_rows: dict[str, list[_Piece]] = {}
        for document, found in pairs:
            split = split_of(document.text)
            row = open_rows.setdefault(split, [])
            for piece in self._pieces(document, found, self._left(row)):
                if self._left(row) < len(piece[4]):
                    yield self._row(row, split)
                    row.clear()
                row.append(piece)
        for split in sorted(open_rows, reverse=True):  # train before heldout
            if open_rows[split]:
                yield self._row(open_rows[split], split)

    def _left(self, row: Sequence[_Piece]) -> int:
        """How many tokens of another document fit into a packed row; may be negative."""
        if not row:
            return self._room
        used = sum(len(piece[4]) for piece in row) + len(row) * len(self._between)
        return self._room - used

    def _pieces(self, document: SourceText, tokens: TokenizedText, first: int) -> Iterator[_Piece]:
        """A document in pieces that fit; the open packed row has room for `first` tokens."""
        ids, number, label = tokens.ids, document.number, document.label
        size = first if self._split_long and first >= _LEAST_PIECE else self._room
        if not self._split_long and len(ids) > self._room:
            self.truncated += 1
            ids = ids[: self._room]
        if len(ids) <= size:
            yield number, 0, document.text, label, ids
            return
        start, window = 0, 0
        while start < len(ids):
            stop = min(start + size, len(ids))
            text = self._text(document.text, tokens, start, stop)
            yield number, window, text, label, ids[start:stop]
            start, window, size = stop, window + 1, self._room

    def _text(self, text: str, tokens: TokenizedText, start: int, stop: int) -> str:
        """The text of the tokens from `start` to `stop`."""
        if start == 0 and stop == len(tokens.ids):
            return text
        if tokens.starts is None or tokens.ends is None:
            return self._tokenizer.decode(tokens.ids[start:stop].tolist())
        begin = int(tokens.starts[start]) if start else 0
        return text[begin : int(tokens.ends[stop - 1])]

    def _row(self, pieces: Sequence[_Piece], split: str) -> Row:
        lacks = self._frame.missing(pieces[0][4])
        ids: list[np.ndarray] = [np.asarray(lacks.before, np.int32)]
        for number, piece in enumerate(pieces):
            if number:
                ids.append(np.asarray(self._between, np.int32))
            ids.append(piece[4])
        lacks = self._frame.missing(pieces[-1][4])
        ids.append(np.asarray(lacks.after, np.int32))
        token_ids = np.concatenate(ids).astype(np.int32)
        if self._rows is not None and int(token_ids.max(initial=0)) >= self._rows:
            raise self._unknown(token_ids, pieces)
        kept = np.flatnonzero(~np.isin(token_ids, self._dropped)).astype(np.int32)
        labels = {piece[3] for piece in pieces}
        document, window = pieces[0][:2]
        text = self._between_text.join(piece[2] for piece in pieces)
        label = labels.pop() if len(labels) == 1 else None
        started = sum(piece[1] == 0 for piece in pieces)
        return Row(document, window, text, label, split, started, token_ids, kept)

    def _unknown(self, ids: np.ndarray, pieces: Sequence[_Piece]) -> UserError:
        """The error for a token that the model has no embedding for."""
        token = int(ids.max())
        numbers = [piece[0] for piece in pieces if token in piece[4]]
        return UserError(
            f"document {numbers[0] if numbers else pieces[0][0]} contains the token "
            f"{self._tokenizer.convert_ids_to_tokens(token)!r} (id {token}), but the model's "
            f"embedding has {self._rows} rows",
            hint="remove it from the texts, or resize the model's embedding and save the model",
        )


def cut_by_tokens(rows: Iterable[Row], most: int) -> Iterator[list[Row]]:
    """Rows in groups of at most `most` kept tokens (a single row may have more); at least one
    group, which may be empty."""
    group: list[Row] = []
    total = 0
    for row in rows:
        if group and total + len(row.kept) > most:
            yield group
            group, total = [], 0
        group.append(row)
        total += len(row.kept)
    yield group
