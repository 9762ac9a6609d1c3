"""Reading single features: facts, relations, labels and examples. Torch-free."""

from array import array
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np

from mi_crow.mechanistic.features.beside.latent_scaling import of_two_models
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


class TokenTexts:
    """The texts of tokens that features promote or suppress. Kept in memory: joining them to the
    forty of a feature would read them all each time."""

    def __init__(self, connection: IndexConnection) -> None:
        found = connection.columns("SELECT token_id, token FROM idx.tokens")
        ids = found["token_id"]
        order = np.argsort(ids, kind="stable")
        # NumPy looks a single number up ten times as slowly as Python does in an array.
        self._ids = array("i", ids[order].astype(np.int32).tobytes())
        texts = found["token"][order].tolist()
        # One text: each of 50,000 would take 60 bytes beside its letters.
        self._text = "".join(texts)
        self._ends = array("q", accumulate(map(len, texts), initial=0))

    def __getitem__(self, token_id: int) -> str:
        place = bisect_right(self._ids, token_id) - 1
        if place < 0 or self._ids[place] != token_id:
            raise KeyError(token_id)
        return self._text[self._ends[place] : self._ends[place + 1]]


def read_detail(
    connection: IndexConnection,
    meta: IndexMeta,
    row: FeatureRow,
    concepts: Sequence[Any],
    texts: TokenTexts,
) -> FeatureDetail:
    """Everything about the feature of `row` except its examples."""
    read, feature = connection.rows, row.feature
    [facts, *_] = read(
        "SELECT std_act, decoder_norm, encoder_decoder_cosine, skew, kurtosis, map_x, map_y, "
        "histogram FROM idx.features WHERE feature = ?",
        [feature],
    )
    # DuckDB takes longer to sort ten rows than Python.
    tokens = read("SELECT rank, sign, token_id, value FROM idx.logits WHERE feature = ?", [feature])
    neighbours = read("SELECT rank, other, cosine FROM idx.neighbours WHERE feature = ?", [feature])
    coactivations = read(
        "SELECT rank, other, jaccard, count FROM idx.coactivations WHERE feature = ?", [feature]
    )
    labels = read(
        "SELECT label, auroc, auroc_heldout, mean_act, lift FROM idx.feature_labels "
        "WHERE feature = ?",
        [feature],
    )
    # A transcoder has no encoder-decoder cosine: it reads one space and writes another.
    always = [facts[:2]]
    for some in (tokens, neighbours, coactivations, always, [one[:1] for one in labels]):
        _check_complete(some)
    tokens.sort()
    *numbers, map_x, map_y, histogram = facts
    return FeatureDetail(
        row,
        *numbers,
        map=(map_x, map_y),
        histogram=tuple(histogram or ()),
        edges=meta.edges,
        layer=connection.layers.of(feature),
        several=connection.layers.several,
        written=connection.layers.norms(feature),
        why_no_layer=connection.layers.why_unknown,
        models=of_two_models(connection, row.feature),
        promoted=tuple((texts[token], value) for _, sign, token, value in tokens if sign > 0),
        suppressed=tuple((texts[token], value) for _, sign, token, value in tokens if sign < 0),
        neighbours=tuple(Neighbour(*one) for _, *one in sorted(neighbours)),
        coactivations=tuple(Coactivation(*one) for _, *one in sorted(coactivations)),
        cofiring=meta.cofiring,
        labels=_best_first([LabelScore(*one) for one in labels]),
        concepts=tuple(concepts),
        proposal=connection.proposals.of(feature),
        explanation=connection.proposals.explanations.get(feature),
        built_at=meta.built_at,
    )


def _check_complete(rows: Sequence[Sequence[Any]]) -> None:
    """Raises ValueError where a value that every index has is missing."""
    if any(None in row for row in rows):
        raise ValueError("a value is missing")


def _best_first(labels: Sequence[LabelScore]) -> tuple[LabelScore, ...]:
    """The label chosen on training documents, then the others by their held-out AUROC; those
    without one last, ties by name."""

    def sort_key(auroc: float | None) -> float:
        return -1.0 if auroc is None else auroc

    by_choice = sorted(labels, key=lambda one: (-sort_key(one.auroc_train), one.label))
    others = sorted(by_choice[1:], key=lambda one: (-sort_key(one.auroc), one.label))
    return (*by_choice[:1], *others)


def read_label_scores(
    connection: IndexConnection, features: Sequence[int], labels: Sequence[str]
) -> dict[int, LabelScore]:
    """The score of each feature for the label at the same position of `labels`."""
    rows = connection.rows(
        "SELECT feature, label, auroc, auroc_heldout, mean_act, lift FROM idx.feature_labels "
        "JOIN (SELECT unnest(?::INTEGER[]) AS feature, unnest(?::VARCHAR[]) AS label) "
        "USING (feature, label)",
        [features, labels],
    )
    return {feature: LabelScore(*score) for feature, *score in rows}


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
    _check_complete(rows)
    _check_complete([row[-1] for row in rows])
    rows.sort(key=lambda row: row[:2])  # in DuckDB it takes as long as the reading
    documents = _documents(connection, sorted({row[2] for row in rows}))
    found: dict[int, list[Example]] = {}
    for number, _, document, position, activation, start, acts in rows:
        one = documents[document]
        tokens = one.tokens(start, start + len(acts))
        example = Example(
            document,
            position,
            activation,
            start,
            tokens,
            acts,
            one.text,
            one.label,
            one.seen,
            one.begin(start),
        )
        found.setdefault(number, []).append(example)
    return found


class _Document(NamedTuple):
    text: str
    label: str | None
    seen: str | None  # by the model; None: `text`
    token_ends: list[int]  # characters of it up to the end of each token

    def tokens(self, first: int, last: int) -> list[str]:
        """The texts of some of its tokens."""
        seen = self.text if self.seen is None else self.seen
        ends = self.token_ends[first:last]
        begins = [self.begin(first), *ends]
        return [seen[begin:end] for begin, end in zip(begins, ends, strict=False)]

    def begin(self, token: int) -> int:
        """The characters before a token."""
        return self.token_ends[token - 1] if token else 0


def _documents(connection: IndexConnection, ids: list[int]) -> dict[int, _Document]:
    found = {}
    # A list of values is looked up; a join would read every document.
    for first in range(0, len(ids), _DOCUMENTS_AT_ONCE):
        some = ids[first : first + _DOCUMENTS_AT_ONCE]
        marks = ", ".join("?" * len(some))
        for document, *rest in connection.rows(
            "SELECT document, text, label, seen, token_ends FROM idx.stored_documents "
            f"WHERE document IN ({marks})",
            some,
        ):
            found[document] = _Document(*rest)
    return found
