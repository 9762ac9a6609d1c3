"""The app: modes, the second's look at the workspace, and the way between screens."""

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import ClassVar

from textual.message import Message
from textual.reactive import Reactive
from textual.screen import Screen
from textual.theme import Theme
from textual.widget import Widget

from mi_crow.causes import sentence_of
from mi_crow.errors import MiCrowError
from mi_crow.store.workspace import Workspace
from tui import messages
from tui.actions import SCREENS, bindings
from tui.annotate import redo, undo, write
from tui.context import AppContext, ConceptsLook
from tui.ending import run_to_its_end
from tui.screens.base import MiCrowScreen
from tui.terminal_app import TerminalApp
from tui.text import printable
from tui.theme import CROW, THEMES
from tui.watch import Scan, ended, look
from tui.widgets.frame.header import HeaderBar, ending_line

POLL_SECONDS = 1.0


def _screen(name: str) -> Screen:
    """A fresh screen; its module loads now, so that the first paint waits for one screen only."""
    module = import_module(f"tui.screens.{name}.screen")
    return getattr(module, f"{name.title()}Screen")()


class Scanned(Message):
    """From the thread that looked at the workspace; `trouble` says what it could not read."""

    def __init__(self, scan: Scan | None, concepts: ConceptsLook | None, trouble: str) -> None:
        super().__init__()
        self.scan = scan
        self.concepts = concepts
        self.trouble = trouble


class MiCrowApp(TerminalApp):
    """Six screens, one mode each, so that every screen keeps its state."""

    TITLE = "mi-crow"
    # All at once: each file that came later would parse all of them again.
    CSS_PATH = ["app.tcss", *(f"screens/{name}/{name}.tcss" for name in SCREENS)]
    ENABLE_COMMAND_PALETTE = False
    MODES: ClassVar[dict[str, str | Callable[[], Screen]]] = {
        name: partial(_screen, name) for name in SCREENS
    }
    DEFAULT_MODE = "runs"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (120, "-wide"), (170, "-very-wide")]
    VERTICAL_BREAKPOINTS = [(0, "-short"), (36, "-tall")]
    BINDINGS = bindings("app")
    theme: Reactive[str] = Reactive(CROW.name)

    def __init__(self, workspace: Workspace, sae_id: str | None = None) -> None:
        super().__init__()
        self.animation_level = "none"
        self.context = AppContext(workspace, sae_id)
        self.context.bind(self.post_message)
        self._scan: Scan | None = None
        self._looking = False
        self._concepts_version: int | None = None
        self._trouble = ""  # told once, not every second
        self._trail: list[str] = []
        self._asked: tuple[str, object] | None = None  # the index last asked for

    @property
    def available_themes(self) -> dict[str, Theme]:
        # Not registered in __init__, where setting a theme would parse every style sheet again.
        return {theme.name: theme for theme in THEMES}

    def on_mount(self) -> None:
        if self.context.sae_id:
            self.switch_mode("features")
        self.call_after_refresh(self._start_looking)

    def on_unmount(self) -> None:
        self.context.close()

    # Looking at the workspace.

    def _start_looking(self) -> None:
        self.set_interval(POLL_SECONDS, self.look_now)
        self.look_now()

    def look_now(self) -> None:
        """Looks at the workspace in a thread, unless a look is under way."""
        if not self._looking:
            self._looking = True
            self.run_worker(self._look, thread=True, group="look", exit_on_error=False)

    def _look(self) -> None:
        context = self.context
        scan, concepts, trouble = None, None, ""
        try:
            scan = look(context.workspace, self._scan)
            concepts = context.look_at_concepts()
            store = context.features
            if store is not None and store.changed_on_disk():
                context.load_features(store.meta().sae_id)
            context.check_session()
        except (MiCrowError, OSError) as error:
            trouble = sentence_of(error)
        except Exception as error:  # told each time: a look that ends in silence shows old rows
            trouble = f"the workspace cannot be read ({type(error).__name__}: {error})"
        finally:
            self._looking = False
        self.post_message(Scanned(scan, concepts, trouble))

    def on_scanned(self, message: Scanned) -> None:
        if message.trouble != self._trouble:
            self._trouble = message.trouble
            if message.trouble:
                self.notify(printable(message.trouble), severity="error", markup=False)
        if message.scan is None:
            return
        first = self._scan is None
        before, now = self._scan or Scan(), message.scan
        self._scan = now
        self.context.set_scan(now)
        if first or before.store() != now.store():
            self.context.publish(messages.WorkspaceChanged(now.runs, now.saes))
            self._refresh_header()
        if first or before.jobs != now.jobs:
            self.context.publish(messages.JobsChanged(now.jobs))
            self._refresh_header()
            for job in ended(before.jobs, now.jobs):
                severity = "information" if job.status == "finished" else "warning"
                self.notify(ending_line(job), severity=severity, markup=False)
        if message.concepts is not None:
            self._take_concepts_look(message.concepts, first)
        self._open_some_sae()

    def _take_concepts_look(self, look: ConceptsLook, first: bool) -> None:
        """Tells what happened to the annotations since the last look."""
        for told in (look.notice, look.tagging_off if not self.context.tagging_off else None):
            if told:
                self.notify(printable(told), severity="warning", markup=False)
        if look.tagging_off != self.context.tagging_off:
            self.context.tagging_off = look.tagging_off
            self._refresh_header()
        if look.version != self._concepts_version:
            self._concepts_version = look.version
            if not first:
                self.concepts_changed()

    def _open_some_sae(self) -> None:
        """Opens the newest indexed SAE when none is open, and the open one's index when built."""
        context = self.context
        if context.sae_id is None:
            indexed = [sae for sae in context.saes() if sae.has_index] or list(context.saes())
            if indexed:
                self.open_sae(indexed[-1].sae_id)
        elif context.features is None and self._unopened(context.sae_id):
            self.open_sae(context.sae_id)

    def _unopened(self, sae_id: str) -> bool:
        sae = self.context.sae()
        return sae is not None and sae.has_index and self._asked != (sae_id, self._scan_marks())

    def open_sae(self, sae_id: str) -> None:
        """Makes `sae_id` the open SAE; its index opens in a thread, then SaeChanged goes out."""
        self._asked = (sae_id, self._scan_marks())
        if sae_id != self.context.sae_id:
            self.context.sae_id = sae_id
            self.context.features = None
        self.context.publish(messages.SaeChanged(sae_id, ready=False))
        self._refresh_header()
        self.run_worker(
            partial(self.context.load_features, sae_id),
            thread=True,
            group="features",
            exit_on_error=False,
        )

    def _scan_marks(self) -> object:
        return self._scan.store_marks if self._scan else None

    def on_features_opened(self, message: messages.FeaturesOpened) -> None:
        if message.sae_id != self.context.sae_id:
            return  # another SAE was opened meanwhile
        self.context.features = message.store
        self.context.publish(
            messages.SaeChanged(message.sae_id, message.store is not None, message.error)
        )

    def concepts_changed(self) -> None:
        """Tells every screen that the annotations changed; call it after an own change too."""
        self.context.publish(messages.ConceptsChanged())

    def on_session_changed(self, message: messages.SessionChanged) -> None:
        self.context.publish(messages.SessionChanged(message.state))
        self._refresh_header()

    def _refresh_header(self) -> None:
        for screen in self.screen_stack:
            for header in screen.query(HeaderBar):
                header.refresh_lines()

    # Between screens.

    async def action_go(self, name: str) -> None:
        await self.go(name)

    async def go(self, name: str, message: Message | None = None) -> None:
        """Switches to a screen and hands it `message` (OpenFeature, SendToSteer, ...)."""
        if name != self.current_mode:
            self._trail = [mode for mode in self._trail if mode != name][-5:]
            self._trail.append(self.current_mode)
            await self.switch_mode(name)
            self._refresh_header()
        if message is not None:
            self.screen_stack[0].post_message(message)

    def go_back(self) -> None:
        """The screen that was open before this one."""
        if self._trail:
            self.switch_mode(self._trail.pop())
            self._refresh_header()

    @property
    def base_screen(self) -> MiCrowScreen | None:
        """The screen of the current mode, below any popup."""
        screen = self.screen_stack[0]
        return screen if isinstance(screen, MiCrowScreen) else None

    def action_escape(self) -> None:
        if self.base_screen is not None:
            self.base_screen.action_escape()

    def action_help(self) -> None:
        from tui.widgets.frame.help import HelpPopup

        self.push_screen(HelpPopup(self.current_mode, dict(self._keymap)))

    def action_palette(self) -> None:
        from tui.widgets.frame.palette import PalettePopup

        if isinstance(self.screen, MiCrowScreen):
            self.push_screen(PalettePopup(self.screen), self._run_chosen)

    async def _run_chosen(self, chosen: "tuple[str, Widget | None] | None") -> None:
        from tui.widgets.frame.palette import run_chosen

        if chosen is not None:
            await run_chosen(self, *chosen)

    def action_next_theme(self) -> None:
        names = [theme.name for theme in THEMES]
        at = names.index(self.theme) if self.theme in names else -1
        self.theme = names[(at + 1) % len(names)]

    def action_undo(self) -> None:
        if self.base_screen is not None:
            write(self.base_screen, undo)

    def action_redo(self) -> None:
        if self.base_screen is not None:
            write(self.base_screen, redo)


def run(workspace: Workspace, sae_id: str | None = None) -> int:
    """Opens the app; returns its exit code when it has ended. Jobs go on.

    Raises the error that broke it.
    """
    return run_to_its_end(MiCrowApp(workspace, sae_id))
