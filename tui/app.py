"""The app as a whole: its six screens, and the actions that work on each of them."""

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from importlib import import_module
from typing import Any, ClassVar

from textual.app import SuspendNotSupported
from textual.css.query import NoMatches
from textual.events import Event, Key, Paste
from textual.reactive import Reactive
from textual.screen import Screen
from textual.theme import Theme
from textual.widget import Widget

from mi_crow.errors import MiCrowError, UserError
from mi_crow.store.json_object import JsonObject
from mi_crow.store.settings import UserSettings
from mi_crow.store.workspace import Workspace
from tui import messages
from tui.actions import BY_ID, SCREENS, Action, bindings
from tui.allocation import keep_little
from tui.annotate import redo, undo, write
from tui.clipboard import copy_focused
from tui.ending import run_to_its_end
from tui.message_log import Place
from tui.preferences.key_words import key
from tui.preferences.list_columns import LISTS
from tui.preferences.preferences import Preferences, all_mistakes
from tui.screens.base import MiCrowScreen
from tui.state import SavedState, StateFile
from tui.terminal.bursts import Burst
from tui.terminal.colours import has_few_colours
from tui.text import printable
from tui.themes.named import DEFAULT, KNOWN, OWN, in_sixteen_colours, theme
from tui.threads import error_sentence
from tui.widgets.forms.drafts import drafts_as_json
from tui.widgets.frame.too_small import LEAST_COLUMNS, LEAST_LINES
from tui.workbench import Workbench

MOST_TOLD = 2  # mistakes in the settings, each in a sentence of its own
_FIELDS = {"features": "features.filter", "inspect": "inspect.text", "steer": "steer.prompt"}
OFFERED_S = 1.0  # after which other programs can ask the app: until then it has itself to start


def _screen(name: str) -> Screen:
    """A fresh screen; its module loads now, so that the first paint waits for one screen only."""
    module = import_module(f"tui.screens.{name}.screen")
    return getattr(module, f"{name.title()}Screen")()


class MiCrowApp(Workbench):
    """Six screens, one mode each, so that every screen keeps its state."""

    TITLE = "mi-crow"
    CSS_PATH = "app.tcss"  # each screen brings its own, and so do popups
    ENABLE_COMMAND_PALETTE = False
    MODES: ClassVar[dict[str, str | Callable[[], Screen]]] = {
        name: partial(_screen, name) for name in SCREENS
    }
    DEFAULT_MODE = "runs"
    HORIZONTAL_BREAKPOINTS = [
        (0, "-too-narrow"),
        (LEAST_COLUMNS, "-slim"),
        (64, "-narrow"),
        (120, "-wide"),
        (170, "-very-wide"),
    ]
    VERTICAL_BREAKPOINTS = [(0, "-too-low"), (LEAST_LINES, "-low"), (18, "-short"), (36, "-tall")]
    BINDINGS = bindings("app")
    theme: Reactive[str] = Reactive(DEFAULT)

    def __init__(
        self,
        workspace: Workspace,
        sae_id: str | None = None,
        saved: SavedState | None = None,
        state_file: StateFile | None = None,
        preferences: Preferences | None = None,
        *,
        few_colours: bool = False,
    ) -> None:
        """`sae_id` is opened on Features; without one the app takes up what was `saved`. A terminal
        with `few_colours` shows its own sixteen."""
        self._few_colours = few_colours or "NO_COLOR" in os.environ  # then styles use attributes
        self.preferences = preferences or Preferences()
        super().__init__(workspace, sae_id, saved, state_file, preferences)
        self.animation_level = "none"

    def opening_changed(self) -> None:
        self._refresh_header()

    @property
    def available_themes(self) -> dict[str, Theme]:
        return KNOWN

    def get_theme(self, theme_name: str) -> Theme | None:
        # Completed when it is shown: all of them would take a fifth of a second at the start.
        if theme_name not in KNOWN:
            return None
        if self._few_colours:
            return in_sixteen_colours(theme_name)
        return theme(theme_name, self.preferences.heat(KNOWN[theme_name].dark))

    def on_mount(self) -> None:
        saved = self.saved_state
        wanted = self.preferences.theme
        if saved.theme in self.available_themes and saved.theme_set == wanted:
            self.theme = saved.theme
        elif wanted:
            self.theme = wanted
        self._tell_mistakes(self.preferences.mistakes)
        for take_up in (self.take_up_history, self.take_up_drafts):
            try:
                take_up(saved)
            except MiCrowError as error:
                self.tell(error)
        if self.context.sae_id:
            self.switch_mode("features")
            return
        if saved.sae_id and self._has_sae(saved.sae_id):
            self.context.sae_id = saved.sae_id
        if saved.screen in SCREENS and saved.screen != self.DEFAULT_MODE:
            self.switch_mode(saved.screen)

    def _tell_mistakes(self, mistakes: Sequence[str]) -> None:
        """Tells a few one by one; more would cover the screen, so they only go into the list."""
        many = len(mistakes) > MOST_TOLD
        for sentence in mistakes:
            self.notify(printable(sentence), severity="warning", quiet=many)
        if many:
            lists = f"{key('app.messages')} lists them"
            self.notify(f"{len(mistakes)} mistakes in your settings", way=lists, severity="warning")

    def _has_sae(self, sae_id: str) -> bool:
        try:
            return self.context.workspace.sae_dir(sae_id).is_dir()
        except MiCrowError:
            return False

    def current_state(self) -> SavedState:
        screens = dict(self.saved_state.screens)
        for name, stack in self._screen_stacks.items():
            screen = stack[0] if stack else None
            if isinstance(screen, MiCrowScreen) and screen.is_mounted:
                with suppress(NoMatches):  # its widgets are still being made
                    screens[name] = screen.whole_state()
        return SavedState(
            self.current_mode,
            self.context.sae_id,
            self.theme,
            screens,
            self.preferences.theme,
            self.history.as_json(),
            tuple(drafts_as_json(self)),
        )

    def exit(self, *arguments: Any, **settings: Any) -> None:
        self.keep_state(now=True)
        super().exit(*arguments, **settings)

    @property
    def base_screen(self) -> MiCrowScreen | None:
        """The screen of the current mode, below any popup."""
        screen = self.screen_stack[0]
        return screen if isinstance(screen, MiCrowScreen) else None

    async def action_go(self, name: str) -> None:
        await self.go(name)

    def action_escape(self) -> None:
        if self.base_screen is not None:
            self.base_screen.action_escape()

    def action_zoom(self) -> None:
        if self.base_screen is not None:
            self.base_screen.action_zoom()

    def action_jump(self) -> None:
        from tui.widgets.frame.jump import JumpPopup, targets

        async def jump(chosen: Widget | str | None) -> None:
            if isinstance(chosen, Widget):
                chosen.focus()
            elif chosen is not None:
                await self.go(chosen)

        if isinstance(self.screen, MiCrowScreen) or len(targets(self.screen)) > 1:
            self.push_screen(JumpPopup(self.screen), jump)
        else:
            self.notify("There is one pane here")

    def action_help(self) -> None:
        from tui.widgets.frame.help import HelpPopup, help_over, screen_scopes
        from tui.widgets.frame.popup import Popup

        if isinstance(self.screen, Popup):
            self.push_screen(help_over(self.screen, self.keymap))
        else:
            self.push_screen(HelpPopup(screen_scopes(self.current_mode), self.keymap))

    def action_palette(self) -> None:
        from tui.widgets.frame.palette import PalettePopup

        if not any(isinstance(one, PalettePopup) for one in self.screen_stack):
            self.push_screen(PalettePopup(self.screen, self.keymap), self._run_chosen)

    async def _run_chosen(self, chosen: tuple[str, Widget | None] | None) -> None:
        """Does the action chosen in the palette, on its own screen when that is another one."""
        if chosen is None:
            return
        try:
            await self.perform(BY_ID[chosen[0]], chosen[1])
        except UserError as error:
            self.notify(str(error), severity="warning")

    async def perform(self, action: Action, focused: Widget | None) -> None:
        """Does `action` on its own screen, with the focus where it was chosen. Raises UserError
        when it is not possible there."""
        from tui.widgets.frame.palette import node_for, possible

        if action.scope == "app":
            await self.run_action(action.action, default_namespace=self)
            return
        if action.scope in SCREENS and action.scope != self.current_mode:
            await self.go(action.scope)
            focused = self.screen.focused
        node = node_for(action, self.screen, focused) or self.screen
        if not possible(action, node):
            raise UserError(f"{action.help}: not possible for what is selected")
        await self.run_action(action.action, default_namespace=node)

    def action_next_theme(self) -> None:
        names = list(OWN)
        at = names.index(self.theme) if self.theme in names else -1
        self.theme = names[(at + 1) % len(names)]

    def action_themes(self) -> None:
        from tui.widgets.frame.themes import ThemesPopup

        self.push_screen(ThemesPopup(self.theme))

    def action_settings(self) -> None:
        from tui.preferences.editing import edited

        try:
            preferences = edited(self)
        except (MiCrowError, OSError, SuspendNotSupported) as error:
            self.tell(error)
            return
        if preferences is not None:
            self.prefer(preferences)
            self.notify("Your settings are changed")

    def prefer(self, preferences: Preferences) -> None:
        """Takes up other settings; what did not change in them stays as it is on the screen."""
        before, self.preferences = self.preferences, preferences
        if preferences.keymap != before.keymap:
            self.set_keymap(preferences.keymap.as_textual())
            self.context.publish(messages.KeysChanged())
        self.context.device = preferences.device
        if preferences.theme not in ("", before.theme, self.theme):
            self.theme = preferences.theme
        elif preferences.heat(True) != before.heat(True) or preferences.heat(False) != before.heat(
            False
        ):
            self._watch_theme(self.theme)
        features = preferences.columns if preferences.columns != before.columns else None
        lists = {
            name: preferences.columns_of(name)
            for name in LISTS
            if preferences.columns_of(name) != before.columns_of(name)
        }
        if features is not None or lists:
            self.context.publish(messages.ColumnsChanged(features, lists))

    def action_messages(self) -> None:
        from tui.widgets.frame.message_list import MessagesPopup

        self.clear_notifications()  # they are in the list, and would cover it
        self.push_screen(MessagesPopup(self.message_log.read()), self.show_place)
        self._refresh_header()

    async def show_place(self, place: Place | None) -> None:
        """Goes where a message points to; what is open over that screen is closed."""
        from tui.widgets.frame.popup import Popup

        if place is None:
            return
        if place.screen == "features" and self.context.find_sae(place.key) is None:
            self.tell_gone(place.key)
            return
        await self.go(place.screen)
        for popup in reversed(self.screen_stack[1:]):
            if isinstance(popup, Popup):
                popup.leave()
        if place.screen == "features":
            self.open_sae(place.key)
        else:
            await self.go(place.screen, messages.ShowInRuns(place.rows, place.key))

    def action_picture(self) -> None:
        from tui.screens.picture import PicturePopup, picture_name, taken

        def saved(path: str | None) -> None:
            if path is not None:
                self.notify(printable(f"Saved the picture to {path}"))

        if any(isinstance(one, PicturePopup) for one in self.screen_stack):
            return  # it would be of the question where to write one
        self.push_screen(PicturePopup(*taken(self), picture_name(self.current_mode)), saved)

    async def on_event(self, event: Event) -> None:
        """While nothing fits on the terminal, keys do nothing that nobody would see."""
        size = self.size
        if isinstance(event, Key | Paste | Burst) and (
            size.width < LEAST_COLUMNS or size.height < LEAST_LINES
        ):
            quits = self.keymap.get("app.quit", BY_ID["app.quit"].keys).split(",")
            if isinstance(event, Key) and event.key in quits:
                self.exit()
            return
        await super().on_event(event)

    def pasted_nowhere(self) -> None:
        opens = _FIELDS.get(self.current_mode) if len(self.screen_stack) == 1 else None
        way = f"{key(opens)} opens one" if opens else ""
        said = "Pasted text needs a field: nothing was done with it"
        self.notify(said, way=way, severity="warning")

    def action_copy(self) -> None:
        copy_focused(self)

    def action_help_quit(self) -> None:
        """Whoever presses ctrl+c most often means one of two things."""
        self.notify(f"{key('app.quit')} quits · {key('app.copy')} copies what has the focus")

    def action_undo(self) -> None:
        write(self, undo)

    def action_redo(self) -> None:
        write(self, redo)


async def _answer(app: MiCrowApp, request: JsonObject) -> dict[str, Any]:
    """What another program that asked is told."""
    from tui.remote.commands import RemoteCommands

    return await RemoteCommands(app).answer(request)


def run(
    workspace: Workspace,
    sae_id: str | None = None,
    *,
    fresh: bool = False,
    settings: UserSettings | None = None,
    damage: str = "",
) -> int:
    """Opens the app where it was left, or `fresh`; returns its exit code when it has ended. Jobs
    continue. `damage` says why there are no `settings`, and what is wrong with some is told.

    Raises the error that broke it.
    """
    keep_little()
    file, saved = StateFile(workspace.root), SavedState()
    settings = settings or UserSettings()
    troubles = [damage] if damage else []
    if not fresh:
        try:
            saved = file.read()
        except (MiCrowError, OSError) as error:
            troubles.append(f"what was open last is not restored: {error_sentence(error)}")
    preferences = Preferences.of(settings)
    preferences = replace(preferences, mistakes=all_mistakes(settings, preferences))
    app = MiCrowApp(workspace, sae_id, saved, file, preferences, few_colours=has_few_colours())
    for trouble in troubles:
        app.call_later(app.notify, printable(trouble), severity="warning")
    with ExitStack() as until_end:

        def offer_remote_control() -> None:
            from tui.remote.server import RemoteControl

            until_end.enter_context(RemoteControl(app, partial(_answer, app)))

        app.call_later(app.set_timer, OFFERED_S, offer_remote_control)
        return run_to_its_end(app, until_end.close)
