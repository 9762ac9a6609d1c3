"""Screen 3, Inspect: which features fire on a text, token by token."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widgets import Button, Static

from mi_crow.store.json_object import JsonObject
from tui import messages
from tui.actions import bindings
from tui.annotate import Naming, may_tag, name_feature
from tui.clipboard import copy
from tui.preferences.key_words import key
from tui.screens.feature_card import FeatureCard
from tui.screens.inspect.explaining import Explains, Shown
from tui.screens.inspect.inspection import Inspection, inspection_from
from tui.screens.inspect.rows import COLUMNS, feature_rows
from tui.screens.no_sae import no_sae
from tui.text import number, printable
from tui.widgets.field import Area
from tui.widgets.lists.row_list import RowList
from tui.widgets.prompt_line import PromptLine
from tui.widgets.token_heat import peak_index, quoted
from tui.widgets.token_pane import TokenPane
from tui.widgets.trouble import Trouble

if TYPE_CHECKING:
    from mi_crow.mechanistic.features.records import FeatureRow

TOP_FEATURES = 40


@dataclass(frozen=True)
class Inspected:
    """What the session found in a text, with the names of the features."""

    sae_id: str | None
    text: str
    inspection: Inspection
    rows: "Mapping[int, FeatureRow]"
    seconds: float


class InspectScreen(Explains):
    """A text with the activations of one feature, and the features of the text and of one token."""

    NAME = "inspect"
    HOME = "#inspect-tokens"
    CSS_PATH = ["../../widgets/widgets.tcss", "inspect.tcss"]
    BINDINGS = bindings("inspect")

    def __init__(self) -> None:
        super().__init__()
        self._windows = False  # whether a long text is read in windows or truncated
        self._naming: Naming | None = None
        self._asked_for: int | None = None  # a feature to look for, from another screen

    def compose_body(self) -> ComposeResult:
        with Horizontal(id="inspect-input"):
            yield Area(id="inspect-text", placeholder="Type or paste a text")
            with Vertical(id="inspect-run"):
                yield Button(_run_label(), id="inspect-button", compact=True)
                yield Static(id="inspect-status", classes="hint", markup=False)
        with Horizontal(id="inspect-body"):
            with Vertical(id="inspect-left", classes="pane -across -shown"):
                yield Static(id="inspect-title", markup=False)
                yield Trouble(id="inspect-trouble")
                yield TokenPane(id="inspect-tokens")
            with Vertical(id="inspect-right", classes="pane -across"):
                yield Trouble(id="names-trouble")
                with Vertical(classes="inspect-list"):
                    yield Static(id="title-text", classes="related-title", markup=False)
                    yield RowList(COLUMNS, id="list-text")
                with Vertical(classes="inspect-list"):
                    yield Static(id="title-token", classes="related-title", markup=False)
                    yield RowList(COLUMNS, empty="none", id="list-token")
        yield FeatureCard(self.context)
        yield PromptLine()

    def on_mount(self) -> None:
        self._sae_id = self.context.sae_id
        self._show_titles()

    @property
    def tokens(self) -> TokenPane:
        return self.query_one(TokenPane)

    @property
    def token(self) -> int | None:
        return self.tokens.token

    @property
    def area(self) -> Area:
        return self.query_one("#inspect-text", Area)

    @property
    def prompt(self) -> PromptLine:
        return self.query_one(PromptLine)

    # What comes back at the next start.

    def state(self) -> dict[str, Any]:
        shown = {"order": self._shown.order, "which": self._shown.which}
        return {"text": self.area.text, "windows": self._windows, **shown}

    def restore(self, saved: JsonObject) -> None:
        self._windows = saved.flag("windows", False)
        self._shown = Shown.restored(saved)
        self.area.text = saved.text("text", "")

    # Asking the session.

    def on_send_to_inspect(self, message: messages.SendToInspect) -> None:
        self._asked_for = message.feature
        if message.text is not None and message.text.strip() != self.area.text.strip():
            self.area.text = message.text
            self.action_run()
        elif self._inspection.tokens:
            self._look_for()
        elif self.area.text.strip():
            self.action_run()

    @on(Button.Pressed, "#inspect-button")
    def action_run(self) -> None:
        text = self.area.text
        if self.is_working("inspect"):
            return
        if not text.strip():
            self._say("type a text first")
            return
        self.leave_field()  # what is typed from here on is meant for the screen
        self._say("reading…" if self.context.session_is_ready else "loading the model…")
        self.in_thread(
            partial(self._inspect, text, self._sae_id),
            self._inspected,
            group="inspect",
            failed=self._not_inspected,
            trouble=self.query_one("#inspect-trouble", Trouble),
        )

    def _inspect(self, text: str, sae_id: str | None) -> Inspected:
        client = self.context.ready_session(sae_id)
        started = monotonic()
        result = client.call(
            "inspect",
            text=text,
            top=TOP_FEATURES,
            sae_id=sae_id,
            windows=self._windows,
            **self._shown.asked(),
        )
        inspection = inspection_from(result)
        seconds = monotonic() - started
        return Inspected(sae_id, text, inspection, self._names(inspection, sae_id), seconds)

    def _names(self, inspection: Inspection, sae_id: str | None) -> "dict[int, FeatureRow]":
        store, features = self.context.features, inspection.features()
        if store is None or not features or store.meta().sae_id != sae_id:
            return {}
        store.refresh_concepts()
        return {row.feature: row for row in store.rows(features)}

    def _not_inspected(self, error: Exception) -> None:
        self._say("failed")
        self.tell(error)

    def _inspected(self, read: Inspected) -> None:
        if read.sae_id != self._sae_id:
            self._say("")
            self.notify(
                f"Another SAE was opened meanwhile; {key('inspect.run')} inspects the text with it"
            )
            return
        found = read.inspection
        self._inspection, self._rows, self.text_read = found, read.rows, read.text
        self._say(f"{found.reading()}\n{read.seconds:.2f} s")
        self.tokens.show(found.tokens, found.excluded)
        self._show_lists()
        self._look_for()

    def on_sae_changed(self, message: messages.SaeChanged) -> None:
        if message.sae_id != self._sae_id:
            self._sae_id, self._feature, self._rows = message.sae_id, None, {}
            self._pinned.clear()
            self.query_one(FeatureCard).show_feature(None)
            for trouble in self.query(Trouble):
                trouble.clear()
            self._inspection = Inspection()  # its numbers are another SAE's features
            self.tokens.show(())
            self._show_lists()
            self.query_one("#list-token", RowList).set_rows(())
            self.query_one("#title-token", Static).update("")
            self._show_titles()
        elif message.ready and self._inspection.tokens:
            self._reread_names()

    def on_workspace_changed(self, _: messages.WorkspaceChanged) -> None:
        self._show_titles()

    def on_keys_changed(self, _: messages.KeysChanged) -> None:
        self.query_one("#inspect-button", Button).label = _run_label()
        self._show_titles()

    def on_concepts_changed(self, _: messages.ConceptsChanged) -> None:
        if self._inspection.tokens:
            self._reread_names()

    def _reread_names(self) -> None:
        inspection, sae_id = self._inspection, self._sae_id
        self.in_thread(
            partial(self._names, inspection, sae_id),
            partial(self._renamed, inspection),
            group="names",
            trouble=self.query_one("#names-trouble", Trouble),
        )

    def _renamed(self, inspection: Inspection, rows: "Mapping[int, FeatureRow]") -> None:
        if inspection is not self._inspection:
            return  # the names of another text's features, perhaps of another SAE's
        self._rows = rows
        self._show_lists()
        self._show_token_list()
        self._show_titles()

    def stop_running(self) -> bool:
        if not self.is_working("inspect") and not self.is_working("explain"):
            return False
        self.in_thread(partial(self.context.session.interrupt, None))
        return True

    def close_popup(self) -> bool:
        return self.prompt.close()

    # What is shown.

    def _say(self, text: str) -> None:
        self.query_one("#inspect-status", Static).update(text)

    def _show_lists(self) -> None:
        top = self.query_one("#list-text", RowList)
        top.set_rows(feature_rows(self._inspection.top, self._rows, self._pinned))
        needed = max(len(top.rows) + 1, self.tokens.row_count + 2, 8)
        self.query_one(FeatureCard).give(self.query_one("#inspect-body"), needed)

    def _look_for(self) -> None:
        """Shows the activations of the feature that was asked for, else of the strongest."""
        wanted, self._asked_for = self._asked_for, None
        top = self.query_one("#list-text", RowList)
        if wanted is None and self._inspection.top:
            wanted = self._inspection.top[0][0]
        if wanted is not None:
            top.select(str(wanted))
            self._heat(wanted)
            peak = peak_index(self._inspection.acts_of(wanted))
            if peak is not None:
                self.tokens.cursor = peak
        self._show_token_list()

    def _heat(self, feature: int) -> None:
        self._feature = feature
        self.tokens.heat(self._inspection.acts_of(feature))
        self.query_one(FeatureCard).show_feature(feature)
        self._show_titles()
        self.refresh_bindings()

    def _show_titles(self) -> None:
        self.set_class(not self._inspection.tokens, "-nothing")
        self.query_one("#inspect-title", Static).update(self._title())
        title = _heading("In the text", self._inspection.top, self._shown.words())
        self.query_one("#title-text", Static).update(title)

    def _title(self) -> Content:
        if self._feature is None:
            return Content.styled(no_sae(self.context) or _hello(), "$muted")
        acts = self._inspection.acts_of(self._feature)
        row = self._rows.get(self._feature)
        parts: list[str | tuple[str, str]] = [(f"#{self._feature}", "bold $primary")]
        if row is not None and row.meaning:
            style = "$accent" if row.concept else "$muted"
            parts.append((f"  {printable(row.meaning)}", style))
        peak = peak_index(acts)
        if peak is None:
            parts.append(("   does not fire on this text", "$muted"))
        else:
            token = quoted(self._inspection.tokens[peak])
            parts += [("   peak ", "$muted"), token, (f" {number(acts[peak], 2)}", "bold $accent")]
        return Content.assemble(*parts)

    def _show_token_list(self) -> None:
        found, token = self._inspection, self.tokens.token
        if token is None or token >= len(found.per_token):
            return
        title = Content.assemble(("At ", "bold $primary"), quoted(found.tokens[token]))
        why = found.why_excluded(token)
        if why:
            title = Content.assemble(title, (f"  {why}", "$warning"))
        elif self._feature is not None:
            act = found.acts_of(self._feature)[token]
            title = Content.assemble(title, (f"  #{self._feature} {number(act, 2)}", "$muted"))
        self.query_one("#title-token", Static).update(title)
        rows = self.query_one("#list-token", RowList)
        rows.set_rows(feature_rows(found.per_token[token], self._rows, self._pinned))
        if not rows.has_focus:
            rows.action_first()

    @on(TokenPane.Moved)
    def _token_moved(self) -> None:
        self._show_token_list()

    @on(RowList.Highlighted)
    def _feature_chosen(self, event: RowList.Highlighted) -> None:
        if event.key is not None and event.row_list.has_focus:
            self._heat(int(event.key))

    @on(RowList.Opened)
    async def _open_feature(self, event: RowList.Opened) -> None:
        await self.mi_crow.go("features", messages.OpenFeature(int(event.key)))

    @on(TokenPane.Opened)
    async def _open_token(self) -> None:
        if self._feature is not None:
            await self.mi_crow.go("features", messages.OpenFeature(self._feature))

    # Actions.

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action in ("steer", "tag", "copy", "pin"):
            return self._feature is not None
        return True

    def action_edit_text(self) -> None:
        self.area.focus()

    def action_pin(self) -> None:
        super().action_pin()
        self._show_lists()
        self._show_token_list()

    def action_windows(self) -> None:
        """Switches between reading a long text in windows of the context and truncating it."""
        self._windows = not self._windows
        self.action_run()

    async def action_steer(self) -> None:
        if self._feature is not None:
            await self.mi_crow.go("steer", messages.SendToSteer(self._feature, self._sae_id))

    def action_tag(self) -> None:
        if self._feature is None or self._sae_id is None or not may_tag(self.mi_crow):
            return
        row = self._rows.get(self._feature)
        self._naming = Naming(self._sae_id, self._feature, row.concept if row else None)
        value = row.meaning if row is not None else ""
        self.prompt.ask("tag", f"#{self._feature} is", value, select=True)

    @on(PromptLine.Answered)
    def _answered(self, message: PromptLine.Answered) -> None:
        name_feature(self.mi_crow, self._naming, message.value)

    def action_copy(self) -> None:
        found, token = self._inspection, self.tokens.token
        if self.tokens.has_focus and token is not None:
            copy(self.mi_crow, _as_lines(found.per_token[token]), "the token's features")
        else:
            copy(self.mi_crow, _as_lines(found.top), "the text's features")


def _heading(title: str, pairs: Sequence[object], how: str) -> Content:
    return Content.assemble(
        (title, "bold $primary"),
        (f"  {len(pairs)} features" if pairs else "", "$muted"),
        (f"  {how}" if how else "", "$accent"),
    )


def _hello() -> str:
    text, run = key("inspect.text"), key("inspect.run")
    return f"{text} writes a text, {run} shows which features fire on it"


def _run_label() -> str:
    return f"Run  {key('inspect.run')}"


def _as_lines(pairs: Sequence[tuple[int, float]]) -> str:
    return "\n".join(f"{feature}\t{act:.4f}" for feature, act in pairs)
