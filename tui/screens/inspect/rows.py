"""The features of a text as rows of a list: share of the maximum, density, name; pure."""

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from tui.screens.features.content import name_cell
from tui.text import number
from tui.widgets.lists.feature_columns import density
from tui.widgets.lists.row_list import Cell, Column, Row

if TYPE_CHECKING:
    from mi_crow.mechanistic.features.records import FeatureRow

COLUMNS = (
    Column("feature", 7, "right"),
    Column("value", 5, "right"),
    Column("share", 5, "right", from_width=28),
    Column("density", 7, "right", from_width=44),
    Column("name"),
)


def feature_rows(
    found: Sequence[tuple[int, float]],
    known: "Mapping[int, FeatureRow]",
    pinned: Collection[int] = (),
) -> list[Row]:
    """Features with their greatest activations on the text, in the order in which they come."""
    return [
        Row(str(feature), _cells(feature, act, known.get(feature), feature in pinned))
        for feature, act in found
    ]


def _cells(feature: int, act: float, row: "FeatureRow | None", pinned: bool) -> tuple[Cell, ...]:
    share = f"{100 * act / row.max_act:.0f}%" if row is not None and row.max_act else ""
    often = density(row.density) if row is not None else ""
    return (
        Cell(f"{'●' if pinned else ''}#{feature}", "$foreground"),
        Cell(number(act, 2), "$muted"),
        Cell(share, "$muted"),
        Cell(often, "$muted"),
        name_cell(row),
    )
