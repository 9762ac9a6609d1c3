"""Two to four features of one SAE side by side, and what each two of them share. Torch-free."""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mi_crow.causes import sentence_of
from mi_crow.errors import MiCrowError, UserError
from mi_crow.mechanistic.features.records import CofiringTokens, Example, FeatureDetail, FeatureRow
from mi_crow.mechanistic.features.schema import STRONGEST
from mi_crow.mechanistic.features.similar import DecoderRows

if TYPE_CHECKING:
    from mi_crow.mechanistic.features.queries import FeatureStore

LEAST, MOST = 2, 4  # features in one comparison
EXAMPLES = 20  # of each feature and band


class SharedToken(NamedTuple):
    """A token that two features promote, with the effect of each on its logit."""

    token: str
    first: float
    second: float


class Alone(NamedTuple):
    """A text on which one feature fires and another does not, or is none of the strongest.

    `at_most` is 0 where the other does not fire. Else the text has more features than the index
    keeps for a document, and the other, if it fires there, is none of the strongest: its activation
    is at most this.
    """

    example: Example
    at_most: float


@dataclass(frozen=True)
class Side:
    """One of the compared features, with its strongest examples."""

    detail: FeatureDetail
    examples: tuple[Example, ...]

    @property
    def feature(self) -> int:
        return self.detail.row.feature


@dataclass(frozen=True)
class Pair:
    """What two of the compared features share, and the texts that tell them apart."""

    first: int
    second: int
    cosine: float | None  # of the decoder rows; None where these have no direction or are not there
    jaccard: float  # of the two sets of tokens on which they fire
    jaccard_is_bound: bool  # not counted for these two: it is at most `jaccard`
    promoted: tuple[SharedToken, ...]  # the strongest for both first
    # By activation: texts where the other does not fire; only where there are none of these, those
    # where it is none of the strongest features.
    only_first: tuple[Alone, ...]
    only_second: tuple[Alone, ...]


@dataclass(frozen=True)
class Comparison:
    """Features side by side. `pairs` has every two of them, in the order of `sides`."""

    sides: tuple[Side, ...]
    pairs: tuple[Pair, ...]
    cofiring: CofiringTokens  # over which the Jaccard index was counted
    no_cosine: str = ""  # why there are no cosines; empty where there are


def compare_features(store: "FeatureStore", features: Sequence[int], folder: Path) -> Comparison:
    """Compares `features` of the SAE in `folder`. Only their rows of the decoder are read.

    Without readable weights there are no cosines, and `no_cosine` says why. Raises UserError for
    too few, too many or repeated features, NotFoundError for one that is not in the SAE.
    """
    features = _checked(features)
    store = copy(store)  # holds one index from here on, whatever is built meanwhile
    details = [store.detail(feature) for feature in features]
    examples = [store.all_examples(feature, EXAMPLES) for feature in features]
    with store.connection.fitting():
        listed = _listed(
            store, [one for bands in examples for some in bands.values() for one in some]
        )
        full = _others_listed(store)
    directions, no_cosine = _directions(folder, store, features)
    sides = tuple(
        Side(detail, tuple(bands.get(0, ())))
        for detail, bands in zip(details, examples, strict=True)
    )
    firing = [_by_document(bands) for bands in examples]
    pairs = []
    for a, b in combinations(range(len(features)), 2):
        jaccard, is_bound = _jaccard(details[a], details[b], full)
        pairs.append(
            Pair(
                features[a],
                features[b],
                _cosine(directions, a, b),
                jaccard,
                is_bound,
                _promoted_by_both(details[a], details[b]),
                _alone(firing[a], firing[b], details[b].row, listed),
                _alone(firing[b], firing[a], details[a].row, listed),
            )
        )
    return Comparison(sides, tuple(pairs), store.meta().cofiring, no_cosine)


def _checked(features: Sequence[int]) -> list[int]:
    if len(set(features)) < len(features):
        twice = next(one for place, one in enumerate(features) if one in features[:place])
        raise UserError(f"feature {twice} is given twice")
    if not LEAST <= len(features) <= MOST:
        raise UserError(f"{LEAST} to {MOST} features can be compared, not {len(features):,}")
    return list(features)


class _Listed(NamedTuple):
    """The strongest features of one document, as the index keeps them."""

    features: frozenset[int]
    weakest: float

    @property
    def is_complete(self) -> bool:
        return len(self.features) < STRONGEST


def _listed(store: "FeatureStore", examples: Sequence[Example]) -> dict[int, _Listed]:
    """The strongest features of the documents of these examples."""
    documents = sorted({one.document for one in examples})
    if not documents:
        return {}
    found = store.connection.columns(
        "SELECT document, feature, max_act FROM idx.document_features "
        f"WHERE document IN ({', '.join('?' * len(documents))})",
        documents,
    )
    order = np.argsort(found["document"], kind="stable")
    document, feature, act = (found[name][order] for name in ("document", "feature", "max_act"))
    ids, starts = np.unique(document, return_index=True)
    stops = [*starts[1:].tolist(), len(document)]
    return {
        number: _Listed(frozenset(feature[begin:end].tolist()), float(act[begin:end].min()))
        for number, begin, end in zip(ids.tolist(), starts.tolist(), stops, strict=True)
    }


def _others_listed(store: "FeatureStore") -> int:
    """How many co-activating features the index keeps of each feature that has as many."""
    [(last,)] = store.connection.rows("SELECT max(rank) FROM idx.coactivations")
    return 0 if last is None else int(last) + 1


def _directions(
    folder: Path, store: "FeatureStore", features: Sequence[int]
) -> tuple[np.ndarray | None, str]:
    """The decoder rows at length 1 (NaN without a direction), or why there are none."""
    try:
        decoder = DecoderRows.open(folder, store.sae_id)
    except MiCrowError as error:
        return None, sentence_of(error)
    total = store.meta().n_features
    if len(decoder) != total:
        return None, f"the decoder has {len(decoder):,} features, the index {total:,}"
    rows = np.concatenate([decoder.rows(one, one + 1) for one in features]).astype(np.float64)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    usable = np.isfinite(lengths) & (lengths > 0)
    return np.where(usable, rows, np.nan) / np.where(usable, lengths, 1.0), ""


def _cosine(directions: np.ndarray | None, a: int, b: int) -> float | None:
    if directions is None:
        return None
    cosine = float(directions[a] @ directions[b])
    return min(max(cosine, -1.0), 1.0) if np.isfinite(cosine) else None


def _jaccard(a: FeatureDetail, b: FeatureDetail, full: int) -> tuple[float, bool]:
    """The Jaccard index of two features and whether it is only an upper bound.

    Each feature has a list of the features most alike. A pair in neither list is at most as alike
    as the last of a full list; where a list is not full, it holds all features that ever fire with
    its own, and the pair never fires together.
    """
    for one, other in ((a, b), (b, a)):
        for listed in one.coactivations:
            if listed.feature == other.row.feature:
                return listed.jaccard, False
    if any(len(one.coactivations) < full for one in (a, b)) or not full:
        return 0.0, False
    return min(one.coactivations[-1].jaccard for one in (a, b)), True


def _promoted_by_both(a: FeatureDetail, b: FeatureDetail) -> tuple[SharedToken, ...]:
    second = dict(b.promoted)
    found = [
        SharedToken(token, value, second[token]) for token, value in a.promoted if token in second
    ]
    return tuple(sorted(found, key=lambda one: -min(one.first, one.second)))


def _by_document(bands: dict[int, list[Example]]) -> dict[int, Example]:
    """The strongest example of each document."""
    found: dict[int, Example] = {}
    for example in sorted(
        (one for some in bands.values() for one in some), key=lambda one: -one.activation
    ):
        found.setdefault(example.document, example)
    return found


def _alone(
    firing: dict[int, Example],
    others: dict[int, Example],
    other: FeatureRow,
    listed: dict[int, _Listed],
) -> tuple[Alone, ...]:
    """The examples of one feature from documents on which `other` does not fire; without any, from
    those that do not have it among their strongest features."""
    found = []
    for document, example in firing.items():
        one = listed.get(document)
        if one is None or other.feature in one.features or document in others:
            continue
        most = min(one.weakest, other.max_act)  # no text has more than the feature's maximum
        found.append(Alone(example, 0.0 if one.is_complete else most))
    silent = [one for one in found if not one.at_most]
    return tuple(sorted(silent or found, key=lambda one: -one.example.activation))
