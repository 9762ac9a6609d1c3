"""The header: name, open model, SAE, device, running jobs; below it the six screens."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from textual import events
from textual.app import ComposeResult, RenderResult
from textual.containers import Container
from textual.content import Content
from textual.screen import Screen
from textual.style import Style
from textual.widget import Widget

from tui.actions import SCREENS
from tui.preferences.key_words import key
from tui.terminal.frames import OneFrame
from tui.text import duration, printable
from tui.widgets.frame.banner import Banner

if TYPE_CHECKING:
    from mi_crow.jobs import JobState
    from tui.context import AppContext
    from tui.workbench import Workbench

_JOB_NAMES = {"evaluate": "eval"}


def running_label(jobs: "Sequence[JobState]") -> str:
    """`train 42% 3m` for the one job that runs; with more, how many more run or wait."""
    running = [job for job in jobs if job.status == "running"]
    queued = sum(job.status == "queued" for job in jobs)
    if not running:
        return f"{queued} queued" if queued else ""
    job = running[0]
    words = [printable(_JOB_NAMES.get(job.kind, job.kind))]
    if job.total:
        words.append(f"{100 * (job.done or 0) // job.total:.0f}%")
    if job.stopping:
        words.append("stopping")
    elif job.eta_s is not None:
        words.append(duration(job.eta_s))
    others = len(running) - 1 + queued
    return " ".join(words) + (f" +{others}" if others else "")


class TitleLine(Widget):
    """`mi-crow  model · SAE · device            train 42% 3m`."""

    def __init__(self, context: "AppContext") -> None:
        super().__init__()
        self._app_context = context

    def render(self) -> RenderResult:
        context = self._app_context
        sae = context.sae()
        state = context.session_state
        parts: list[tuple[str, str]] = [("mi-crow", "bold $primary"), ("  ", "")]
        names = []
        if state.alone is not None and context.sae_id is None:
            model = state.model_id or state.alone.model
            names.append((printable(model.rsplit("/", 1)[-1]), "$foreground"))
        if sae is not None and sae.model_id:
            names.append((printable(sae.model_id.rsplit("/", 1)[-1]), "$foreground"))
            beside = [model for _, model, _ in sae.models]
            if sae.model_id in beside:  # once: both may be revisions of one model
                beside.remove(sae.model_id)
            names += [(f"beside {printable(one.rsplit('/', 1)[-1])}", "$muted") for one in beside]
        if context.sae_id is not None:
            names.append((printable(context.sae_id), "$foreground"))
        elif context.has_looked:
            names.append(("no SAE" if state.alone is not None else "no SAE yet", "$muted"))
        if context.session_is_ready:
            names.append((printable(state.device), "$success"))
        elif state.phase == "ready":  # with another SAE than the open one
            names.append(
                (printable(f"{state.device} holds {state.sae_id or state.model_id}"), "$muted")
            )
        elif state.phase == "loading":
            names.append(("loading model", "$accent"))
        elif state.phase == "died":
            names.append(("session ended", "$error"))
        if context.read_only:
            names.append(("read only", "$warning"))
        elif context.tagging_off:
            names.append(("tagging off", "$warning"))
        for index, name in enumerate(names):
            if index:
                parts.append((" · ", "$faint"))
            parts.append(name)
        left = Content.assemble(*parts)
        right = Content.styled(running_label(context.jobs()), "$accent")
        app = cast("Workbench", self.app)
        if app.opens_late:
            right = Content.styled("opening…", "$accent")
        unread = app.message_log.unread_errors
        if unread:
            right = Content.assemble(
                (f"{key('app.messages')} {unread}", "bold $error"), "  " * bool(right), right
            )
        width = self.size.width
        room = width - right.cell_length - 2
        if left.cell_length > room:
            left = left.truncate(max(room, 0), ellipsis=True)
        gap = " " * max(width - left.cell_length - right.cell_length, 0)
        return Content.assemble(left, gap, right)


class TabLine(Widget):
    """The six screens with their digits; the current one stands out."""

    def render(self) -> RenderResult:
        app = cast("Workbench", self.app)
        current = app.going_to or app.current_mode
        keys = [key(f"app.{name}") for name in SCREENS]
        room = sum(len(name) + 3 + len(one) for name, one in zip(SCREENS, keys, strict=True))
        parts = []
        for digit, name in zip(keys, SCREENS, strict=True):
            here = name == current
            tab = Content.assemble(
                (f" {digit} ", "$primary on $panel" if here else "$faint"),
                (
                    f"{name.title()} " if room <= self.size.width or here else "",
                    "bold $foreground on $panel" if here else "$muted",
                ),
            )
            parts.append(tab.stylize(Style.from_meta({"screen": name})))
        return Content("").join(parts)

    async def on_click(self, event: events.Click) -> None:
        name = event.style.meta.get("screen")
        if name is not None:
            await self.app.run_action(f"app.go('{name}')")


class HeaderBar(Container):
    """Both lines; side by side where the terminal is wide."""

    def __init__(self, context: "AppContext") -> None:
        super().__init__()
        self._app_context = context

    def compose(self) -> ComposeResult:
        yield TitleLine(self._app_context)
        yield TabLine()

    def refresh_lines(self) -> None:
        for line in self.children:
            line.refresh()
        for banner in self.screen.query(Banner):
            banner.show(*self._app_context.trouble)


def show_tabs(screen: Screen[Any]) -> None:
    """Draws the line of the screens at once: the screen that it marks may take a tenth of a second
    to make, in which nothing else is drawn."""
    for line in screen.query(TabLine):
        line.refresh()
        if isinstance(screen, OneFrame):
            screen.draw_now(line)
