"""Zoom: the pane that has the focus on the whole screen, and back to all panes."""

from typing import TYPE_CHECKING, Any

from textual.events import DescendantFocus
from textual.widget import Widget
from textual.widgets import Button, Input

if TYPE_CHECKING:
    from textual.screen import Screen

    _Screen = Screen[None]
else:
    _Screen = object

WHOLE = "whole"  # class of a container that is zoomed with all in it
STAYS = "stays"  # class of what a zoom never hides: the line that asks, a screen's welcome


class ZoomsPanes(_Screen):
    """Mixed into screens with a `#body`. A zoom follows the focus from pane to pane.

    What has the focus is a pane, with the titles above it; where it is in a container of the
    class `whole`, that container is.
    """

    _zoomed_pane: Widget | None = None

    @property
    def zoomed(self) -> Widget | None:
        """The pane that has the screen for itself."""
        return self._zoomed_pane

    def zoom_changed(self) -> None:
        """A pane was zoomed, another one is, or all are back."""

    def action_zoom(self) -> None:
        pane = pane_of(self.focused)
        if self.zoomed is not None:
            self.unzoom()
        elif pane is None:
            self.app.notify("No pane has the focus", severity="warning")
        elif not any(one.display and one.region for one in self._others(pane)):
            self.app.notify("This pane has the whole screen already")
        else:
            self._zoom(pane)

    def unzoom(self) -> bool:
        """Shows all panes again; False when they were shown."""
        if self.zoomed is None:
            return False
        self._zoom(None)
        return True

    def _zoom(self, pane: Widget | None) -> None:
        body = self.query_one("#body")
        body.query(".-aside, .-zoomed").remove_class("-aside", "-zoomed")
        before, self._zoomed_pane = self._zoomed_pane, pane
        for node in self._line(pane):
            node.add_class("-zoomed")
        for other in self._others(pane):
            other.add_class("-aside")
        if self.focused is not None and not self.focused.allow_focus():
            inner = [one for one in self.focus_chain if before in one.ancestors]
            self.set_focus(inner[0] if inner else None)
        self.zoom_changed()
        self.refresh_bindings()
        if self.focused is not None:
            self.focused.call_after_refresh(self.focused.scroll_visible, animate=False)

    def _line(self, pane: Widget | None) -> list[Widget]:
        """The pane, and what it is in, up to the body."""
        found: list[Widget] = []
        for node in pane.ancestors_with_self if pane is not None else ():
            if node.id == "body" or not isinstance(node, Widget):
                break
            found.append(node)
        return found

    def _others(self, pane: Widget | None) -> list[Widget]:
        """What is set aside for a pane."""
        kept = {*self._line(pane), *(titles_of(pane) if pane is not None else ())}
        beside = (one.parent.children for one in self._line(pane) if one.parent is not None)
        return [
            one
            for several in beside
            for one in several
            if isinstance(one, Widget) and one not in kept and not one.has_class(STAYS)
        ]

    def on_descendant_focus(self, _: DescendantFocus, /) -> None:
        pane = pane_of(self.focused)  # which has moved on where two moves came close together
        if self.zoomed is not None and pane is not None and pane is not self.zoomed:
            self._zoom(pane)

    # For the next start.

    def zoom_state(self) -> dict[str, Any]:
        """The widget whose pane is zoomed, where it has a name."""
        focused = self.focused
        zoomed = self.zoomed is not None and focused is not None and pane_of(focused) is self.zoomed
        return {"zoom": focused.id} if zoomed and focused is not None and focused.id else {}

    def restore_zoom(self, name: str) -> None:
        """Zooms the pane of the widget called `name`, if it can have the focus."""
        for widget in self.query("#body *"):
            if widget.id == name and widget.focusable and pane_of(widget) is not None:
                self.set_focus(widget)
                self._zoom(pane_of(widget))


def pane_of(widget: Widget | None) -> Widget | None:
    """What a zoom shows while `widget` has the focus; nothing for a line that asks or a button."""
    if widget is None or isinstance(widget, Button | Input):
        return None
    for node in widget.ancestors_with_self:
        if isinstance(node, Widget) and node.has_class(WHOLE):
            return node
    return None if any(node.has_class(STAYS) for node in widget.ancestors_with_self) else widget


def titles_of(pane: Widget) -> list[Widget]:
    """The lines directly above a pane that belong to it: nothing in them takes the focus."""
    siblings = list(pane.parent.children) if isinstance(pane.parent, Widget) else [pane]
    titles: list[Widget] = []
    for sibling in reversed(siblings[: siblings.index(pane)]):
        if sibling.can_focus or any(inner.can_focus for inner in sibling.query("*")):
            break
        titles.append(sibling)
    return titles
