"""The map of features, as large as the screen."""

from functools import partial
from typing import TYPE_CHECKING, cast

from textual import on
from textual.containers import Vertical
from textual.content import Content

from tui.actions import bindings
from tui.annotate import Naming, may_tag, name_feature
from tui.preferences.key_words import key
from tui.screens.features.map_place import MapPlace
from tui.screens.features.naming import ask_name
from tui.screens.features.opening import copy_feature
from tui.text import count, printable
from tui.widgets.frame.popup import Popup
from tui.widgets.lists.feature_columns import density, score
from tui.widgets.map.colours import COLOURS, Colouring, colouring
from tui.widgets.map.view import MapView
from tui.widgets.map.viewport import Viewport
from tui.widgets.prompt_line import PromptLine
from tui.widgets.words import Words

if TYPE_CHECKING:
    from mi_crow.mechanistic.features.feature_map import FeatureMap
    from mi_crow.mechanistic.features.queries import FeatureStore
    from mi_crow.mechanistic.features.records import FeatureRow
    from tui.messages import ConceptsChanged
    from tui.widgets.lists.feature_marks import FeatureMarks
    from tui.workbench import Workbench


class MapPopup(Popup[int]):
    """Dismisses with the feature to open. Regions change `marks` at once."""

    BINDINGS = bindings("popup", "close")

    def __init__(
        self,
        store: "FeatureStore",
        found: "FeatureMap",
        marks: "FeatureMarks",
        colour: str,
        feature: int | None,
        place: MapPlace | None = None,
    ) -> None:
        """Opens where it was left, `place`, with the cursor on `feature` when that is another."""
        super().__init__(classes="map")
        self._feature = feature
        self._store, self._found, self._marks = store, found, marks
        self.colour = colour
        self._colours = colouring(colour, found, marks)
        view = Viewport(*place.view) if place is not None else None
        left = place.at if place is not None and place.feature == feature else None
        self._view = MapView(found, self._colours, feature, view, left)
        self._row: FeatureRow | None = None
        self._naming: Naming | None = None
        self._in_cell = 0

    @property
    def place(self) -> MapPlace:
        """Where it is now, to open there again."""
        view = self._view.view
        shown = (view.left, view.bottom, view.width, view.height)
        return MapPlace(self._store.sae_id, shown, self._view.at, self._feature)

    def heading(self) -> str:
        total, placed = len(self._found), len(self._found.placed)
        text = f"Map of {self._store.sae_id}, {count(placed)} features"
        if placed < total:
            text += f"; {count(total - placed)} without coordinates are not on it"
        return text

    def compose_box(self):
        yield self._view
        with Vertical(id="map-lines"):
            yield Words(id="map-legend", markup=False)
            yield Words(id="map-feature", markup=False)
        yield PromptLine()

    def on_mount(self) -> None:
        self._view.focus()
        self._app.context.subscribe(self)

    def on_unmount(self) -> None:
        self._app.context.unsubscribe(self)

    @property
    def _app(self) -> "Workbench":
        return cast("Workbench", self.app)

    @property
    def prompt(self) -> PromptLine:
        return self.query_one(PromptLine)

    def _show_legend(self) -> None:
        plain, room = self.app.no_color, self._view.size.width
        line = legend(self._colours, plain)
        if line.cell_length > room:
            line = legend(self._colours, plain, counts=False)
        self.query_one("#map-legend", Words).update(line)

    def on_resize(self) -> None:
        self.call_after_refresh(self._show_legend)

    # The feature at the cursor.

    @on(MapView.Moved)
    def _moved(self, message: MapView.Moved) -> None:
        self._in_cell = message.in_cell
        feature = message.feature
        if feature is not None:
            self._read(feature)

    def _read(self, feature: int) -> None:
        work = partial(self._store.rows, [feature], ["tokens", "score"])
        self.in_thread(work, self._about, group="about")

    def _about(self, rows: "list[FeatureRow]") -> None:
        self._row = rows[0]
        self._show_row()

    def _show_row(self) -> None:
        if self._row is None:
            return
        line = about(self._row, self._in_cell)
        if self._view.is_marking:
            line = Content.assemble(
                (f" region: move, {key('map.mark')} marks, esc leaves ", "$accent"), line
            )
        elif self._marks:
            line = Content.assemble((f" {count(len(self._marks))} marked ", "$accent"), line)
        self.query_one("#map-feature", Words).update(line)

    @on(MapView.Opened)
    def _opened(self, message: MapView.Opened) -> None:
        self.dismiss(message.feature)

    def action_copy(self) -> None:
        if self._row is not None:
            copy_feature(self._app, self._row)

    # Its name.

    @on(MapView.NameWanted)
    def _ask_name(self) -> None:
        row = self._row
        if row is not None and row.feature == self._view.feature and may_tag(self._app):
            self._naming = ask_name(self.prompt, self._store, self._store.sae_id, row)

    @on(PromptLine.Answered)
    def _answered(self, message: PromptLine.Answered) -> None:
        name_feature(self._app, self._naming, message.value)

    def on_concepts_changed(self, _: "ConceptsChanged") -> None:
        def read() -> "FeatureMap":
            self._store.refresh_concepts()
            return self._store.map()

        self.in_thread(read, self._renamed, group="names")

    def _renamed(self, found: "FeatureMap") -> None:
        self._found = found
        if self.colour == "name":
            self._set_colour("name")
        if self._row is not None:
            self._read(self._row.feature)

    # Marks and colours.

    @on(MapView.RegionEnded)
    def _region_ended(self, message: MapView.RegionEnded) -> None:
        if message.features:
            self._marks.toggle_all(message.features)
            if self.colour == "marks":
                self._set_colour("marks")
        else:
            self.notify("no feature is in this region")
        self._show_row()

    @on(MapView.ColourWanted)
    def _next_colour(self) -> None:
        self._set_colour(COLOURS[(COLOURS.index(self.colour) + 1) % len(COLOURS)])

    def _set_colour(self, colour: str) -> None:
        self.colour = colour
        self._colours = colouring(colour, self._found, self._marks)
        self._view.set_colours(self._colours)
        self._show_legend()

    @property
    def close_words(self) -> str:
        return "leave the region" if self._view.is_marking else super().close_words

    def action_close(self) -> None:
        if self.prompt.close():
            return
        if self._view.stop_marking():
            self._show_row()
        else:
            super().action_close()


def legend(colours: Colouring, plain: bool, *, counts: bool = True) -> Content:
    """What the colours say, or, where there are none, the signs."""
    parts: list[tuple[str, str]] = [(f" {colours.title}  ", "$muted")]
    for kind in colours.kinds:
        if kind.count == 0:
            continue
        parts.append((kind.mark if plain else "■", kind.colour))
        number = "" if kind.count is None or not counts else f" {count(kind.count)}"
        parts.append((f" {kind.words}" if kind.words else "", "$muted"))
        parts.append((f"{number}  " if kind.words else " ", "$faint"))
    return Content.assemble(*parts)


def about(row: "FeatureRow", in_cell: int) -> Content:
    """A feature in one line: its number, name, label, density and the tokens it promotes."""
    parts: list[tuple[str, str]] = [(f" #{row.feature} ", "bold")]
    if row.concept:
        parts.append((f" {printable(row.concept)} ", "$accent"))
    elif row.proposed:
        parts.append((f" {printable(row.proposed)} ", "$muted italic"))
    if row.top_label:
        parts.append((f" {printable(row.top_label)} {score(row.top_auroc)} ", "$secondary"))
    parts.append((f" {density(row.density)} " if row.fires else " never fires ", ""))
    tokens = " ".join(printable(str(one)).strip() for one in row.more.get("tokens", ()))
    parts.append((f" {tokens} ", "$success"))
    if in_cell > 1:
        parts.append((f" {count(in_cell)} features here", "$muted"))
    return Content.assemble(*parts)
