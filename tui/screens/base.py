"""The frame that every screen shares: header above, footer below, and what escape does."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

from textual.app import ComposeResult, ScreenStackError
from textual.containers import Container
from textual.events import DescendantFocus
from textual.widget import Widget

from mi_crow.errors import MiCrowError
from mi_crow.store.json_object import JsonObject
from tui import messages
from tui.context import AppContext
from tui.preferences.key_words import key
from tui.screens.zoom import ZoomsPanes
from tui.terminal.frames import OneFrame
from tui.terminal.keys import is_field
from tui.threads import ThreadWork
from tui.widgets.frame.banner import Banner
from tui.widgets.frame.footer import FooterBar
from tui.widgets.frame.header import HeaderBar
from tui.widgets.frame.too_small import TooSmall
from tui.widgets.lists.row_order import RowOrder
from tui.widgets.lists.sorted_list import SortedList
from tui.workbench import Workbench


class MiCrowScreen(ThreadWork, ZoomsPanes, OneFrame[None]):
    """A screen with the common frame. Subclasses yield their widgets in `compose_body`.

    Subclasses set NAME (a name of `actions.SCREENS`) and take their bindings with
    `BINDINGS = bindings(NAME)`. They get SaeChanged, ConceptsChanged, JobsChanged,
    WorkspaceChanged and SessionChanged as messages.
    """

    NAME = ""
    HOME = ""  # selector of the widget that has the focus at first and after a field is left

    def __init__(self) -> None:
        super().__init__()
        self.add_class("screen")
        self._opens_later: list[Callable[[], object]] = []
        self._could_stop = False  # when the footer was told last

    @property
    def mi_crow(self) -> Workbench:
        return cast("Workbench", self.app)

    @property
    def context(self) -> AppContext:
        return self.mi_crow.context

    def compose(self) -> ComposeResult:
        yield HeaderBar(self.context)
        yield Banner()
        with Container(id="body"):
            yield from self.compose_body()
        yield FooterBar()
        yield TooSmall()

    def compose_body(self) -> ComposeResult:
        """The screen's own widgets."""
        yield from ()

    def on_mount(self) -> None:
        self.context.subscribe(self)
        self.query_one(Banner).show(*self.context.trouble)
        self.focus_home()
        if saved := self.mi_crow.saved_state.screens.get(self.NAME):
            try:
                state = JsonObject.of(saved, f"the saved state of {self.NAME.title()}")
                self.restore(state)
                self._restore_frame(state)
            except MiCrowError as error:
                self.tell(error)

    def on_keys_changed(self, _: messages.KeysChanged) -> None:
        """Subclasses write again what is not made anew each time it is drawn."""
        for widget in self.query(Widget):
            widget.refresh()

    def on_columns_changed(self, message: messages.ColumnsChanged) -> None:
        for one in self.query(SortedList):
            if one.listed in message.lists:
                one.columns_chosen = message.lists[one.listed]

    def on_unmount(self) -> None:
        self.context.unsubscribe(self)

    def focus_home(self) -> None:
        """Gives the focus to the widget that HOME selects, so that single keys act."""
        home = self.query(HOME) if (HOME := self.HOME) else None
        self.set_focus(home.first(Widget) if home else None)

    def on_descendant_focus(self, event: DescendantFocus, /) -> None:
        """Where panes do not fit beside or under one another, the one with the focus is shown."""
        for node in event.widget.ancestors_with_self:
            if isinstance(node, Widget) and node.has_class("pane") and node.parent is not None:
                for other in node.parent.children:
                    if other.has_class("pane"):
                        other.set_class(other is node, "-shown")

    @property
    def is_shown(self) -> bool:
        """Whether it is the screen on the terminal, maybe below a popup."""
        with suppress(ScreenStackError):  # the app ends
            return self.app.screen_stack[0] is self
        return False

    def opens_now(self, then: Callable[[], object]) -> bool:
        """An answer that took long never opens over another screen."""
        if self.is_shown:
            return True
        self._opens_later.append(then)
        self.notify(f"{self.NAME.title()} has an answer: {key('app.' + self.NAME)} shows it")
        return False

    def on_screen_resume(self) -> None:
        later, self._opens_later = self._opens_later, []
        for then in later:
            self.call_later(then)

    # What comes back at the next start.

    def whole_state(self) -> dict[str, Any]:
        """`state`, and what the frame keeps for every screen."""
        lists = list(self.query(SortedList))
        orders = {one.id: one.order.as_json() for one in lists if one.id}
        columns = {one.listed: one.columns_as_json() for one in lists if one.listed}
        return self.state() | {"orders": orders, "lists": columns} | self.zoom_state()

    def _restore_frame(self, saved: JsonObject) -> None:
        orders, lists = saved.object("orders", {}), saved.object("lists", {})
        for one in self.query(SortedList):
            if one.id is not None and one.id in orders:
                one.order = RowOrder.from_json(orders.values[one.id], one.columns)
            if one.listed and one.listed in lists:
                one.restore_columns(lists.object(one.listed))

        self.call_after_refresh(self.restore_zoom, saved.text("zoom", ""))

    def state(self) -> dict[str, Any]:
        """What this screen would restore, as JSON."""
        return {}

    def restore(self, saved: JsonObject) -> None:
        """Takes up what `state` gave, in a screen that was just mounted. Raises MiCrowError for
        what it does not understand."""

    # Escape: stop what runs, close a popup, leave the field; never leave the screen.

    @property
    def can_stop(self) -> bool:
        """Whether something runs on this screen that escape stops. Screens that run override it."""
        return False

    @property
    def escape_words(self) -> str:
        """What escape does here that the footer has to say."""
        return "stop" if self.can_stop else ""

    def stop_running(self) -> bool:
        """Stops what runs on this screen; False when nothing does. Screens that run override it."""
        return False

    def work_changed(self) -> None:
        if self.is_shown and self.app.screen is not self:
            self.app.screen.refresh_bindings()  # a popup says what escape does
        if (can_stop := self.can_stop) != self._could_stop:
            self._could_stop = can_stop
            self.refresh_bindings()  # and so does the footer

    def close_popup(self) -> bool:
        """Closes what is open inside this screen (a filter line); False when nothing is."""
        return False

    def action_escape(self) -> None:
        if self.stop_running() or self.close_popup():
            return
        if not self.leave_field():
            self.unzoom()

    def leave_field(self) -> bool:
        """Gives the keys back to the screen; False when no field had them."""
        if not is_field(self.focused):
            return False
        self.focus_home()
        return True
