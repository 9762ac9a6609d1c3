"""The app as its screens know it: the look at the workspace each second, the open SAE, the way
between screens."""

import contextlib
import gc
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Any

from textual.app import ScreenStackError
from textual.message import Message
from textual.widget import Widget

from mi_crow.errors import MiCrowError
from mi_crow.store.json_object import JsonObject
from mi_crow.store.workspace import Workspace
from mi_crow.visible import visible_lines
from tui import messages
from tui.action_tables.writing import FILES
from tui.actions import MOVES, SCREENS
from tui.allocation import Garbage
from tui.annotate import TAGGING_OFF
from tui.clipboard import copied_by_tmux
from tui.context import AppContext, ConceptsLook
from tui.history import History, Visited
from tui.message_log import MessageLog, Place, Told
from tui.open_sae import OpensSaes
from tui.preferences.key_words import speak_of
from tui.preferences.preferences import Preferences
from tui.state import SavedState, StateFile
from tui.terminal.app import TerminalApp
from tui.text import brief, printable
from tui.threads import error_sentence, told_words
from tui.watch import Scan, ended, look, why_read_only
from tui.widgets.forms.drafts import take_up_drafts
from tui.widgets.frame.bound import ids_of
from tui.widgets.frame.endings import ending_line, news_line, next_step, place_of, way_there
from tui.widgets.frame.header import HeaderBar, show_tabs

POLL_SECONDS = 1.0
STARTED_S = 5.0  # after which garbage is collected


@dataclass(frozen=True)
class Look:
    """What a look at the workspace found; `trouble` says what it could not read."""

    scan: Scan | None = None
    concepts: ConceptsLook | None = None
    rebuilt: str = ""  # the SAE whose index was built again since it was opened
    read_only: str = ""  # why nothing in the workspace can be changed
    trouble: Exception | None = None


class Workbench(OpensSaes, TerminalApp):
    """Holds the state that screens share, and says on each change what changed."""

    def __init__(
        self,
        workspace: Workspace,
        sae_id: str | None = None,
        saved: SavedState | None = None,
        state_file: StateFile | None = None,
        preferences: Preferences | None = None,
    ) -> None:
        super().__init__()
        self.preferences = preferences or Preferences()
        self.set_keymap(self.preferences.keymap.as_textual())
        self.saved_state = saved or SavedState()  # as of the last start, until a screen has more
        self._state_file = state_file
        self._kept = True  # False after a write of the state that failed
        self.context = AppContext(workspace, sae_id, self.preferences.device)
        self.context.bind(self.post_message)
        self._scan: Scan | None = None
        self._concepts_version: int | None = None
        self.message_log = MessageLog()
        self.history = History()
        self._garbage = Garbage()
        self.going_to = ""  # the screen that is being made

    def on_mount(self) -> None:
        self.call_after_refresh(self._start_looking)
        if not gc.isenabled():
            self.set_timer(STARTED_S, self._garbage.begin)

    def on_unmount(self) -> None:
        self.context.close()

    def set_keymap(self, keymap: Mapping[str, str]) -> None:
        super().set_keymap(keymap)
        speak_of(keymap)

    @property
    def keymap(self) -> Mapping[str, str]:
        """The keys that are not those of the table of actions, by action."""
        return self._keymap

    def stays_in(self, focused: Widget | None, key: str) -> bool:
        """A character for a field, or a move in a list or a text."""
        if focused is None or super().stays_in(focused, key):
            return focused is not None
        return any(
            binding.id in MOVES and key in self._keymap.get(binding.id, binding.key).split(",")
            for bound in focused._bindings.key_to_bindings.values()
            for binding in bound
        )

    # What it tells.

    def notify(
        self,
        message: str,
        *,
        remedy: str = "",
        place: Place | None = None,
        way: str = "",
        quiet: bool = False,
        **settings: Any,
    ) -> None:
        """Shows `message` for some seconds and keeps it in the list of messages, with `remedy`,
        what to do about it, and `place`, where what it is about can be seen; `way`, the keys that
        lead there, are not for the list, which has one of its own. `quiet`: only in the list."""
        severity = settings.get("severity", "information")
        self.message_log.add(Told(time.time(), message, remedy, severity, place))
        if not quiet:
            super().notify("; ".join(filter(None, (brief(message), remedy, way))), **settings)
        if severity == "error":
            self.call_later(self._refresh_header)

    def tell_gone(self, name: str) -> None:
        """What somebody wants to see was removed meanwhile."""
        self.notify(printable(f"{name} is not there any more"), severity="warning")

    def copy_to_clipboard(self, text: str) -> None:
        """Copies what a field, the mouse or a key took, within tmux through tmux."""

        def done(through_tmux: bool) -> None:
            if not through_tmux:
                super(Workbench, self).copy_to_clipboard(text)

        if os.environ.get("TMUX"):
            self.in_thread(partial(copied_by_tmux, visible_lines(text)), done)
        else:
            done(False)

    async def run_action(
        self, action: Any, default_namespace: Any = None, namespaces: Any = None
    ) -> bool:
        """Does an action, unless it would write into a workspace that cannot be written."""
        why = self.context.read_only
        if why and not FILES.isdisjoint(ids_of(default_namespace, action)):
            self.notify(f"Nothing can be started or changed here: {why}", severity="warning")
            return True
        return await super().run_action(action, default_namespace, namespaces)

    # Looking at the workspace.

    def _start_looking(self) -> None:
        self.set_interval(POLL_SECONDS, self.look_now)
        self.look_now()

    def look_now(self) -> None:
        """Looks at the workspace in a thread, unless a look is under way."""
        self._garbage.look_at_rest(monotonic() - self.last_key_at)
        if not self.is_working("look"):
            self.in_thread(self._look, self._looked, group="look")

    def _look(self) -> Look:
        context = self.context
        scan, concepts, rebuilt, read_only, trouble = None, None, "", "", None
        try:
            context.check_session()
            scan = look(context.workspace, self._scan)
            read_only = why_read_only(context.workspace)
            concepts = context.look_at_concepts()
            store = context.features
            if store is not None:
                store.rest()
                rebuilt = store.meta().sae_id if store.changed_on_disk() else ""
        except (MiCrowError, OSError) as error:
            trouble = error
        except Exception as error:  # shown: a look that fails in silence leaves old rows
            trouble = MiCrowError(f"the workspace cannot be read ({error_sentence(error)})")
        return Look(scan, concepts, rebuilt, read_only, trouble)

    def _looked(self, found: Look) -> None:
        self._show_trouble(found)
        if found.rebuilt and not self.is_working("index"):
            self._open_index(found.rebuilt)
        if found.scan is None:
            return
        first = self._scan is None
        before, now = self._scan or Scan(), found.scan
        self._scan = now
        self.context.set_scan(now)
        self.follow_saes(before, now)
        if first or before.store() != now.store():
            self.context.publish(messages.WorkspaceChanged(now.runs, now.saes))
            self._refresh_header()
        elif before.folder_marks != now.folder_marks:
            self.context.publish(messages.FilesChanged())
        if first or before.jobs != now.jobs:
            self.context.publish(messages.JobsChanged(now.jobs))
            self._refresh_header()
            for job in ended(before.jobs, now.jobs):
                severity = "information" if job.status == "finished" else "warning"
                self.notify(
                    ending_line(job),
                    remedy=next_step(job),
                    place=place_of(job),
                    way=way_there(job),
                    severity=severity,
                )
        if found.concepts is not None:
            self._looked_at_concepts(found.concepts, first)
        self.open_some_sae()
        if not first:  # at the start there is other work, and nothing that would be lost
            self.keep_state()

    def _show_trouble(self, found: Look) -> None:
        """Keeps what is wrong with the workspace on every screen until it is over; told once."""
        context, before = self.context, self.context.trouble
        context.trouble = told_words(found.trouble) if found.trouble is not None else ("", "")
        if context.trouble != before:
            if found.trouble is not None:
                self.tell(found.trouble)
            else:
                self.notify("The workspace can be read again")
                self.context.publish(messages.WorkspaceBack())
        read_only = found.read_only if found.scan is not None else context.read_only
        if (context.trouble, read_only) != (before, context.read_only):
            context.read_only = read_only
            self._refresh_header(keys=True)

    def _looked_at_concepts(self, look: ConceptsLook, first: bool) -> None:
        off = look.tagging_off if not self.context.tagging_off else None
        for sentence in (look.notice, off and f"{TAGGING_OFF}: {off}"):
            if sentence:
                self.notify(printable(sentence), severity="warning")
        if look.news:
            self.notify(printable(news_line(look.news, self.context.annotations.actor)))
        if look.tagging_off != self.context.tagging_off:
            self.context.tagging_off = look.tagging_off
            self._refresh_header(keys=True)
        if first:
            self._concepts_version = look.version
        else:
            self.concepts_changed(look.version)

    def concepts_changed(self, version: int | None) -> None:
        """Has every screen read the annotations again when `version` is newer than what they show.

        Whoever writes calls it with the version after the write, so that the next look does not
        take the change for somebody else's.
        """
        known = self._concepts_version
        if version is not None and (known is None or version > known):
            self._concepts_version = version
            self.context.publish(messages.ConceptsChanged())

    # What the next start takes up.

    def current_state(self) -> SavedState:
        """What the app is doing now. The app says it, which knows its screens."""
        return self.saved_state

    def keep_state(self, *, now: bool = False) -> None:
        """Writes what changed since it was last written; in a thread unless it has to be `now`."""
        file, state = self._state_file, self.current_state()
        if file is None or (state == self.saved_state and (self._kept or not now)):
            return
        self.saved_state = state
        if not now:
            write = partial(file.write, state)
            self.in_thread(write, self._is_kept, group="state", failed=self._not_kept)
            return
        with contextlib.suppress(OSError):  # the app ends: there is nobody left to tell
            file.write(state)

    def _is_kept(self, _: None) -> None:
        self._kept = True

    def _not_kept(self, error: Exception) -> None:
        told, self._kept = not self._kept, False
        if told:  # once, not at every change until there is room again
            return
        self.notify(
            printable(f"what you see is not kept for the next start: {error_sentence(error)}"),
            severity="warning",
        )

    def on_session_changed(self, message: messages.SessionChanged) -> None:
        self.context.publish(messages.SessionChanged(message.state))
        self._refresh_header()

    def _refresh_header(self, *, keys: bool = False) -> None:
        with contextlib.suppress(ScreenStackError):  # the first screen is still being made
            for screen in self.screen_stack:
                for header in screen.query(HeaderBar):
                    header.refresh_lines()
                if keys:
                    screen.refresh_bindings()

    # Between screens.

    async def go(self, name: str, message: Message | None = None) -> None:
        """Switches to a screen and hands it `message` (OpenFeature, SendToSteer, ...)."""
        if name != self.current_mode:
            self.leave_place()
            if name not in self._screen_stacks:
                self.going_to = name
                show_tabs(self.screen)
            await self.switch_mode(name)
            self.going_to = ""
            self._refresh_header()
        if message is not None:
            self.screen_stack[0].post_message(message)

    @property
    def _place(self) -> Visited:
        screen = self.screen_stack[0]
        feature = getattr(screen, "open_feature", None)
        sae_id = self.context.sae_id if feature is not None else None
        return Visited(self.current_mode, feature, sae_id, getattr(screen, "is_alone", False))

    def leave_place(self) -> None:
        """Remembers what is open, before something else is opened in its place."""
        self.history.leave(self._place)

    def take_up_history(self, saved: SavedState) -> None:
        """Goes on with the history of the last start. Raises CorruptDataError."""
        places = JsonObject.of(saved.history, "the saved history")
        self.history = History.from_json(places, SCREENS)

    def take_up_drafts(self, saved: SavedState) -> None:
        """Goes on with the forms of the last start."""
        for sentence in take_up_drafts(self, saved.drafts, damaged=self.tell):
            self.notify(printable(sentence))

    async def action_back(self) -> None:
        self._forget_removed()
        await self._return_to(self.history.back(self._place), "Nothing was open before")

    async def action_forward(self) -> None:
        self._forget_removed()
        await self._return_to(self.history.forward(self._place), "Nothing was open after this")

    def _forget_removed(self) -> None:
        """Features of SAEs that are not in the workspace any more cannot be gone back to."""
        if self._scan is not None:
            known = {None, *(sae.sae_id for sae in self.context.saes())}
            self.history.keep(lambda place: place.sae_id in known)

    async def _return_to(self, place: Visited | None, nothing: str) -> None:
        if place is None:
            self.notify(nothing)
            return
        if place.screen != self.current_mode:
            await self.switch_mode(place.screen)
            self._refresh_header()
        if place.sae_id is not None and place.sae_id != self.context.sae_id:
            self.open_sae(place.sae_id)
        if not place.looks_like(self._place):
            back = messages.OpenFeature(place.feature, in_table=not place.alone)
            self.screen_stack[0].post_message(back)
