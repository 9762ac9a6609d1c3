"""Finding features by text: names, labels, promoted tokens, example texts; ranked, torch-free."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from mi_crow.mechanistic.features.columns import FeatureColumns
    from mi_crow.mechanistic.features.connection import IndexConnection

# The kind of match decides first, what is added below it (under 100) second.
_NUMBER, _NAME, _LABEL, _TOKEN, _TEXT = 500.0, 400.0, 300.0, 200.0, 100.0
_TOKEN_RANKS = 10  # promoted tokens that are looked at
_LEAST_PREFIX = 3  # letters from which the beginning of a token is enough


def match_scores(connection: "IndexConnection", columns: "FeatureColumns", text: str) -> np.ndarray:
    """How well each feature matches: [n_features], 0 for not at all.

    All words must be there, upper and lower case being the same. A feature's own number comes
    first, then names, notes and tags, then the label it follows best, then the tokens it promotes,
    then the texts of its strongest examples (the more of them, the better).
    """
    scores = np.zeros(len(columns))
    # Bytes of a terminal that are no Unicode cannot be bound to a query.
    words = text.encode("utf-8", "replace").decode().lower().split()
    if not words:
        return scores
    _raise(scores, *_text_matches(connection, words))
    _raise(scores, *_token_matches(connection, words))
    for number, label in enumerate(columns.labels):
        if all(word in label.lower() for word in words):
            hits = np.flatnonzero(columns.label == number)
            _raise(scores, hits, _LABEL + 50 * columns.auroc[hits])
    _raise(scores, *_name_matches(connection, words))
    number = words[0].removeprefix("#")
    if len(words) == 1 and number.isascii() and number.isdigit() and int(number) < len(columns):
        scores[int(number)] = _NUMBER
    return scores


def _raise(scores: np.ndarray, features: np.ndarray, values: np.ndarray) -> None:
    np.maximum.at(scores, features, values)


def _all_contain(expression: str, words: list[str]) -> str:
    return " AND ".join([f"contains({expression}, ?)"] * len(words))


def _name_matches(connection: "IndexConnection", words: list[str]) -> tuple[np.ndarray, np.ndarray]:
    found = connection.columns(
        "SELECT feature, max(confidence) AS confidence FROM memory.main.concepts "
        f"WHERE {_all_contain('haystack', words)} GROUP BY feature",
        words,
    )
    return found["feature"], _NAME + 50 * found["confidence"]


def _token_matches(
    connection: "IndexConnection", words: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    text = " ".join(words)
    found = connection.columns(
        """
        SELECT feature, min(rank) AS rank FROM idx.logits
        WHERE sign = 1 AND rank < ? AND token_id IN (
            SELECT token_id FROM idx.tokens
            WHERE lower(trim(token)) = ? OR (? AND starts_with(lower(trim(token)), ?)))
        GROUP BY feature
        """,
        [_TOKEN_RANKS, text, len(text) >= _LEAST_PREFIX, text],
    )
    return found["feature"], _TOKEN + _TOKEN_RANKS - found["rank"].astype(np.float64)


def _text_matches(connection: "IndexConnection", words: list[str]) -> tuple[np.ndarray, np.ndarray]:
    found = connection.columns(
        f"""
        SELECT feature, count(*) AS hits FROM idx.examples
        WHERE band = 0 AND document IN (
            SELECT document FROM idx.documents WHERE {_all_contain("lower(text)", words)})
        GROUP BY feature
        """,
        words,
    )
    return found["feature"], _TEXT + np.minimum(found["hits"], 99).astype(np.float64)
