"""The indexed documents as words: for each token the word it belongs to and those beside it.

A word is a run of tokens of letters, or of digits, up to the next space; a mark is a word of its
own. All numbers count as one word, and so do line breaks, and tokens of spaces. Words are compared
without case.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mi_crow.errors import CorruptDataError
from mi_crow.mechanistic.features.connection import IndexConnection

MOST_TOKENS = 1 << 27  # held in memory, 20 bytes each; documents beyond them are left out
NO_WORD = 0  # no token there, or a special one
NUMBER, LINE_BREAK, SPACE = 1, 2, 3
KINDS_OF_WORDS = {NUMBER: "a number", LINE_BREAK: "a line break", SPACE: "blank space"}
_TOKENS_AT_ONCE = 4_000_000  # that one query returns
_TEXTS_AT_ONCE = 10_000
_SPECIAL = re.compile(r"<[^<>\s]+>|\[[A-Z]+\]|<\|.*\|>", re.DOTALL)
_SPACES = " \t\r\n▁Ġ"
_NOTHING, _DIGITS, _LINE, _BLANK, _LETTERS, _MARK = range(6)  # what a token is made of
_ALIKE = {_NOTHING: NO_WORD, _DIGITS: NUMBER, _LINE: LINE_BREAK, _BLANK: SPACE}
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Corpus:
    """The documents of an index. Arrays are indexed by token, documents one after the other."""

    tokens: np.ndarray  # int32 [N]: token ids
    starts: np.ndarray  # int64 [documents + 1]: where each begins
    words: np.ndarray  # int32 [N]: the word of each token
    before: np.ndarray  # int32 [N]: the word before it in its document, or NO_WORD
    after: np.ndarray  # int32 [N]
    texts: list[str]  # of each word; empty for NO_WORD
    labels: np.ndarray  # int32 [documents]: index in `label_names`, or -1
    label_names: Sequence[str]
    seed: int

    @cached_property
    def document(self) -> np.ndarray:
        """The document of each token: int32 [N]."""
        lengths = np.diff(self.starts)
        return np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)

    @cached_property
    def unseen(self) -> np.ndarray:
        """The documents kept from naming, on which names are scored; every other one, drawn by the
        seed: bool [documents]."""
        return np.random.default_rng(self.seed).random(len(self.labels)) < 0.5

    @cached_property
    def is_name(self) -> np.ndarray:
        """Words that a reader understands in a name: letters, two or more, or numbers."""
        readable = [len(text) > 1 and text.isalpha() for text in self.texts]
        readable[NUMBER] = True
        return np.array(readable, dtype=bool)


def read_corpus(connection: IndexConnection, seed: int) -> Corpus:
    """Reads the documents of an index. Raises CorruptDataError."""
    found = connection.columns(
        "SELECT document, len(token_ids) AS length, coalesce(label, '') AS label "
        "FROM idx.stored_documents"
    )
    lengths = found["length"].astype(np.int64)
    if not np.array_equal(found["document"], np.arange(len(lengths))):
        raise CorruptDataError(
            f"the documents of the feature index of {connection.sae_id!r} are not in their order",
            hint=f"mi-crow index --sae {connection.sae_id} builds it again; concepts stay",
        )
    ends = np.cumsum(lengths)
    kept = int(np.searchsorted(ends, MOST_TOKENS, side="right"))
    starts = np.concatenate([[0], ends[:kept]]).astype(np.int64)
    names, labels = np.unique(found["label"][:kept].astype(str), return_inverse=True)
    tokens = _read_tokens(connection, starts)
    runs, texts = _words(tokens, starts, token_texts(connection, tokens, starts))
    words, before, after = _neighbours(runs, starts)
    nameless = names == ""  # at most one
    return Corpus(
        tokens,
        starts,
        words,
        before,
        after,
        texts,
        np.where(nameless[labels], -1, labels).astype(np.int32) if len(names) else labels,
        names.tolist(),
        seed,
    )


def _read_tokens(connection: IndexConnection, starts: np.ndarray) -> np.ndarray:
    parts: list[np.ndarray] = [np.empty(0, dtype=np.int32)]
    first, n = 0, len(starts) - 1
    while first < n:
        last = int(np.searchsorted(starts, starts[first] + _TOKENS_AT_ONCE, side="right")) - 1
        last = min(max(last, first + 1), n)
        found = connection.columns(
            "SELECT unnest(token_ids) AS token FROM idx.stored_documents "
            "WHERE document >= ? AND document < ?",
            [first, last],
        )["token"]
        if len(found) != starts[last] - starts[first]:
            raise CorruptDataError(
                f"documents of the feature index of {connection.sae_id!r} lack tokens"
            )
        parts.append(found.astype(np.int32))
        first = last
    return np.concatenate(parts)


def token_texts(connection: IndexConnection, tokens: np.ndarray, starts: np.ndarray) -> list[str]:
    """The text of every token id up to the greatest that is known; empty for those that are not.

    The index names the tokens that features promote or suppress; for a vocabulary of a real model
    these are not all, and the others have the text that they have where they are met first.
    """
    found = connection.columns("SELECT token_id, token FROM idx.tokens")
    size = int(max(found["token_id"].max(initial=0), tokens.max(initial=0))) + 1
    texts = [""] * size
    for token, text in zip(found["token_id"].tolist(), found["token"].tolist(), strict=True):
        texts[token] = text
    first = np.full(size, -1, dtype=np.int64)
    first[tokens[::-1]] = np.arange(len(tokens) - 1, -1, -1)
    first[found["token_id"]] = -1
    missing = np.flatnonzero(first >= 0)
    for some in np.array_split(missing, -(-len(missing) // _TEXTS_AT_ONCE)) if len(missing) else ():
        document = np.searchsorted(starts, first[some], side="right") - 1
        place = first[some] - starts[document]
        met = connection.columns(
            "SELECT token, substring(coalesce(seen, text), coalesce(token_ends[place], 0) + 1, "
            "token_ends[place + 1] - coalesce(token_ends[place], 0)) AS piece "
            "FROM (SELECT unnest(?::INTEGER[]) AS token, unnest(?::INTEGER[]) AS document, "
            "unnest(?::INTEGER[]) AS place) JOIN idx.stored_documents USING (document)",
            [some.tolist(), document.tolist(), place.tolist()],
        )
        for token, text in zip(met["token"].tolist(), met["piece"].tolist(), strict=True):
            texts[token] = text or ""
    return texts


@dataclass(frozen=True)
class _Runs:
    """The words of the corpus, one after the other."""

    first: np.ndarray  # int64 [runs]: its first token
    word: np.ndarray  # int32 [runs]
    of_token: np.ndarray  # int32 [N]: the run of each token


def _words(tokens: np.ndarray, starts: np.ndarray, texts: list[str]) -> tuple[_Runs, list[str]]:
    """The words of the documents, and the text of each kind of word."""
    kind, spaced, form = _forms(texts)
    made_of = kind[tokens]
    begins = spaced[tokens] | (made_of != np.roll(made_of, 1)) | (made_of == _MARK)
    begins[starts[:-1][np.diff(starts) > 0]] = True
    first = np.flatnonzero(begins)
    of_token = (np.cumsum(begins) - 1).astype(np.int32)
    # One number a word: its forms as the digits of a polynomial, from the right, modulo 2^64.
    place = (np.arange(len(tokens)) - first[of_token]).astype(np.uint64)
    digits = (form[tokens].astype(np.uint64) + np.uint64(1)) * _MULTIPLIER ** (place + np.uint64(1))
    sums = np.add.reduceat(digits, first) if len(first) else digits
    for made, word in _ALIKE.items():
        sums = np.where(made_of[first] == made, np.uint64(word), sums)
    _, example, number = np.unique(sums, return_index=True, return_inverse=True)
    lengths = np.diff(np.append(first, len(tokens)))
    known = {"": NO_WORD, **{text: word for word, text in KINDS_OF_WORDS.items()}}
    ids = np.empty(len(example), dtype=np.int32)
    for one, run in enumerate(example.tolist()):
        if (alike := _ALIKE.get(int(made_of[first[run]]))) is not None:
            ids[one] = alike
            continue
        pieces = tokens[first[run] : first[run] + lengths[run]].tolist()
        text = "".join(texts[token] for token in pieces).strip(_SPACES).casefold()
        ids[one] = known.setdefault(text, len(known))
    return _Runs(first, ids[number], of_token), list(known)


def _forms(texts: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each token: what it is made of, whether a space is before it, and a number that it
    shares with those that differ by case and spaces alone."""
    kind = np.zeros(len(texts), dtype=np.int8)
    spaced = np.zeros(len(texts), dtype=bool)
    form = np.zeros(len(texts), dtype=np.int64)
    known: dict[str, int] = {}
    for token, text in enumerate(texts):
        bare = text.strip(_SPACES)
        spaced[token] = text[:1] in _SPACES if text else False
        form[token] = known.setdefault(bare.casefold(), len(known))
        if not bare:
            kind[token] = _LINE if set(text) & set("\r\n") else _BLANK if text else _NOTHING
        elif _SPECIAL.fullmatch(bare):
            kind[token] = _NOTHING
        elif bare.isdigit():
            kind[token] = _DIGITS
        else:
            kind[token] = _LETTERS if any(char.isalpha() for char in bare) else _MARK
    return kind, spaced, form


def _neighbours(runs: _Runs, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each token its word and the words beside that in its document."""
    document = np.searchsorted(starts, runs.first, side="right")
    same = document[1:] == document[:-1]
    before = np.zeros(len(runs.word), dtype=np.int32)
    after = np.zeros(len(runs.word), dtype=np.int32)
    before[1:] = np.where(same, runs.word[:-1], NO_WORD)
    after[:-1] = np.where(same, runs.word[1:], NO_WORD)
    return runs.word[runs.of_token], before[runs.of_token], after[runs.of_token]
