"""The popup over published SAEs: filter them, and import the one under the cursor."""

from collections.abc import Sequence
from functools import partial

from textual import on
from textual.app import ComposeResult

from mi_crow.mechanistic.sae.library.published import (
    CHECKED,
    QUERY_HELP,
    Found,
    PublishedSae,
    search,
)
from tui.actions import bindings
from tui.text import count, printable, size
from tui.widgets.field import Field
from tui.widgets.frame.palette import PaletteField
from tui.widgets.frame.popup import Popup
from tui.widgets.lists.row_list import Cell, Column, ListHeading, Row, RowList
from tui.widgets.trouble import Trouble
from tui.widgets.words import Words

MOST = 400  # rows in the list; the filter finds the others
_COLUMNS = (
    Column("hook point", 18),
    Column("latents", 8, "right"),
    Column("L0", 5, "right"),
    Column("size", 8, "right"),
    Column("here", 5, from_width=64),
    Column("release", from_width=40),
    Column("model", 26, from_width=100),
    Column("source", 70, from_width=160),
)


class LibraryPopup(Popup[PublishedSae]):
    """Dismisses with the SAE to import. `query` is what its filter starts with."""

    HEADING = "Published SAEs"
    BINDINGS = bindings("popup", "close")

    def __init__(self, query: str = "") -> None:
        super().__init__(classes="comparing library")
        self._query = query
        self._saes: dict[str, PublishedSae] = {}

    def compose_box(self) -> ComposeResult:
        yield PaletteField(self._query, QUERY_HELP, id="library-search", compact=True)
        yield Words("", id="library-count", markup=False)
        yield Trouble("library-trouble")
        rows = RowList(_COLUMNS, empty="nothing published is called so", id="library-list")
        yield ListHeading("hook point", rows)
        yield rows
        yield Words("", id="library-chosen", markup=False)

    def on_mount(self) -> None:
        self.query_one(PaletteField).focus()
        self._read()

    @on(Field.Changed)
    def _read(self) -> None:
        query = self.query_one(PaletteField).value
        trouble = self.query_one(Trouble)
        self.in_thread(partial(search, query, MOST), self._show, group="library", trouble=trouble)

    def _show(self, found: Found) -> None:
        self._saes = {sae.source: sae for sae in found.saes}
        rows = self.query_one(RowList)
        rows.set_rows([library_row(sae) for sae in found.saes])
        rows.cursor = 0
        self.query_one(ListHeading).refresh()  # how many there are
        shown = f"{count(len(found.saes))} of " if len(found.saes) < found.total else ""
        self.query_one("#library-count", Words).update(f"{shown}{count(found.total)} SAEs")
        self._tell_chosen()

    @on(RowList.Highlighted)
    def _tell_chosen(self) -> None:
        """Below the list, where names are cut off above."""
        chosen = self._chosen
        said = ""
        if chosen is not None:
            said = "\n".join(filter(None, (about(chosen), beside(chosen, [*self._saes.values()]))))
        self.query_one("#library-chosen", Words).update(printable(said, keep_newlines=True))

    @property
    def _chosen(self) -> PublishedSae | None:
        return self._saes.get(self.query_one(RowList).key or "")

    @on(Field.Submitted)
    @on(RowList.Opened)
    def _choose(self) -> None:
        if (chosen := self._chosen) is not None:
            self.dismiss(chosen)


def library_row(sae: PublishedSae) -> Row:
    place = " → ".join(filter(None, (sae.hook_point, sae.target)))
    return Row(
        sae.source,
        (
            Cell(place or sae.name),
            Cell(count(sae.width) if sae.width is not None else "", "$muted"),
            Cell(f"{sae.l0:.0f}" if sae.l0 is not None else "", "$muted"),
            Cell(size(sae.bytes) if sae.bytes is not None else "", "$muted"),
            Cell("yes" if sae.cached else "", "$accent"),
            Cell(sae.release),
            Cell(sae.model, "$muted"),
            Cell(sae.source, "$faint"),
        ),
    )


def about(sae: PublishedSae) -> str:
    """What is nowhere in its row: who publishes it, and what an import takes."""
    facts = [sae.source, f"for {sae.model}", sae.format]
    if sae.licence:
        facts.append(sae.licence)
    if sae.neuronpedia:
        facts.append("names on Neuronpedia")
    if sae.bytes is not None:
        got = "nothing to download" if sae.cached else f"{size(sae.bytes)} to download"
        facts.append(f"{got} in fp32, {size(sae.bytes * 3 / 2)} of memory")
    return " · ".join(facts)


def beside(sae: PublishedSae, shown: Sequence[PublishedSae]) -> str:
    """The L0 of those at the same place by width, to compare: `16.4k: 22, 82 · 65.5k: 21`."""
    place = (sae.model, sae.hook_point, sae.target, sae.release)
    sizes: dict[int, list[float]] = {}
    for one in shown:
        alike = (one.model, one.hook_point, one.target, one.release) == place
        if alike and one.width is not None and one.l0 is not None:
            sizes.setdefault(one.width, []).append(one.l0)
    if sum(map(len, sizes.values())) < 2:
        return ""
    words = [
        f"{count(width)}: {', '.join(f'{value:.0f}' for value in sorted(values))}"
        for width, values in sorted(sizes.items())
    ]
    return f"L0 by latents at {sae.hook_point}: {' · '.join(words)}"


def import_values(sae: PublishedSae) -> dict[str, str]:
    """What the form of an import starts with; the fit is measured."""
    texts = {"path": sae.source, "model.model": sae.model, "check": "yes"}
    texts["check.tokens"] = str(CHECKED)
    if sae.neuronpedia:
        texts["names"] = "yes"
    if sae.scale is not None:
        texts["input_scale"] = f"{sae.scale:.10g}"
    if sae.centred:
        texts["centred"] = "yes"
    return texts
