"""A text of a screen that moves nothing else while it takes the same room."""

from textual.content import Content
from textual.reactive import Reactive
from textual.visual import VisualType
from textual.widgets import Static


class Words(Static):
    """Plain text or content, which Textual would lay out the whole screen for each time; here only
    where it takes more or fewer cells than before. Nothing in it is a link."""

    auto_links: Reactive[bool] = Reactive(False)  # else every line is made anew to find some

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
