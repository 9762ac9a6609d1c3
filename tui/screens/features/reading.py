"""What the threads of the Features screen read from the index."""

from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mi_crow.mechanistic.features.meaning.unknown_values import why_none, why_unordered
from mi_crow.mechanistic.features.query_language import parse_query
from tui.screens.features.query import SHOWN, TableQuery
from tui.widgets.lists.layers import with_layers

if TYPE_CHECKING:
    from mi_crow.mechanistic.features.queries import FeatureStore
    from mi_crow.mechanistic.features.records import Example, FeatureDetail, FeatureRow

EXAMPLES = 20


@dataclass(frozen=True)
class IdsRead:
    """The sorted ids for one query, and how many features there are in all."""

    store: "FeatureStore"  # the index that was read: another may be open by now
    query: TableQuery
    ids: Sequence[int]
    total: int
    why_none: str = ""  # what there is not, where a query finds nothing for that
    hidden: int = 0  # that match, where none of those that are shown does
    why_unordered: str = ""  # what no feature has that it was to be ordered by


@dataclass(frozen=True)
class DetailRead:
    """One feature with the examples of one band. `rows` are those of its neighbours."""

    store: "FeatureStore"  # the index that was read: another may be open by now
    feature: int
    band: int
    bands: int = 0  # how many there are below the top
    detail: "FeatureDetail | None" = None
    examples: "Sequence[Example]" = ()
    rows: "Mapping[int, FeatureRow]" = field(default_factory=dict)
    error: Exception | None = None

    @property
    def request(self) -> "tuple[FeatureStore, int, int]":
        """What was asked for: the index, the feature and the band."""
        return self.store, self.feature, self.band


def read_ids(store: "FeatureStore", query: TableQuery) -> IdsRead:
    """The ids of a query; blocks on the index. Raises MiCrowError where it cannot be read."""
    from mi_crow.mechanistic.features.records import FeatureFilter

    flt = FeatureFilter(**SHOWN[query.show])
    parsed = parse_query(query.search)
    ids = store.find(parsed, query.sort, query.descending, flt)
    # A list of 131,072 numbers would take 5 MB, while the one before is still shown.
    packed = array("i", ids.astype("int32").tobytes())
    _ = store.connection.layers.several  # read here: the columns of the table go by it
    why, hidden = "", 0
    if not len(ids):
        why = why_none(store, parsed)
        hidden = len(store.find(parsed)) if query.show != "all" and not why else 0
    unordered = why_unordered(store, query.sort)
    return IdsRead(store, query, packed, store.meta().n_features, why, hidden, unordered)


def vocabulary(store: "FeatureStore | None") -> dict[str, list[str]]:
    """What the values of conditions can be: layers, labels; names, tags and sources of concepts."""
    if store is None:
        return {}
    from mi_crow.mechanistic.features.layers.condition import layer_words

    concepts = [one for some in store.concepts().values() for one in some]
    return {
        "layer": layer_words(store.connection.layers.names),
        "label": list(store.meta().labels),
        "concept": sorted({one.name for one in concepts}, key=str.casefold),
        "tag": sorted({tag for one in concepts for tag in one.tags}),
        "source": sorted({one.source for one in concepts}),
    }


def known_words(
    store: "FeatureStore | None", label: str | None = None
) -> Callable[[str], Sequence[str]]:
    """What completes a line that names a feature: the names and tags that there are, and the label
    that it predicts."""
    from mi_crow.mechanistic.concepts.naming_line import complete_naming

    def complete(text: str) -> Sequence[str]:
        named = store.named() if store is not None else None
        names = named.known_names if named is not None else ()
        tags = named.known_tags if named is not None else ()
        return complete_naming(text, (label, *names) if label else names, tags)

    return complete


def known_tags(store: "FeatureStore | None") -> Callable[[str], Sequence[str]]:
    """What completes a list of tags: those that there are."""
    from mi_crow.mechanistic.concepts.naming_line import complete_tags

    def complete(text: str) -> Sequence[str]:
        return complete_tags(text, store.named().known_tags if store is not None else ())

    return complete


def proposed_by(store: "FeatureStore", features: Sequence[int]) -> dict[int, tuple[str, float]]:
    """The proposed names of those without a name, with their scores; blocks on the index."""
    from mi_crow.mechanistic.features.records import proposed_names

    return proposed_names(store.rows(features, ["score"]))


def read_detail(store: "FeatureStore", feature: int, band: int) -> DetailRead:
    """Everything about one feature; blocks on the index."""
    try:
        detail = store.detail(feature)
        examples = store.examples(feature, band=band, limit=EXAMPLES)
        others = [other.feature for other in (*detail.neighbours, *detail.coactivations)]
        unique = list(dict.fromkeys(others))
        more = with_layers(store)
        rows = {row.feature: row for row in store.rows(unique, more)} if unique else {}
        return DetailRead(store, feature, band, store.meta().bands, detail, examples, rows)
    except Exception as error:  # shown in the pane, where it says why nothing else is there
        return DetailRead(store, feature, band, error=error)
