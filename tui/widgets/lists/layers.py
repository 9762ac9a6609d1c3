"""The layer that a feature is of, as lists say it beside the feature; pure."""

from functools import lru_cache
from typing import TYPE_CHECKING

from mi_crow.mechanistic.features.catalogue import LAYER
from tui.text import printable
from tui.widgets.lists.row_list import Column

if TYPE_CHECKING:
    from mi_crow.mechanistic.features.queries import FeatureStore
    from mi_crow.mechanistic.features.records import FeatureRow


def layer_column(width: int, from_width: int = 0) -> Column:
    """For lists of features: shown where `RowList.bring` says that the SAE is over several."""
    return Column(LAYER, width, "right", from_width, "the layer that its feature is of", True)


def with_layers(store: "FeatureStore") -> tuple[str, ...]:
    """What `FeatureStore.rows` reads of features besides: their layers, of an SAE over several."""
    return (LAYER,) if store.connection.layers.several else ()


def layer_of(row: "FeatureRow | None") -> str:
    """The layer that was read of a feature; empty for an SAE of one."""
    return str(row.more.get(LAYER) or "") if row is not None else ""


@lru_cache(256)
def brief_layer(name: str) -> str:
    """In five cells where the name allows it: the number of its block, of two models the model."""
    from mi_crow.mechanistic.features.layers.condition import block_of

    block, (model, _, _) = block_of(name), name.rpartition(":")
    return printable(model or (name if block is None else str(block)))


def layer_words(name: str) -> str:
    """Where no title says what it is: `layer 3`, of two models `tuned 3`."""
    from mi_crow.mechanistic.features.layers.condition import block_of

    block, (model, _, _) = block_of(name), name.rpartition(":")
    if block is None:
        return printable(name)
    return f"{printable(model) or 'layer'} {block}"
