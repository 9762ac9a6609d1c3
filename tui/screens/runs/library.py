"""The popup over published SAEs: filter them, and import the one under the cursor."""

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from textual import on
from textual.app import ComposeResult

from mi_crow.hub import is_offline
from mi_crow.mechanistic.sae.library.published import (
    CHECKED,
    QUERY_HELP,
    Found,
    PublishedSae,
    search,
)
from mi_crow.store.free_space import available_memory, nearest_existing
from tui.actions import bindings
from tui.preferences.key_words import key
from tui.text import count, printable, size
from tui.widgets.field import Field
from tui.widgets.frame.palette import PaletteField
from tui.widgets.frame.popup import Popup
from tui.widgets.lists.row_list import Cell, Column, ListHeading, RowList, value_of
from tui.widgets.lists.sorted_list import SortedList
from tui.widgets.trouble import Trouble
from tui.widgets.words import Words

MOST = 400  # rows in the list; the filter finds the others
_COLUMNS = (
    Column("hook point", 24),
    Column("latents", 7, "right"),
    Column("L0", 5, "right"),
    Column("download", 8, "right"),
    Column("release"),
    Column("model", 26, from_width=100),
    Column("source", 70, from_width=160),
)
_ORDERS = {
    "hook point": "layer",
    "latents": "width",
    "L0": "l0",
    "download": "size",
    "release": "release",
    "model": "model",
    "source": "source",
}


@dataclass(frozen=True)
class Room:
    """Bytes that are free for a download and for an import; None: not known."""

    disk: int | None = None
    memory: int | None = None


class LibraryPopup(Popup[PublishedSae]):
    """Dismisses with the SAE to import. `query` is what its filter starts with."""

    HEADING = "Published SAEs"
    BINDINGS = bindings("popup", "close")

    def __init__(self, query: str = "") -> None:
        super().__init__(classes="comparing library")
        self._query = query or _first_query()
        self._found = Found([], 0, 0)
        self._room = Room()

    def compose_box(self) -> ComposeResult:
        yield PaletteField(self._query, QUERY_HELP, id="library-search", compact=True)
        yield Words("", id="library-count", markup=False)
        yield Trouble("library-trouble")
        rows = SortedList(_COLUMNS, empty=_nothing(self._query), id="library-list")
        yield ListHeading("hook point", rows)
        yield rows
        yield Words("", id="library-chosen", markup=False)

    def on_mount(self) -> None:
        self.query_one(PaletteField).focus()
        self.hold_frame()  # the list is read in less time than it takes to draw it empty
        self.watch(self.query_one(SortedList), "order", self._ordered, init=False)
        self._read()

    @on(Field.Changed)
    def _read(self) -> None:
        self._ask(self.query_one(PaletteField).value, first=True)

    def _ordered(self) -> None:
        """Of those that are not all in the list, others may come first now."""
        if len(self._found.saes) < self._found.total:
            self._ask(self.query_one(PaletteField).value, first=False)

    def _ask(self, query: str, *, first: bool) -> None:
        order = self.query_one(SortedList).order
        if order.column:
            query += f" sort:{'-' if order.descending else ''}{_ORDERS[order.column]}"
        work = partial(_look, query)
        then = partial(self._show, first=first)
        trouble = self.query_one(Trouble)  # says it alone: half a condition is no mistake yet
        self.in_thread(work, then, group="library", failed=lambda _: None, trouble=trouble)

    def _show(self, answer: tuple[Found, Room], *, first: bool) -> None:
        self._found, self._room = answer
        found = self._found
        rows = self.query_one(SortedList)
        rows.say_empty(_nothing(self.query_one(PaletteField).value))
        one_model = len({sae.model for sae in found.saes}) == 1
        chosen = rows.key
        rows.set_rows([LibraryRow(sae, one_model) for sae in found.saes])
        if first or rows.key != chosen:  # in another order it may not be among them
            rows.cursor = 0
        self.query_one(ListHeading).refresh()  # how many there are
        self.query_one("#library-count", Words).update(self._counted())
        self._tell_chosen()
        self.lay_out()
        self.call_later(self.let_frame_go_soon)

    def _counted(self) -> str:
        found = self._found
        cut = len(found.saes) < found.total
        shown = f"{count(len(found.saes))} of " if cut else ""
        keys = f"tab to the list, {key('sorting.order')} orders it" if len(found.saes) > 1 else ""
        more = "type for the others" if cut else ""
        cached = "cached:yes" in self.query_one(PaletteField).value
        offline = "offline: what the hub's cache holds" if cached and is_offline() else ""
        number = f"{shown}{count(found.total)} SAE{'' if found.total == 1 else 's'}"
        return " · ".join(filter(None, (number, offline, more, keys)))

    @on(RowList.Highlighted)
    def _tell_chosen(self) -> None:
        """Below the list, where names are cut off above."""
        chosen = self._chosen
        said = ""
        if chosen is not None:
            lines = (*about(chosen, self._room), beside(chosen, self._found.saes))
            said = "\n".join(filter(None, lines))
        self.query_one("#library-chosen", Words).update(printable(said, keep_newlines=True))

    @property
    def _chosen(self) -> PublishedSae | None:
        source = self.query_one(SortedList).key
        return next((sae for sae in self._found.saes if sae.source == source), None)

    @on(Field.Submitted)
    @on(RowList.Opened)
    def _choose(self) -> None:
        if (chosen := self._chosen) is not None:
            self.dismiss(chosen)


def _look(query: str) -> tuple[Found, Room]:
    """Blocks for some milliseconds."""
    from huggingface_hub import constants

    try:
        cache = nearest_existing(Path(constants.HF_HUB_CACHE))
        disk: int | None = shutil.disk_usage(cache).free
    except OSError:
        disk = None
    return search(query, MOST), Room(disk, available_memory())


def first_look() -> None:
    """Reads what the list begins with, which is then kept."""
    _look(_first_query())


def _first_query() -> str:
    return "cached:yes " if is_offline() else ""


def _nothing(query: str) -> str:
    if "cached:yes" in query:
        return "the hub's cache on this machine holds no such SAE"
    return "nothing published is called so; try fewer words"


@dataclass(frozen=True)
class LibraryRow:
    """A row of the list, whose cells are made when they are seen. `one_model`: all rows are of its
    model, which then nobody needs to read."""

    sae: PublishedSae
    one_model: bool = False

    @property
    def key(self) -> str:
        return self.sae.source

    def value(self, place: int) -> float | str | None:
        return value_of(self.cells[place])

    @property
    def cells(self) -> tuple[Cell, ...]:
        sae = self.sae
        size_of = f"~{size(sae.bytes)}" if sae.bytes is not None else ""
        release = short_release(sae) if self.one_model else sae.release
        return (
            Cell(sae.place or sae.name, value=_first_layer(sae)),
            Cell(count(sae.width) if sae.width is not None else "", "$muted", value=sae.width),
            Cell(f"{sae.l0:.0f}" if sae.l0 is not None else "", "$muted", value=sae.l0),
            Cell("here", "$accent", value=sae.bytes)
            if sae.cached
            else Cell(size_of, "$muted", value=sae.bytes),
            Cell(
                f"{sae.variant} · " if sae.variant else "",
                "$primary",
                ((release, ""),),
                value=sae.release.lower(),
            ),
            Cell(sae.model, "$muted"),
            Cell(sae.source, "$faint"),
        )


def _first_layer(sae: PublishedSae) -> int | None:
    return sae.layers[0] if sae.layers else sae.layer


def short_release(sae: PublishedSae) -> str:
    """Its release without what other columns say, so that what differs is seen."""
    model = re.escape(sae.model.rpartition("/")[2])
    left = re.sub(rf"(?:^|(?<=[_-])){model}(?=[_-]|$)|width-2pow\d+", "", sae.release, flags=re.I)
    return re.sub(r"([_-])[_-]+", r"\1", left).strip("_-") or sae.release


def about(sae: PublishedSae, room: Room) -> tuple[str, ...]:
    """What its row has no place for: what it is and who publishes it, and what an import takes."""
    facts = [f"for {sae.model}" if sae.model else "", sae.release, sae.format, sae.licence]
    facts.append("names on Neuronpedia" if sae.neuronpedia else "")
    return (
        sae.source,
        " · ".join(filter(None, facts)),
        _cost(sae, room),
    )


def _cost(sae: PublishedSae, room: Room) -> str:
    opens = "enter fills in its import"
    if sae.bytes is None or sae.memory is None:
        got = (
            "nothing to download" if sae.cached else "its size is not known before the hub is asked"
        )
        return f"{got}; {opens}"
    got = "nothing to download" if sae.cached else f"~{size(sae.bytes)} to download"
    if room.disk is not None and not sae.cached and sae.bytes > room.disk:
        got += f", only {size(room.disk)} free"
    memory = f"~{size(sae.memory)} of memory"
    if room.memory is not None and sae.memory > room.memory:
        memory += f", only {size(room.memory)} free"
    return f"{got}, {memory}; {opens}"


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
    texts = {"path": sae.source, "check": "yes"}
    if sae.model:
        texts["model.model"] = sae.model
    texts["check.tokens"] = str(CHECKED)
    if sae.neuronpedia:
        texts["names"] = "yes"
    if sae.scale is not None:
        texts["input_scale"] = f"{sae.scale:.10g}"
    if sae.centred:
        texts["centred"] = "yes"
    return texts
