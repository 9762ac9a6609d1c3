"""The layer tree as rows: parents, what is folded, what a row shows; pure."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from tui.text import count, printable
from tui.widgets.lists.row_list import Cell, Column, Row

COLUMNS = (
    Column("layer"),
    Column("kind", 20, from_width=62),
    Column("shape", 14, "right", from_width=84),
    Column("point", 13),
    Column("params", 6, "right"),
)


@dataclass(frozen=True)
class Layer:
    """One module of the model."""

    name: str
    kind: str = ""
    shape: str = ""
    params: int | None = None
    point: str = ""  # short name of the hook point at its output, where there is one


def layer_from_row(row: Mapping[str, Any]) -> Layer:
    """A layer from what the session says about it."""
    shape = row.get("shape")
    if isinstance(shape, list | tuple):
        shape = " × ".join(str(size) for size in shape)
    params = row.get("params")
    return Layer(
        str(row.get("name", "")),
        str(row.get("kind") or ""),
        str(shape or ""),
        int(params) if isinstance(params, int | float) else None,
        str(row.get("point") or ""),
    )


class LayerTree:
    """Layers in the order of the model, with their parents; names are dotted paths."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        self.layers = tuple(layer for layer in layers if layer.name)
        names = {layer.name for layer in self.layers}
        self._parents = {layer.name: _parent(layer.name, names) for layer in self.layers}
        self._with_children = {parent for parent in self._parents.values() if parent}

    def has_children(self, name: str) -> bool:
        return name in self._with_children

    def get(self, name: str | None) -> Layer | None:
        return next((layer for layer in self.layers if layer.name == name), None)

    def blocks(self) -> set[str]:
        """The numbered modules with children, such as model.layers.0: folded at first."""
        return {name for name in self._with_children if name.rpartition(".")[2].isdecimal()}

    def folded_to(self, lines: int, first: str) -> set[str]:
        """The blocks to fold at first: all that the tree does not fit in `lines` with. The one of
        the layer `first` is the first to be unfolded."""
        folded = self.blocks()
        room = lines - len(self.rows(folded, ()))
        here = {first, *self.ancestors(first)} if first in self._parents else set()
        for block in sorted(folded, key=lambda name: name not in here):
            needed = sum(block in self.ancestors(layer.name) for layer in self.layers)
            if needed <= room:
                folded = folded - {block}
                room -= needed
        return folded

    def ancestors(self, name: str) -> list[str]:
        found = []
        while (parent := self._parents.get(name)) is not None:
            found.append(parent)
            name = parent
        return found

    def rows(
        self,
        folded: Collection[str],
        hooked: Collection[str],
        steered: Collection[str] = (),
        words: str = "",
        said: Mapping[str, str] = MappingProxyType({}),
    ) -> list[Row]:
        """What is visible with `folded` closed; `hooked` layers carry a mark, and those that Steer
        changes another; `said` is what else there is to say of some. With `words` all layers that
        have each of them in their name, kind or point, and what is around those."""
        found = self._matching(words)
        rows = []
        for layer in self.layers:
            ancestors = self.ancestors(layer.name)
            if layer.name not in found if words else any(name in folded for name in ancestors):
                continue
            marks = "  ● hook" if layer.name in hooked else ""
            if layer.name in steered:  # both words are too long for 80 columns
                marks = f"{'  ●' if marks else ''}  ◆ steered"
            closed = not words and layer.name in folded
            rows.append(self._row(layer, ancestors, closed, marks, said.get(layer.name, "")))
        return rows

    def _matching(self, words: str) -> set[str]:
        wanted = words.casefold().split()
        found: set[str] = set()
        for layer in self.layers:
            text = f"{layer.name} {layer.kind} {layer.point}".casefold()
            if wanted and all(word in text for word in wanted):
                found |= {layer.name, *self.ancestors(layer.name)}
        return found

    def block_of(self, name: str) -> str:
        """The numbered module that a layer is in, or itself; "" outside of them."""
        blocks = self.blocks()
        return next((one for one in (name, *self.ancestors(name)) if one in blocks), "")

    def _row(self, layer: Layer, ancestors: list[str], folded: bool, marks: str, said: str) -> Row:
        parent = ancestors[0] if ancestors else ""
        label = layer.name[len(parent) + 1 :] if parent else layer.name
        mark = ("▸ " if folded else "▾ ") if self.has_children(layer.name) else "  "
        return Row(
            layer.name,
            (
                Cell(
                    "  " * len(ancestors) + mark,
                    "$faint",
                    (
                        (printable(label), ""),
                        (marks, "$accent"),
                        (f"  {said}" if said else "", "$muted"),
                    ),
                ),
                Cell(printable(layer.kind), "$muted"),
                Cell(printable(layer.shape), "$muted"),
                Cell(printable(layer.point), "$primary"),
                Cell(count(layer.params) if layer.params else "", "$muted"),
            ),
        )


def _parent(name: str, names: Collection[str]) -> str | None:
    """The nearest module around `name` that is in the tree."""
    while name:
        name = name.rpartition(".")[0]
        if name in names:
            return name
    return None
