"""Reading one feature: its facts, its relations and its examples. Torch-free."""

from collections.abc import Sequence
from typing import Any

from mi_crow.mechanistic.features.connection import IndexConnection
from mi_crow.mechanistic.features.records import (
    Coactivation,
    Example,
    FeatureDetail,
    FeatureRow,
    IndexMeta,
    LabelScore,
    Neighbour,
)

_DOCUMENTS_AT_ONCE = 256


def read_detail(
    connection: IndexConnection, meta: IndexMeta, row: FeatureRow, concepts: Sequence[Any]
) -> FeatureDetail:
    """Everything about the feature of `row` but its examples."""
    read, feature = connection.rows, row.feature
    [facts] = read(
        "SELECT std_act, decoder_norm, encoder_decoder_cosine, skew, kurtosis, map_x, map_y, "
        "histogram FROM idx.features WHERE feature = ?",
        [feature],
    )
    tokens = read(
        "SELECT sign, token, value FROM idx.logits JOIN idx.tokens USING (token_id) "
        "WHERE feature = ? ORDER BY sign, rank",
        [feature],
    )
    neighbours = read(
        "SELECT other, cosine FROM idx.neighbours WHERE feature = ? ORDER BY rank", [feature]
    )
    coactivations = read(
        "SELECT other, jaccard, count FROM idx.coactivations WHERE feature = ? ORDER BY rank",
        [feature],
    )
    labels = read(
        "SELECT label, auroc, auroc_heldout, mean_act, lift FROM idx.feature_labels "
        "WHERE feature = ? ORDER BY auroc DESC NULLS LAST, label",
        [feature],
    )
    *numbers, map_x, map_y, histogram = facts
    return FeatureDetail(
        row,
        *numbers,
        map=(map_x, map_y),
        histogram=tuple(histogram or ()),
        edges=meta.edges,
        promoted=tuple((token, value) for sign, token, value in tokens if sign > 0),
        suppressed=tuple((token, value) for sign, token, value in tokens if sign < 0),
        neighbours=tuple(Neighbour(*one) for one in neighbours),
        coactivations=tuple(Coactivation(*one) for one in coactivations),
        labels=tuple(LabelScore(*one) for one in labels),
        concepts=tuple(concepts),
    )


def read_examples(
    connection: IndexConnection, feature: int, band: int | None, limit: int
) -> dict[int, list[Example]]:
    """The first `limit` examples of one band, or of each (None), by band in order of rank."""
    only = "" if band is None else "AND band = ?"
    rows = connection.rows(
        "SELECT band, rank, document, position, activation, window_start, acts FROM idx.examples "
        f"WHERE feature = ? {only} AND rank < ?",
        [feature, *(() if band is None else (band,)), limit],
    )
    rows.sort(key=lambda row: row[:2])  # DuckDB takes as long for it as for the reading
    documents = _documents(connection, sorted({row[2] for row in rows}))
    found: dict[int, list[Example]] = {}
    for number, _, document, position, activation, start, acts in rows:
        tokens, text, label = documents[document]
        window = tokens[start : start + len(acts)]
        example = Example(document, position, activation, start, window, acts, text, label)
        found.setdefault(number, []).append(example)
    return found


def _documents(connection: IndexConnection, ids: list[int]) -> dict[int, tuple[Any, ...]]:
    """Tokens, text and label of some documents."""
    found = {}
    # A list of values is looked up; a join would read every document.
    for first in range(0, len(ids), _DOCUMENTS_AT_ONCE):
        some = ids[first : first + _DOCUMENTS_AT_ONCE]
        marks = ", ".join("?" * len(some))
        for document, *rest in connection.rows(
            "SELECT document, token_texts, text, label FROM idx.documents "
            f"WHERE document IN ({marks})",
            some,
        ):
            found[document] = tuple(rest)
    return found
