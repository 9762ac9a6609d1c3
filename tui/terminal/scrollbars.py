"""Scrollbars that are drawn once for each place of their thumb.

Textual asks a console for their lines each time: on a screen with six of them a third of what a
frame takes.
"""

from functools import lru_cache
from typing import NamedTuple

from rich.segment import Segment
from rich.style import Style as GroundStyle
from textual.css.styles import RulesMap
from textual.reactive import Reactive
from textual.scrollbar import ScrollBar, ScrollBarRender
from textual.strip import Strip
from textual.style import Style
from textual.visual import RenderOptions, Visual

_KEPT = 256


class _Bar(NamedTuple):
    """All that decides how a bar looks."""

    width: int
    height: int
    vertical: bool
    virtual_size: float
    window_size: float
    position: float
    style: GroundStyle
    ground: GroundStyle


class KeptBar(ScrollBarRender, Visual):
    """Textual's bar."""

    def render_strips(
        self, width: int, height: int | None, style: Style, options: RenderOptions
    ) -> list[Strip]:
        own = self.style if isinstance(self.style, GroundStyle) else GroundStyle.parse(self.style)
        sizes = self.virtual_size, self.window_size, self.position
        return _strips(_Bar(width, height or 1, self.vertical, *sizes, own, style.rich_style))

    def get_optimal_width(self, rules: RulesMap, container_width: int) -> int:
        return self.thickness if self.vertical else container_width

    def get_height(self, rules: RulesMap, width: int) -> int:
        return self.thickness


@lru_cache(_KEPT)
def _strips(bar: _Bar) -> list[Strip]:
    colours = [colour for colour in (bar.style.bgcolor, bar.style.color) if colour is not None]
    drawn = ScrollBarRender.render_bar(
        bar.height if bar.vertical else bar.width,
        bar.virtual_size,
        bar.window_size,
        bar.position,
        bar.width if bar.vertical else bar.height,
        bar.vertical,
        *colours,
    )
    segments = [
        Segment(text, bar.ground + style if style is not None else bar.ground)
        for text, style, _ in drawn.segments
        if text != "\n"
    ]
    if not bar.vertical:
        across = segments[: len(segments) // bar.height]
        return [Strip(across, bar.width)] * bar.height
    kinds: dict[Segment, Strip] = {}
    return [kinds.setdefault(one, Strip([one], bar.width)) for one in segments]


def draw_scrollbars() -> None:
    """Has every scrollbar drawn in this way."""
    ScrollBar.renderer = KeptBar
    no_links: Reactive[bool] = Reactive(False)  # else each line of a bar is made anew to find some
    no_links.__set_name__(ScrollBar, "auto_links")  # type: ignore[arg-type]
    ScrollBar.auto_links = no_links  # type: ignore[assignment]
