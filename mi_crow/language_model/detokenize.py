"""Token ids to the text of each token, so that the pieces joined are the decoded text.

Decoding tokens one by one breaks byte-level BPE and SentencePiece: a character can span several
tokens, and a leading space belongs to a token only in its context.
"""

import codecs
import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any
from weakref import WeakKeyDictionary

_REPLACEMENT = "\ufffd"
_CONTEXT = 6  # tokens before a piece that decide its spaces
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")

_tables: "WeakKeyDictionary[Any, _TokenBytes]" = WeakKeyDictionary()


class Detokenizer:
    """Decodes tokens as they arrive, never half a character.

    `before` are ids of the text that is continued: they decide the first token's space and are not
    decoded again.
    """

    def __init__(self, tokenizer: Any, before: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = list(before[-_CONTEXT:])
        self._context = 0  # first id of the window
        self._decoded = len(self._ids)  # ids whose text was returned

    def push(self, token_id: int) -> str:
        """The text that this token completes; empty while a character is unfinished."""
        self._ids.append(int(token_id))
        text = self._pending()
        # An unfinished character shows as a replacement sign at the very end. A sign that stays
        # after several more tokens is the text's own (invalid bytes), and is returned as it is.
        if text.endswith(_REPLACEMENT) and len(self._ids) - self._decoded < 4:
            return ""
        self._decoded = len(self._ids)
        self._context = max(self._context, self._decoded - _CONTEXT)
        return text

    def flush(self) -> str:
        """What an unfinished character at the end decodes to."""
        text = self._pending()
        self._decoded = len(self._ids)
        return text

    def _pending(self) -> str:
        window = self._ids[self._context :]
        return added_text(self._tokenizer, window[: self._decoded - self._context], window)


def added_text(tokenizer: Any, before: Sequence[int], after: Sequence[int]) -> str:
    """What the text of the ids `after` adds to that of `before`, their beginning."""
    start, whole = decode(tokenizer, before), decode(tokenizer, after)
    if whole.startswith(start):
        return whole[len(start) :]
    # `before` ended inside a character, which is complete now.
    kept = start.rstrip(_REPLACEMENT)
    if whole.startswith(kept):
        return whole[len(kept) :]
    return decode(tokenizer, after[len(before) :])


def decode(tokenizer: Any, ids: Sequence[int]) -> str:
    """The text of `ids`, special tokens included, spaces as they are."""
    return tokenizer.decode(
        list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
    )


def token_texts(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """The text of each token; a character over several tokens goes to the last of them.

    `"".join(token_texts(tokenizer, ids))` equals `tokenizer.decode(ids)`.
    """
    ids = [int(i) for i in ids]
    if not ids:
        return []
    whole = decode(tokenizer, ids)
    if tokenizer not in _tables:
        _tables[tokenizer] = _TokenBytes(tokenizer)
    pieces = _tables[tokenizer].pieces(ids)
    if pieces[0].startswith(" ") and not whole.startswith(" "):
        pieces[0] = pieces[0][1:]  # SentencePiece puts a space before the text and drops it
    return pieces if "".join(pieces) == whole else _split(tokenizer, ids, whole)


def shown_tokens(tokenizer: Any, ids: Sequence[int], *, parts: bool = True) -> list[str]:
    """The text of each token as a person reads it: as `token_texts`, but bytes that are not a whole
    character, as where a window begins inside one, are shown as `<0xE2>`; with `parts` so are
    tokens with only the beginning of a character, which its last token shows."""
    pieces = token_texts(tokenizer, ids)
    if not pieces or not any(_REPLACEMENT in one or (parts and not one) for one in pieces):
        return pieces
    raw = [_tables[tokenizer].bytes_of(int(one)) for one in ids]
    if _collapsed(b"".join(raw).decode("utf-8", "replace")) != _collapsed("".join(pieces)):
        return pieces  # a tokenizer whose bytes are not known
    found = _with_bytes(raw)
    return [
        "".join(f"<0x{byte:02X}>" for byte in own) if parts and own and not text else text
        for own, text in zip(raw, found, strict=True)
    ]


def _with_bytes(raw: Sequence[bytes]) -> list[str]:
    """Each whole character at the token of its last byte, all other bytes as `<0xE2>`."""
    whole = b"".join(raw)
    owners = [token for token, own in enumerate(raw) for _ in own]
    found = [""] * len(raw)
    at = 0
    while at < len(whole):
        lead = whole[at]
        size = 1 if lead < 0x80 else 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
        try:
            text = whole[at : at + size].decode("utf-8")
        except UnicodeDecodeError:
            text, size = f"<0x{lead:02X}>", 1
        found[owners[at + size - 1]] += text
        at += size
    return found


def _collapsed(text: str) -> str:
    """The text without what decoders differ in: the number of replacement signs for a broken
    character, and the space before a text."""
    return re.sub(f"{_REPLACEMENT}+", _REPLACEMENT, text).removeprefix(" ")


def _split(tokenizer: Any, ids: list[int], whole: str) -> list[str]:
    """Splits `whole` where the texts of growing prefixes of `ids` stop agreeing with it.

    Correct for every tokenizer; its time grows with the square of the length.
    """
    ends = [0]
    for count in range(1, len(ids)):
        prefix = decode(tokenizer, ids[:count])
        differs = (
            i for i, pair in enumerate(zip(prefix, whole, strict=False)) if len(set(pair)) > 1
        )
        ends.append(max(ends[-1], next(differs, min(len(prefix), len(whole)))))
    return [whole[start:end] for start, end in pairwise([*ends, len(whole)])]


class _TokenBytes:
    """The bytes of each token, read off its name in the vocabulary.

    Correct for byte-level BPE and for SentencePiece with byte fallback; `token_texts` checks each
    result against the tokenizer's own text.
    """

    def __init__(self, tokenizer: Any) -> None:
        # The tokenizer itself is not kept: it is the weak key of this table.
        backend = getattr(tokenizer, "backend_tokenizer", None)
        self._byte_level = "ByteLevel" in repr(getattr(backend, "decoder", ""))
        self._names = {index: token for token, index in tokenizer.get_vocab().items()}
        self._added = set(tokenizer.added_tokens_decoder)
        self._known: dict[int, bytes] = {}

    def pieces(self, ids: list[int]) -> list[str]:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        known = self._known
        texts = [decoder.decode(known.get(i) or self.bytes_of(i)) for i in ids]
        texts[-1] += decoder.decode(b"", final=True)
        return texts

    def bytes_of(self, token_id: int) -> bytes:
        """The bytes of one token."""
        name = self._names.get(token_id, "")
        match = None if self._byte_level else _BYTE.fullmatch(name)
        if match:
            found = bytes([int(match[1], 16)])
        elif token_id in self._added:
            found = name.encode()
        elif self._byte_level:
            letters = _letter_bytes()
            found = b"".join(bytes([letters[c]]) if c in letters else c.encode() for c in name)
        else:
            found = name.replace("\u2581", " ").encode()
        self._known[token_id] = found
        return found


@lru_cache(maxsize=1)
def _letter_bytes() -> dict[str, int]:
    """Letter to byte: byte-level BPE writes each byte as one printable letter.

    Printable bytes of Latin-1 are their own letters, the rest follow from U+0100 on (Radford et al.
    2019, GPT-2).
    """
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    letters = {chr(byte): byte for byte in plain}
    return letters | {chr(0x100 + n): byte for n, byte in enumerate(others)}
