"""The open feature of the Features screen: what the pane shows, and where it can be sent."""

import sys
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING

from textual import on

from mi_crow.store.json_object import JsonObject
from mi_crow.visible import visible
from tui import messages
from tui.clipboard import copy, copy_focused
from tui.history import Visited
from tui.screens.features.detail import FeatureDetailPane
from tui.screens.features.elsewhere import Elsewhere, OtherSaes, others_of, takes_long
from tui.screens.features.reading import DetailRead, read_detail
from tui.screens.prompted import PromptScreen
from tui.widgets.example_lines import LOOKS, ExampleLook
from tui.widgets.example_list import ExampleList
from tui.widgets.lists.feature_table import FeatureTable
from tui.widgets.lists.row_list import RowList

if TYPE_CHECKING:
    from mi_crow.mechanistic.features.queries import FeatureStore
    from mi_crow.mechanistic.features.records import Example, FeatureRow
    from tui.workbench import Workbench

TABLE = Visited("features")  # where it was, for the way back from the feature in its place
_NEXT = "tui.screens.inspect.screen"  # where enter on an example leads


class OpenFeatureScreen(PromptScreen):
    """Reads the open feature in a thread and shows it in the pane."""

    def __init__(self) -> None:
        super().__init__()
        self._sae_id: str | None = None
        self._feature: int | None = None  # the feature to show
        self._band = 0
        self._reading: object = None  # what the thread for the pane reads
        self._expected: object = None  # what will be asked for if the number that is typed is whole
        self._ahead: DetailRead | None = None  # that, once it is read
        self._other_saes = OtherSaes()

    @property
    def table(self) -> FeatureTable:
        return self.query_one(FeatureTable)

    @property
    def pane(self) -> FeatureDetailPane:
        return self.query_one(FeatureDetailPane)

    def _open(self, feature: int) -> None:
        if feature != self._feature:
            self._feature, self._band = feature, 0
        self._open_again()

    def _point_at(self, feature: int) -> None:
        """The cursor is on a feature: it is the open one at once, the pane follows."""
        if feature == self._feature:
            self._open_again()
            return
        self._feature, self._band = feature, 0
        self.when_rested("detail", self._open_again)

    @property
    def _request(self) -> "tuple[FeatureStore | None, int | None, int]":
        """What the pane should show."""
        return self.context.features, self._feature, self._band

    def _open_again(self) -> None:
        """Opens the feature unless it is open, or being read."""
        shown = self.pane.shown
        if shown is not None and shown.error is None and shown.request == self._request:
            return
        if not (self.is_working("detail") and self._reading == self._request):
            self._open_anew()

    def _open_anew(self) -> None:
        store, feature, band = self._reading = self._request
        if store is None or feature is None or not self._detail_shows:
            return
        if self._expected == self._reading:
            if self._ahead is not None:
                read = self._ahead
                self._expect(None)
                self._show_feature(read)
            return  # else it comes
        self.in_thread(
            partial(read_detail, store, feature, band), self._show_feature, group="detail"
        )

    def _expect(self, feature: int | None) -> None:
        """Reads a feature whose number may be typed whole: then it is there at once."""
        store = self.context.features
        self._expected = self._ahead = None
        if store is None or feature is None or feature >= store.meta().n_features:
            return
        self._expected = store, feature, 0
        self.table.expect(feature)
        self.in_thread(partial(read_detail, store, feature, 0), self._read_ahead, group="ahead")

    def _read_ahead(self, read: DetailRead) -> None:
        if read.request != self._expected:
            return
        self._ahead = read
        if self._reading == self._expected:
            self._open_again()
        else:
            self.pane.draw_ahead(read, self.prompt.outer_size.height)

    def _show_feature(self, read: DetailRead) -> None:
        if read.request == self._request:
            self.pane.show(read)
            self.call_later(self.let_frame_go_soon)
            self.refresh_bindings()
            self._look_elsewhere()
        elif not self.is_resting("detail"):
            self._open_again()  # the cursor moved on, or another index was opened meanwhile

    def _look_elsewhere(self) -> None:
        """Looks for the open feature in the other SAEs."""
        context, feature, sae_id = self.context, self._feature, self._sae_id
        others = others_of(context.sae(), context.saes())
        if takes_long(others) or set(self.pane.elsewhere) != {other.sae_id for other in others}:
            self.pane.show_elsewhere([Elsewhere(other.sae_id) for other in others])
        if not others or feature is None or sae_id is None or not self._detail_shows:
            return
        own = context.workspace.saes_dir / sae_id
        self.in_thread(
            lambda: self._other_saes.look(own, feature, others, context.annotations),
            partial(self._show_elsewhere, sae_id, feature),
            group="elsewhere",
        )

    def _show_elsewhere(self, sae_id: str, feature: int, found: Sequence[Elsewhere]) -> None:
        if (sae_id, feature) == (self._sae_id, self.pane.feature):
            self.pane.show_elsewhere(found)

    @property
    def _detail_shows(self) -> bool:
        return self.has_class("-detail") or not self.is_narrow

    @property
    def is_narrow(self) -> bool:
        """Whether there is room for the table or the open feature, not for both."""
        return not (self.has_class("-wide") or self.has_class("-very-wide"))

    @property
    def is_alone(self) -> bool:
        """Whether the open feature has taken the place of the table."""
        return self.is_narrow and self.has_class("-detail")

    def on_resize(self) -> None:
        self.call_after_refresh(self._open_again)

    def _to_table(self) -> None:
        """Goes back to the table where the open feature has its place."""
        if self.is_alone:
            self._leave_detail()
            self.set_focus(self.table)
        if self.zoomed not in (None, self.table):
            self.set_focus(self.table)
            self._zoom(self.table)

    def _leave_detail(self) -> None:
        """The table is there again: it is not gone back to once more."""
        if self.is_alone:
            self.mi_crow.history.take_back(TABLE)
        self.remove_class("-detail", update=self.is_narrow)

    def _enter_detail(self) -> None:
        if _NEXT not in sys.modules:  # else its first enter takes twice as long
            self.when_rested("next screen", self._import_next)
        if comes := self.is_narrow and not self._detail_shows:
            self.hold_frame()
        self.add_class("-detail", update=comes)
        if comes:
            self.lay_out()
        self._open_again()
        self.set_focus(self.pane.examples)

    def _import_next(self) -> None:
        self.in_thread(partial(import_module, _NEXT), group="next screen")

    @property
    def _row(self) -> "FeatureRow | None":
        """The open feature's row, as far as it was read."""
        shown = self.pane.shown
        if shown is not None and shown.detail is not None and shown.feature == self._feature:
            return shown.detail.row
        row = self.table.row_at(self.table.cursor)
        return row if row is not None and row.feature == self._feature else None

    @on(ExampleList.Opened)
    async def _inspect_example(self, message: ExampleList.Opened) -> None:
        await self._to_inspect(message.example.text)

    # Actions.

    def action_next_band(self) -> None:
        shown = self.pane.shown
        self._band = (self._band + 1) % ((shown.bands if shown is not None else 0) + 1)
        self._open_again()

    def action_next_look(self) -> None:
        self.pane.next_look()

    def action_unnamed(self, direction: int) -> bool:
        """Moves to the next or the previous unnamed feature in the table; whether there is one."""
        store, table = self.context.features, self.table
        if store is None:
            return False
        named, ids = store.concepts(), table.shown_ids
        place = table.cursor + direction
        while 0 <= place < table.row_count:
            if ids[place] not in named:
                table.cursor = place
                return True
            place += direction
        where = "below" if direction > 0 else "above"
        self.app.notify(f"every feature {where} this one has a name")
        return False

    async def action_steer(self) -> None:
        if self._feature is not None:
            await self.mi_crow.go("steer", messages.SendToSteer(self._feature, self._sae_id))

    async def action_inspect(self) -> None:
        store, feature = self.context.features, self._feature
        if self.pane.feature == feature:
            example = self.pane.examples.example
            await self._to_inspect(example.text if example is not None else None)
        elif store is not None and feature is not None:  # the pane is hidden and behind

            async def to_inspect(examples: "Sequence[Example]") -> None:
                await self._to_inspect(examples[0].text if examples else None)

            self.in_thread(partial(store.examples, feature, limit=1), to_inspect, group="strongest")

    async def _to_inspect(self, text: str | None) -> None:
        if self._feature is not None:
            await self.mi_crow.go("inspect", messages.SendToInspect(self._feature, text))

    def action_copy(self) -> None:
        examples = self.pane.examples
        if examples.has_focus and examples.example is not None:
            copy(self.mi_crow, examples.example.text, "the example's text")
        elif isinstance(self.focused, RowList):
            copy_focused(self.mi_crow)
        elif self._row is not None:
            copy_feature(self.mi_crow, self._row)
        elif self._feature is not None:
            copy(self.mi_crow, str(self._feature), f"feature {self._feature}")


def copy_feature(app: "Workbench", row: "FeatureRow") -> None:
    """Copies the number of a feature and what it stands for."""
    text = f"{row.feature}\t{visible(row.meaning)}".strip()
    copy(app, text, f"feature {row.feature}")


def saved_look(saved: JsonObject) -> ExampleLook:
    """How a saved state draws the examples. Raises CorruptDataError for a way that is none."""
    name = saved.text("look", LOOKS[0])
    for look in LOOKS:
        if look == name:
            return look
    raise saved.wrong("look", f"one of {', '.join(LOOKS)}")
