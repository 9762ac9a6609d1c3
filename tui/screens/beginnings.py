"""What is in the place of a feature while none is chosen: what can be done, and the features
that tell most; pure."""

from collections.abc import Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING

from textual.content import Content

from mi_crow.mechanistic.features.records import FeatureFilter, FeatureRow, auroc_text
from tui.actions import scope_actions
from tui.preferences.key_words import key
from tui.text import printable
from tui.widgets.facts import section
from tui.widgets.lists.layers import layer_of, layer_words, with_layers
from tui.widgets.lists.row_list import fitted

if TYPE_CHECKING:
    from mi_crow.mechanistic.features.queries import FeatureStore

_GAP = 4  # cells between columns as wide as what is in them
_KEYS_WIDTH = 48  # cells of an action and its key
_FEATURE_WIDTH = 32  # cells of a feature and its name
MOST_FEATURES = 400
# What brings a feature of the list to a screen.
_TAKES = {
    "steer": lambda: f"{key('steer.new')} puts one on the stack, by its number or its name",
    "inspect": lambda: f"{key('inspect.run')} shows which of them fire on a text",
    "concepts": lambda: f"{key('app.features', 'features.tag')} names the one under the cursor",
}


def telling_features(store: "FeatureStore") -> list[FeatureRow]:
    """Features to begin with: those that have a name, then those that tell a label from the others
    best on held-out texts. Blocks on the disk."""
    named = sorted(one for one in store.concepts() if one < store.meta().n_features)
    best = store.ids("top_auroc", flt=FeatureFilter(alive=True))[:MOST_FEATURES]
    known = set(named)
    chosen = [*named, *(int(one) for one in best if int(one) not in known)][:MOST_FEATURES]
    return [row for row in store.rows(chosen, with_layers(store)) if row.meaning]


def said_of(row: FeatureRow) -> str:
    """What a feature means, behind the layer that it is of where there are several."""
    layer = layer_words(layer_of(row))
    return " · ".join(part for part in (layer, row.meaning) if part)


def beginnings(screen: str, rows: Sequence[FeatureRow], width: int, height: int) -> Content:
    """The actions of a screen with their keys, and below them as many features as there is room
    for."""
    actions = [action for action in scope_actions(screen) if action.keys]
    pairs = [
        Content.assemble((f"{key(action.id):<7}", "bold $primary"), action.help)
        for action in actions
    ]
    keys = whole_in_columns(pairs, width)
    if keys.plain.count("\n") >= height // 3:  # else the features would have no room
        keys = in_columns(pairs, width, _KEYS_WIDTH)
    parts = [section("What can be done here", keys)]
    left = height - len(parts[0].plain.splitlines()) - 2
    if rows and left > 0:
        columns = max(width // _FEATURE_WIDTH, 1)
        cells = [feature_cell(row) for row in rows[: columns * left]]
        takes = f"  {_TAKES[screen]()}" if screen in _TAKES else ""
        title = Content.assemble(("Features to begin with", "bold $primary"), (takes, "$muted"))
        shown = in_columns(cells, width, _FEATURE_WIDTH)
        parts.append(Content.assemble(title.truncate(width, ellipsis=True), "\n", shown))
    return Content("\n\n").join(parts)


def feature_cell(row: FeatureRow, width: int = _FEATURE_WIDTH) -> Content:
    """A feature in `width` cells: its number, what it means, how well it tells that."""
    style = "$foreground" if row.concept else "italic $muted"
    auroc = f" {auroc_text(row.top_auroc)}" if row.top_auroc is not None else ""
    number = f"#{row.feature} "
    name = fitted(Content(printable(said_of(row))), width - 2 - len(number) - len(auroc))
    return Content.assemble((number, "$faint"), (name.plain, style), (auroc, "$faint"))


def whole_in_columns(cells: Sequence[Content], width: int) -> Content:
    """Cells under one another, in as many columns as fit without one of them being cut."""
    for columns in range(len(cells), 1, -1):
        parts = _parts(cells, columns)
        rooms = [max(cell.cell_length for cell in part) + _GAP for part in parts]
        rooms[-1] -= _GAP
        if sum(rooms) <= width:
            rows = zip_longest(*parts, fillvalue=Content(""))
            lines = [zip(row, rooms, strict=True) for row in rows]
            return Content("\n").join(
                [Content("").join([fitted(cell, room) for cell, room in line]) for line in lines]
            )
    return in_columns(cells, width, width)


def _parts(cells: Sequence[Content], columns: int) -> list[Sequence[Content]]:
    lines = max(-(-len(cells) // columns), 1)
    return [cells[at : at + lines] for at in range(0, len(cells), lines)]


def in_columns(cells: Sequence[Content], width: int, least: int) -> Content:
    """Cells under one another, in as many columns of at least `least` cells as fit."""
    columns = max(width // least, 1)
    room = width // columns
    rows = zip_longest(*_parts(cells, columns), fillvalue=Content(""))
    return Content("\n").join(
        [Content("  ").join([fitted(cell, max(room - 2, 1)) for cell in row]) for row in rows]
    )
