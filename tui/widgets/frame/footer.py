"""The footer: the keys that work here, from the action table, on one line."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from textual import events
from textual.app import RenderResult
from textual.cache import LRUCache
from textual.content import Content
from textual.style import Style
from textual.widget import Widget, _RenderCache

from tui.actions import ACTIONS, NO_KEY, key_label
from tui.terminal.frames import OneFrame
from tui.terminal.keys import is_field, takes_key

if TYPE_CHECKING:
    from tui.context import AppContext

_ORDER = {action.id: position for position, action in enumerate(ACTIONS)}
_ALWAYS = ("app.help", "app.quit")
_KEPT = 16  # lines

Item = tuple[str, str, str]
"""What a pair of the line says: the label of the key, the action, and the key."""


class FooterBar(Widget):
    """One line of `key label` pairs; those that do not fit are in the help overlay."""

    def __init__(self) -> None:
        super().__init__()
        # The focus goes to and fro between a few places, each with its keys.
        self._drawn: LRUCache[object, _RenderCache] = LRUCache(_KEPT)
        self._shown_as: object = None

    def on_mount(self) -> None:
        self.screen.bindings_updated_signal.subscribe(self, lambda _: self._keys_may_differ())

    def _keys_may_differ(self) -> None:
        """Told several times for one move of the focus, most of which change nothing; of a frame
        that is held it is looked at once, when that is drawn."""
        held = isinstance(self.screen, OneFrame) and self.screen.holds_frame
        if held or self._looks_as() != self._shown_as:
            self.refresh()

    def _looks_as(self) -> object:
        shown, last = self._items()
        return (*shown, None, *last), self.size, self.visual_style, self.app.theme

    def _render_content(self) -> None:
        self._shown_as = looks_as = self._looks_as()
        drawn = self._drawn.get(looks_as)
        if drawn is None:
            self._layout_cache.clear()
            super()._render_content()
            self._drawn[looks_as] = self._render_cache
        else:
            self._render_cache = drawn
            self._dirty_regions.clear()

    def render(self) -> RenderResult:
        shown, last = self._items()
        tail = Content("   ").join([_pair(*item) for item in last])
        room = self.size.width - tail.cell_length - (3 if last else 0)
        line: list[Content] = []
        used = 0
        for item in shown:
            pair = _pair(*item)
            used += pair.cell_length + (3 if line else 0)
            if used > room:
                break
            line.append(pair)
        head = Content("   ").join(line)
        gap = " " * max(self.size.width - head.cell_length - tail.cell_length, 0)
        return Content.assemble(head, gap, tail)

    async def on_click(self, event: events.Click) -> None:
        key = event.style.meta.get("press")
        if key is not None:
            self.app.simulate_key(key)

    def _typing(self) -> bool:
        """Whether a field of the screen has the focus; a popup has a key that closes it."""
        return not self.screen.is_modal and is_field(self.screen.focused)

    def _refuses(self, action: str) -> bool:
        """Whether it would write where nothing can be written."""
        context: AppContext | None = getattr(self.app, "context", None)  # a bare app has none
        return context is not None and bool(context.why_refused(action))

    def _own_keys(self) -> Sequence[tuple[str, str]]:
        """The keys of what the field with the focus is for, where the screen's are not for it."""
        above = self.screen.focused.ancestors if self.screen.focused is not None else ()
        return next((own for node in above if (own := getattr(node, "FOOTER", ()))), ())

    def _items(self) -> tuple[list[Item], list[Item]]:
        """What to show and what always stays."""
        found: dict[str, Item] = {}
        zoom: Item | None = None
        focused = self.screen.focused
        first: Sequence[str] = getattr(self.screen, "first_keys", ())
        left_out: Sequence[str] = getattr(self.screen, "left_out_keys", ())
        words_for = ("close_words", "OPEN_WORDS", "submit_words", "escape_words")
        closes, opens, submits, stops = (getattr(self.screen, of, "") for of in words_for)
        for active in self.screen.active_bindings.values():
            binding = active.binding
            if binding.key == NO_KEY or takes_key(focused, binding.key):
                continue
            if binding.id == "app.zoom":
                zoom = (key_label(binding.key), "", binding.key)
            shows = binding.show or binding.id in first
            shows = shows and binding.id not in left_out
            acts = shows and active.enabled and not self._refuses(binding.id or "")
            if acts and binding.id and binding.id not in found:
                words = binding.description
                if binding.key == "escape":
                    words = closes or words
                elif binding.id == "list.open":
                    words = opens or words
                elif binding.id == "form.submit":
                    words = submits or words
                found[binding.id] = (key_label(binding.key), words, binding.key)
        ids = sorted(found, key=lambda name: (_rank(name, first), _ORDER.get(name, 999)))
        shown = [found[name] for name in ids if name not in _ALWAYS]
        if own := self._own_keys():
            shown = [
                (key_label(key), (closes or stops or words) if key == "escape" else words, key)
                for key, words in own
            ]
        elif self._typing():
            shown.insert(0, ("esc", stops or "leave the field", "escape"))
        elif zoom is not None and getattr(self.screen, "zoomed", None) is not None:
            shown.insert(0, (zoom[0], "all panes", zoom[2]))
        elif stops:
            shown.insert(0, ("esc", stops, "escape"))
        return shown, [found[name] for name in _ALWAYS if name in found]


def _rank(name: str, first: Sequence[str]) -> int:
    """What the screen says, what only it does, what all lists do."""
    if name in first:
        return -1
    return {"list": 1, "tokens": 1, "sorting": 2}.get(name.partition(".")[0], 0)


def _pair(label: str, action: str, key: str) -> Content:
    pair = Content.assemble((label, "bold $primary"), " ", (action, "$muted"))
    return pair.stylize(Style.from_meta({"press": key}))
