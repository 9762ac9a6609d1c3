"""The features of a text as rows of a list: share of the maximum, density, name; pure."""

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from textual.content import Content

from tui.screens.features.content import name_cell
from tui.text import number, printable
from tui.widgets.lists.feature_columns import density
from tui.widgets.lists.layers import brief_layer, layer_column, layer_of, layer_words
from tui.widgets.lists.row_list import Cell, Column, Row
from tui.widgets.token_heat import peak_index, quoted

if TYPE_CHECKING:
    from mi_crow.mechanistic.features.records import FeatureRow
    from tui.screens.inspect.inspection import Inspection

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


def feature_title(
    found: "Inspection", feature: int, row: "FeatureRow | None", width: int
) -> Content:
    """The feature whose activations are shown, its layer, name and peak, in `width` cells, of which
    a long name gets what is left; 0: as many as it takes."""
    layer = layer_of(row) or found.layers.get(feature, "")
    words = f"  {layer_words(layer)}" if layer else ""
    head = Content.assemble((f"#{feature}", "bold $primary"), (words, "$muted"))
    acts = found.acts_of(feature)
    peak = peak_index(acts)
    if peak is None:
        tail = Content.styled("   does not fire on this text", "$muted")
    else:
        value = (f" {number(acts[peak], 2)}", "bold $accent")
        tail = Content.assemble(("   peak ", "$muted"), quoted(found.tokens[peak]), value)
    name = Content("")
    if row is not None and row.meaning:
        style = "$accent" if row.concept else "$muted"
        name = Content.styled(f"  {printable(row.meaning)}", style)
    room = width - head.cell_length - tail.cell_length
    if width and name.cell_length > room:
        name = name.truncate(max(room, 0), ellipsis=True)
    return Content.assemble(head, name, tail)


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
