"""The words of a question in plain language, and what else their texts are about. Torch-free."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from mi_crow.mechanistic.features.connection import IndexConnection

_WORD = re.compile(r"\w+(?:['’]\w+)?")
# What a question has beside its subject: "texts about the sea", "features that fire on numbers".
_PLAIN_WORDS = (
    "a about all an and any are as at be by contain containing contains document documents "
    "example examples feature features fire firing fires for from have in into is it its like "
    "mention mentioning of on or people related saying say something such talk text texts than "
    "that the their them they thing things this those to token tokens topic topics was were what "
    "when where which who with word words "
)
_PLAIN = frozenset(_PLAIN_WORDS.split())
_ENDINGS = ("ies", "es", "s", "ing", "ed", "'s", "’s")
_LEAST_STEM = 3  # letters
_SHORT_ENDINGS = ("s", "es", "ed", "ing", "er", "ers", "y")  # of words that are no longer
_DOCUMENTS = 200  # of the question's texts, and as many others, that are counted
_FURTHER = 12  # words taken from them
_FURTHER_WEIGHT = 0.3  # of all of them, beside one word of the question
_LEAST_TEXTS = 3  # in which a further word has to be


def question_words(text: str) -> list[str]:
    """The stems of what a question is about, each once; of one that has plain words only, these."""
    words = words_of(text)
    subject = [word for word in words if word not in _PLAIN] or words
    return list(dict.fromkeys(stem(word) for word in subject))


def stem(word: str) -> str:
    """A word without the ending of a plural or a verb: what its forms begin with."""
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= _LEAST_STEM:
            return word.removesuffix(ending)
    return word


def forms(stemmed: str) -> str:
    """A regular expression (RE2) for the forms of a word, in lower case."""
    ending = "" if len(stemmed) < _LEAST_STEM else r"\pL{0,3}"
    if len(stemmed) == _LEAST_STEM:  # sea: seas, but not seam
        ending = f"(?:{'|'.join(_SHORT_ENDINGS)})?"
    return re.escape(stemmed) + ending


def standing(stemmed: str) -> str:
    """The same for a text with a form of the word in it; RE2 knows ASCII words only as such."""
    return rf"(?:^|[^\pL\pN_]){forms(stemmed)}(?:$|[^\pL\pN_])"


def has(text: str, stemmed: str) -> bool:
    """Whether a form of the word is in a text."""
    form = re.compile(forms(stemmed).replace(r"\pL", r"\w"))
    return any(form.fullmatch(word) for word in words_of(text))


def words_of(text: str) -> list[str]:
    """All words of a text, in lower case."""
    return _WORD.findall(text.casefold())


DOCUMENTS = "SELECT document AS id, lower(text) AS text FROM idx.stored_documents"
CONCEPTS = "SELECT feature AS id, haystack AS text FROM memory.main.concepts"
TOKENS = "SELECT token_id AS id, lower(trim(token)) AS text FROM idx.tokens"


def having(connection: "IndexConnection", source: str, stems: Sequence[str]) -> dict[str, Any]:
    """The ids of a source that have a form of each word in their text; a token has to be one.
    All are read once."""
    if not stems:
        return {}
    part, match, pattern = "contains", "regexp_matches", standing
    if source == TOKENS:
        part, match, pattern = "starts_with", "regexp_full_match", forms
    # The first condition is cheap and leaves few texts for the other.
    here = f"CASE WHEN {part}(text, ?) THEN {match}(text, ?) ELSE false END"
    found = connection.columns(
        f"SELECT id, {', '.join(f'{here} AS word{place}' for place in range(len(stems)))} "
        f"FROM ({source})",
        [value for one in stems for value in (one, pattern(one))],
    )
    return {one: found["id"][found[f"word{place}"]] for place, one in enumerate(stems)}


def further_words(
    connection: "IndexConnection", words: Sequence[str], documents: np.ndarray
) -> dict[str, float]:
    """Words that stand out in the question's documents, with their weights beside one word of it:
    stem -> weight (relevance feedback, Rocchio 1971, with the log-odds z of Monroe et al. 2008)."""
    if not len(documents):
        return {}
    total = connection.rows("SELECT count(*) FROM idx.stored_documents")[0][0]
    others = np.linspace(0, total - 1, min(total, _DOCUMENTS)).astype(np.int64)
    some = documents[
        np.linspace(0, len(documents) - 1, min(len(documents), _DOCUMENTS)).astype(int)
    ]
    here, there = (_counts(connection, numbers) for numbers in (some, others))
    z = {word: _stands_out(word, here, there) for word in here if here[word] >= _LEAST_TEXTS}
    best = sorted((word for word in z if word not in words and z[word] > 2), key=lambda w: -z[w])
    chosen = best[:_FURTHER]
    size = sum(z[word] for word in chosen)
    return {word: _FURTHER_WEIGHT * len(words) * z[word] / size for word in chosen}


def _counts(connection: "IndexConnection", documents: np.ndarray) -> Counter[str]:
    """In how many of the documents each stem occurs."""
    rows = connection.rows(
        "SELECT text FROM idx.stored_documents WHERE list_contains(?::INTEGER[], document)",
        [documents.tolist()],
    )
    counts: Counter[str] = Counter()
    for (text,) in rows:
        words = {word for word in words_of(text) if len(word) > 2}
        counts.update({stem(word) for word in words if word not in _PLAIN and word.isalpha()})
    counts[""] = len(rows)
    return counts


def _stands_out(word: str, here: Mapping[str, int], there: Mapping[str, int]) -> float:
    """z of the log-odds of standing in a text here and there, each with half a text added."""
    if not word:
        return 0.0
    pairs = [(one.get(word, 0) + 0.5, one[""] - one.get(word, 0) + 0.5) for one in (here, there)]
    (a, b), (c, d) = pairs
    return float((np.log(a / b) - np.log(c / d)) / np.sqrt(1 / a + 1 / b + 1 / c + 1 / d))
