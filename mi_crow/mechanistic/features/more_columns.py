"""The columns of the table of features that are read when somebody first shows, sorts by or asks
about them. Torch-free."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mi_crow.mechanistic.features.beside.latent_scaling import origins_beside, scaling_beside
from mi_crow.mechanistic.features.beside.output_scores import scores_beside
from mi_crow.mechanistic.features.catalogue import (
    BY_LABEL,
    DENSE,
    LAYER,
    OF_CONCEPTS,
    OF_PROPOSALS,
    OF_TWO_MODELS,
    ORIGIN,
    column_named,
)
from mi_crow.mechanistic.features.records import ASKED_FOR

if TYPE_CHECKING:
    from mi_crow.mechanistic.features.columns import ConceptColumns, FeatureColumns
    from mi_crow.mechanistic.features.connection import IndexConnection
    from mi_crow.mechanistic.features.one_feature import TokenTexts
    from mi_crow.mechanistic.features.records import Concept

# Numbers of the table `features`, and those of other tables: name -> query.
STORED = ("std_act", "decoder_norm", "encoder_decoder_cosine", "skew", "kurtosis", "map_x", "map_y")
_OTHERS = {
    "nearest_cosine": "SELECT feature, cosine::DOUBLE AS value FROM idx.neighbours WHERE rank = 0",
    "coactive_jaccard": (
        "SELECT feature, jaccard::DOUBLE AS value FROM idx.coactivations WHERE rank = 0"
    ),
}
SCORE = "name_score"  # of the proposed name
OUTPUT = "output"  # in a file of its own, which may come later than the index
VALUE = "value"  # of naming it
MORE_NUMBERS = (*STORED, *_OTHERS, SCORE, *ASKED_FOR, VALUE, OUTPUT, *OF_TWO_MODELS)
SIGNS = {"promoted": 1, "suppressed": -1}
SHOWN_TOKENS = 5  # of each feature in one cell


def read_numbers(connection: "IndexConnection", key: str, n_features: int) -> np.ndarray:
    """One of MORE_NUMBERS as float64 [n_features], with NaN for missing values."""
    if key == SCORE:
        return connection.proposals.scores(n_features)
    if key in ASKED_FOR:
        return connection.proposals.explained(key, n_features)
    if key == VALUE:
        return _naming_value(connection, n_features)
    if key == OUTPUT:
        return scores_beside(connection, n_features)
    if key in OF_TWO_MODELS:
        return scaling_beside(connection, key, n_features)
    query = _OTHERS.get(
        key, f"SELECT feature, coalesce({key}::DOUBLE, 'nan'::DOUBLE) AS value FROM idx.features"
    )
    found = connection.columns(query)
    values = np.full(n_features, np.nan)
    values[found["feature"]] = found["value"]
    return np.where(np.isfinite(values), values, np.nan)


def _naming_value(connection: "IndexConnection", n_features: int) -> np.ndarray:
    """Firings times how unknown the feature is: 1 without a score of the proposed name, which is
    detection for a chat model's, 0 where that is perfect. Dense and dead features have none: no
    name explains them."""
    found = connection.columns("SELECT feature, fires, density FROM idx.features")
    names = connection.proposals
    scores = names.scores(n_features)
    scores = np.where(np.isnan(scores), names.explained("detection", n_features), scores)
    scores = scores[found["feature"]]
    known = np.clip(2 * np.nan_to_num(scores, nan=0.5) - 1, 0, 1)
    nameable = (found["fires"] > 0) & (found["density"] <= DENSE)
    values = np.full(n_features, np.nan)
    values[found["feature"]] = np.where(nameable, found["fires"] * (1 - known), np.nan)
    return values


def read_tokens(connection: "IndexConnection", key: str, n_features: int) -> np.ndarray:
    """The tokens that each feature promotes or suppresses most: int32 [n_features, SHOWN_TOKENS],
    -1 where there are fewer."""
    found = connection.columns(
        "SELECT feature, rank::TINYINT AS rank, token_id FROM idx.logits "
        f"WHERE sign = {SIGNS[key]} AND rank < {SHOWN_TOKENS}"
    )
    tokens = np.full((n_features, SHOWN_TOKENS), -1, dtype=np.int32)
    tokens[found["feature"], found["rank"]] = found["token_id"]
    return tokens


def of_concepts(key: str, concepts: "Sequence[Concept]") -> Any:
    """What the names of one feature, the most confident first, say in a column of OF_CONCEPTS."""
    if key == "confidence":
        return concepts[0].confidence if concepts else None
    if key == "names":
        return tuple(one.name for one in concepts)
    if key == "tags":
        return tuple(dict.fromkeys(tag for one in concepts for tag in one.tags))
    found = (one.note if key == "note" else one.source for one in concepts)
    return "; ".join(dict.fromkeys(text for text in found if text))


def more_values(
    names: Sequence[str],
    ids: np.ndarray,
    columns: "FeatureColumns",
    concepts: "ConceptColumns",
    connection: "IndexConnection",
    texts: "TokenTexts",
) -> list[Mapping[str, Any]]:
    """For each feature of `ids` what the columns `names` say, by their names: a number or None, a
    text, or texts. Raises UserError for a column that the index does not have."""
    found: dict[str, list[Any]] = {}
    for name in names:
        key = column_named(name, columns.labels).key
        if key in OF_CONCEPTS:
            found[name] = [of_concepts(key, concepts.concepts.get(f, ())) for f in ids.tolist()]
        elif key in OF_PROPOSALS:
            column = "name" if key == "proposed" else key
            found[name] = connection.proposals.texts(column, ids.tolist())
        elif key == LAYER:
            found[name] = connection.layers.texts(ids.tolist())
        elif key == ORIGIN:
            origins = origins_beside(connection, len(columns))
            found[name] = [origins[feature] for feature in ids.tolist()]
        elif key in SIGNS:
            rows = columns.tokens(key, connection)[ids].tolist()
            found[name] = [tuple(texts[token] for token in row if token >= 0) for row in rows]
        elif key in MORE_NUMBERS or key.startswith(BY_LABEL):
            values = columns.numbers(key, connection)[ids].tolist()
            found[name] = [None if value != value else value for value in values]
    if not found:  # the row itself says them
        return [{}] * len(ids)
    return [dict(zip(found, row, strict=True)) for row in zip(*found.values(), strict=True)]
