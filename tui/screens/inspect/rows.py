"""The features of a text as rows of a list: share of the maximum, density, name; pure."""

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from tui.screens.features.content import name_cell
from tui.text import number
from tui.widgets.lists.feature_columns import density
from tui.widgets.lists.layers import brief_layer, layer_column, layer_of
from tui.widgets.lists.row_list import Cell, Column, Row

if TYPE_CHECKING:
    from mi_crow.mechanistic.features.records import FeatureRow

COLUMNS = (
    Column("feature", 7, "right"),
    Column("value", 5, "right"),
    Column("share", 5, "right", from_width=28),
    Column("density", 7, "right", from_width=44),
    layer_column(5, 24),
    Column("name"),
)


def feature_rows(
    found: Sequence[tuple[int, float]],
    known: "Mapping[int, FeatureRow]",
    pinned: Collection[int] = (),
    layers: Mapping[int, str] | None = None,
) -> list[Row]:
    """Features with their greatest activations on the text, in the order in which they come;
    `layers` are those that the model's session named, of an SAE over several."""
    layers = layers or {}
    return [
        Row(
            str(feature),
            _cells(feature, act, known.get(feature), feature in pinned, layers.get(feature, "")),
        )
        for feature, act in found
    ]


def _cells(
    feature: int, act: float, row: "FeatureRow | None", pinned: bool, layer: str
) -> tuple[Cell, ...]:
    share = f"{100 * act / row.max_act:.0f}%" if row is not None and row.max_act else ""
    often = density(row.density) if row is not None else ""
    return (
        Cell(f"{'●' if pinned else ''}#{feature}", "$foreground"),
        Cell(number(act, 2), "$muted"),
        Cell(share, "$muted"),
        Cell(often, "$muted"),
        Cell(brief_layer(layer_of(row) or layer), "$muted"),
        name_cell(row),
    )
