"""Token ids to the text of each token, so that the pieces joined are the decoded text.

Decoding tokens one by one breaks byte-level BPE and SentencePiece: a character can span several
tokens, and a leading space belongs to a token only in its context. So growing windows are decoded
and each token gets what it added.
"""

from collections.abc import Sequence
from typing import Any

_REPLACEMENT = "\ufffd"
_CONTEXT = 6  # tokens before a piece that settle its spaces


class Detokenizer:
    """Gives text as tokens arrive, never half a character."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._context = 0  # first id of the window
        self._settled = 0  # ids whose text was given

    def push(self, token_id: int) -> str:
        """The text that this token completes; empty while a character is unfinished."""
        self._ids.append(int(token_id))
        before = self._decode(self._ids[self._context : self._settled])
        after = self._decode(self._ids[self._context :])
        # An unfinished character shows as a replacement sign at the very end. A sign that stays
        # after several more tokens is the text's own (invalid bytes), and is given as it is.
        waiting = len(self._ids) - self._settled
        if after.endswith(_REPLACEMENT) and waiting < 4:
            return ""
        self._context = max(self._context, self._settled - _CONTEXT)
        if not after.startswith(before):
            before = self._decode(self._ids[self._context : self._settled])
            after = self._decode(self._ids[self._context :])
        self._settled = len(self._ids)
        return after[len(before) :]

    def flush(self) -> str:
        """What an unfinished character at the end decodes to."""
        before = self._decode(self._ids[self._context : self._settled])
        after = self._decode(self._ids[self._context :])
        self._settled = len(self._ids)
        return after[len(before) :]

    def _decode(self, ids: list[int]) -> str:
        return self._tokenizer.decode(
            ids, skip_special_tokens=False, clean_up_tokenization_spaces=False
        )


def token_texts(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """The text of each token; a character over several tokens goes to the last of them.

    `"".join(token_texts(tokenizer, ids))` equals `tokenizer.decode(ids)`.
    """
    detokenizer = Detokenizer(tokenizer)
    pieces = [detokenizer.push(token_id) for token_id in ids]
    if pieces:
        pieces[-1] += detokenizer.flush()
    return pieces
