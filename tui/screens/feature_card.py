"""The feature under the cursor of a list, below it, where the terminal has room."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, cast

from textual import on
from textual.app import ComposeResult
from textual.containers import Container
from textual.widget import Widget

from tui import messages
from tui.context import AppContext
from tui.screens.beginnings import beginnings, telling_features
from tui.screens.features.detail import FeatureDetailPane
from tui.screens.features.reading import DetailRead, read_detail
from tui.threads import ThreadWork
from tui.widgets.example_list import ExampleList
from tui.widgets.lists.row_list import RowList
from tui.widgets.sharing import share_heights
from tui.widgets.words import Words
from tui.workbench import Workbench

if TYPE_CHECKING:
    from mi_crow.mechanistic.features.queries import FeatureStore
    from mi_crow.mechanistic.features.records import FeatureRow

_ENOUGH = 16  # lines that say of a feature what it is: head, histogram, logits, two examples


class FeatureCard(ThreadWork, Container):
    """What Features says of a feature, on a screen whose rows name features; without one, what can
    be done and which features there are. Hidden, it reads nothing."""

    def __init__(self, context: AppContext) -> None:
        super().__init__(id="feature-card", classes="-none")
        self._app_context = context
        self._feature: int | None = None
        self._above: tuple[Widget, int, bool] | None = None
        self._telling: tuple[FeatureStore, Sequence[FeatureRow]] | None = None  # to begin with

    def compose(self) -> ComposeResult:
        yield Words(id="card-hint", markup=False)
        yield FeatureDetailPane(id="card-pane")

    def on_mount(self) -> None:
        self._app_context.subscribe(self)

    def on_unmount(self) -> None:
        self._app_context.unsubscribe(self)

    def show_feature(self, feature: int | None) -> None:
        """Shows this feature of the open SAE once the cursor rests; None: no feature is chosen."""
        if feature != self._feature:
            self._feature = feature
            self.when_rested("card", self._read)

    def give(self, above: Widget, lines: int, *, first: bool = False) -> None:
        """Gives the widget above the `lines` it needs, but at most half of what both have. Where
        it comes `first`, more than half too, as long as the card has lines enough."""
        self._above = above, lines, first
        self._share()

    def on_sae_changed(self, _: messages.SaeChanged) -> None:
        self._read()

    def on_concepts_changed(self, _: messages.ConceptsChanged) -> None:
        self._telling = None
        self._read()

    def on_keys_changed(self, _: messages.KeysChanged) -> None:
        self._show_beginnings()

    def on_show(self) -> None:
        self._read()
        self._share()

    def on_hide(self) -> None:
        self._share()

    def on_resize(self) -> None:
        self._share()
        self._show_beginnings()

    def _share(self) -> None:
        if self._above is None:
            return
        above, lines, first = self._above
        both = above.outer_size.height + self.outer_size.height
        needs = [lines, _ENOUGH if first else both]
        if not self.display:
            above.styles.height = None
        elif both:
            above.styles.height = share_heights(both, needs)[0]

    def _read(self) -> None:
        store, feature = self._app_context.features, self._feature
        if store is None or feature is None:
            self.add_class("-none")
            self._show_beginnings()
            held = self._telling
            if self.display and store is not None and (held is None or held[0] is not store):
                self.in_thread(partial(_read_telling, store), self._told, group="telling")
        elif self.display:
            self.in_thread(partial(read_detail, store, feature, 0), self._show, group="card")

    def _show(self, read: DetailRead) -> None:
        if (read.store, read.feature) == (self._app_context.features, self._feature):
            self.remove_class("-none")
            self.query_one(FeatureDetailPane).show(read)

    def _told(self, telling: "tuple[FeatureStore, Sequence[FeatureRow]]") -> None:
        self._telling = telling
        self._show_beginnings()

    def _show_beginnings(self) -> None:
        if not self.has_class("-none") or not self.display:
            return
        held = self._telling
        rows = held[1] if held is not None and held[0] is self._app_context.features else ()
        room, name = self.content_size, getattr(self.screen, "NAME", "")
        content = beginnings(name, rows, max(room.width - 2, 1), room.height)
        self.query_one("#card-hint", Words).update(content)

    # Ways from here; the rows inside are not the screen's.

    @on(RowList.Highlighted)
    def _inside(self, event: RowList.Highlighted) -> None:
        event.stop()

    @on(FeatureDetailPane.Wanted)
    async def _open(self, event: FeatureDetailPane.Wanted) -> None:
        event.stop()
        await self._go("features", messages.OpenFeature(event.feature))

    @on(ExampleList.Opened)
    async def _inspect(self, event: ExampleList.Opened) -> None:
        event.stop()
        await self._go("inspect", messages.SendToInspect(self._feature, event.example.text))

    async def _go(self, screen: str, message: "messages.OpenFeature | messages.SendToInspect"):
        await cast("Workbench", self.app).go(screen, message)


def _read_telling(store: "FeatureStore") -> "tuple[FeatureStore, Sequence[FeatureRow]]":
    return store, telling_features(store)
