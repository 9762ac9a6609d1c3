"""A text of a screen that moves nothing else while it takes the same room."""

from dataclasses import dataclass
from typing import Any

from textual.content import Content
from textual.reactive import Reactive
from textual.strip import Strip
from textual.visual import Visual, VisualType
from textual.widget import _RenderCache
from textual.widgets import Static


@dataclass(frozen=True)
class _Ahead:
    """What is drawn before it is shown."""

    content: Content
    how: object  # the width and the colours
    strips: list[Strip]


class Words(Static):
    """Plain text or content, which Textual would lay out the whole screen for each time; here only
    where it takes more or fewer cells than before. Nothing in it is a link."""

    auto_links: Reactive[bool] = Reactive(False)  # else every line is made anew to find some

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._ahead: _Ahead | None = None

    def update(self, content: VisualType = "", *, layout: bool = True) -> None:
        before = self.content
        same = isinstance(before, Content) and isinstance(content, Content)
        if same and before.is_same(content):  # type: ignore[union-attr,arg-type]
            return
        super().update(content, layout=False)
        if layout and self._takes_other_room():
            self.refresh(layout=True)

    def _takes_other_room(self) -> bool:
        styles, size = self.styles, self.size
        if not size or (styles.width is not None and styles.width.is_auto):
            return True
        if styles.height is None or not styles.height.is_auto:
            return False
        return self.visual.get_height(styles, size.width) != size.height  # type: ignore[arg-type]

    def draw_ahead(self, content: Content) -> None:
        """Draws what `update` will be asked for soon."""
        if self.size:
            strips = Visual.to_strips(self, content, self.size.width, None, self.visual_style)
            self._ahead = _Ahead(content, self._how, strips)

    @property
    def _how(self) -> object:
        """What lines are drawn by: as long as it is the same, so are they."""
        return self.size.width, self.visual_style, self.app.theme, self.app.theme_variables

    def _render_content(self) -> None:
        ahead, shown = self._ahead, self.content
        ready = ahead is not None and isinstance(shown, Content) and ahead.content.is_same(shown)
        if ahead is None or not ready or self.text_selection is not None or ahead.how != self._how:
            super()._render_content()
        else:
            self._render_cache = _RenderCache(self.size, ahead.strips[: self.size.height])
            self._dirty_regions.clear()
