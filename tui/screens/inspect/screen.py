"""Screen 3, Inspect: which features fire on a text, token by token."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widgets import Button, Static

from mi_crow.store.json_object import JsonObject
from tui import messages
from tui.actions import bindings
from tui.annotate import Naming, may_tag, name_feature, naming_mistake
from tui.clipboard import copy
from tui.preferences.key_words import key
from tui.screens.feature_card import FeatureCard
from tui.screens.inspect.explained import token_labels
from tui.screens.inspect.grid_vectors import HasGridVectors
from tui.screens.inspect.inspection import Inspection, inspection_from
from tui.screens.inspect.keeping import Found
from tui.screens.inspect.reading import Inspected, Reads
from tui.screens.inspect.rows import COLUMNS, feature_rows, feature_title
from tui.screens.inspect.saved import SavedInspectionsScreen
from tui.screens.inspect.shown import Shown
from tui.screens.inspect.sources import TakesTexts
from tui.screens.no_sae import no_sae
from tui.text import number
from tui.widgets.area import Area
from tui.widgets.lists.row_list import ListHeading, RowList
from tui.widgets.prompt_line import PromptLine
from tui.widgets.token_heat import peak_index, quoted
from tui.widgets.token_pane import TokenPane
from tui.widgets.trouble import Trouble
from tui.widgets.words import Words

if TYPE_CHECKING:
    from mi_crow.mechanistic.concepts.annotations_inspections import SavedInspection
    from mi_crow.mechanistic.features.records import FeatureRow


class InspectScreen(HasGridVectors, Reads, TakesTexts, SavedInspectionsScreen):
    """A text with the activations of one feature, and the features of the text and of one token."""

    NAME = "inspect"
    HOME = "#inspect-tokens"
    CSS_PATH = ["../../widgets/widgets.tcss", "inspect.tcss"]
    BINDINGS = bindings("inspect")

    def __init__(self) -> None:
        super().__init__()
        self._naming: Naming | None = None
        self._asked_for: int | None = None  # a feature to look for, from another screen
        self._labelled = False  # whether the first features stand under each token

    def compose_body(self) -> ComposeResult:
        with Horizontal(id="inspect-input"):
            yield Area(id="inspect-text", placeholder="Type or paste a text")
            with Vertical(id="inspect-run"):
                yield Button(_run_label(), id="inspect-button", compact=True)
                yield Words(id="inspect-status", classes="hint", markup=False)
        with Horizontal(id="inspect-body"):
            with Vertical(id="inspect-left", classes="pane -across -shown"):
                yield Words(id="inspect-title", markup=False)
                yield Trouble(id="inspect-trouble")
                yield Trouble(id="explain-trouble")
                yield TokenPane(id="inspect-tokens")
            with Vertical(id="inspect-right", classes="pane -across"):
                yield Trouble(id="names-trouble")
                with Vertical(classes="inspect-list"):
                    yield Static(id="title-text", classes="related-title", markup=False)
                    yield from _titled(RowList(COLUMNS, empty=self._none_left, id="list-text"))
                with Vertical(classes="inspect-list"):
                    yield Static(id="title-token", classes="related-title", markup=False)
                    yield from _titled(RowList(COLUMNS, empty="none", id="list-token"))
        yield FeatureCard(self.context)
        yield PromptLine()

    def on_mount(self) -> None:
        self._sae_id = self.context.sae_id
        self._show_titles()
        self.call_after_refresh(self._show_lists)  # now the room is known

    @property
    def tokens(self) -> TokenPane:
        return self.query_one(TokenPane)

    @property
    def token(self) -> int | None:
        return self.tokens.token

    @property
    def found(self) -> Found | None:
        return self._found

    # What comes back at the next start.

    def state(self) -> dict[str, Any]:
        shown = {"order": self._shown.order, "which": self._shown.which}
        how = {"windows": self._windows, "labelled": self._labelled}
        text = {"text": self.area.text, "against": self._against}
        return {**text, **how, **shown, **self.grid_vectors_state()}

    def restore(self, saved: JsonObject) -> None:
        self._windows = saved.flag("windows", False)
        self._labelled = saved.flag("labelled", False)
        self._shown = Shown.restored(saved)
        self.restore_grid_vectors(saved)
        self._against = saved.text("against", "")
        self.area.text = saved.text("text", "")

    # What is read.

    def on_send_to_inspect(self, message: messages.SendToInspect) -> None:
        self._asked_for = message.feature
        if message.text is not None and message.text.strip() != self.area.text.strip():
            self.take_text(message.text)
        elif self._inspection.tokens:
            self._look_for()
        elif self.area.text.strip():
            self.action_run()

    def inspected(self, read: Inspected) -> None:
        asked = read.asked
        if asked.sae_id != self._sae_id:
            self._say("")
            self.notify(
                f"Another SAE was opened meanwhile; {key('inspect.run')} inspects the text with it"
            )
            return
        sae_ids = (asked.sae_id,) if asked.sae_id else ()
        model = self.context.session_state.model_id
        found = Found("inspect", asked.text, read.results, sae_ids, model, asked.settings())
        self._show(found, read.inspection, read.rows)
        self._say(f"{read.inspection.reading()}\n{read.seconds:.2f} s")

    def show_saved(self, saved: "SavedInspection") -> None:
        inspection = inspection_from(saved.results)
        if self.put_text(saved.text):
            self.notify("Undo in the field, ctrl+z, brings back what was typed")
        self._show(Found.of(saved), inspection, {})
        self._say(f"{inspection.reading()}\nsaved")
        self._reread_names()

    def _show(self, found: Found, inspection: Inspection, rows: "Mapping[int, FeatureRow]") -> None:
        self._found, self.text_read = found, found.text
        self.query_one("#explain-trouble", Trouble).clear()  # it was about another text
        self._inspection, self._rows = inspection, rows
        self.tokens.show(inspection.tokens, inspection.excluded)
        self._put_under()
        self._show_lists()
        self._look_for()
        if self._drilled is not None:
            self.tokens.cursor, self._drilled = min(self._drilled, len(inspection.tokens) - 1), None

    def on_sae_renamed(self, message: messages.SaeRenamed) -> None:
        if self._sae_id == message.old:
            self._sae_id = message.new
        if self._found is not None:
            self._found = self._found.of_renamed(message.old, message.new)

    def on_sae_changed(self, message: messages.SaeChanged) -> None:
        if message.sae_id != self._sae_id:
            self._sae_id, self._feature, self._rows = message.sae_id, None, {}
            self._pinned.clear()
            self.query_one(FeatureCard).show_feature(None)
            for trouble in self.query(Trouble):
                trouble.clear()
            self._inspection, self._found = Inspection(), None  # of another SAE's features
            self.text_read = ""
            self.tokens.show(())
            self._show_lists()
            self.query_one("#list-token", RowList).set_rows(())
            self.query_one("#title-token", Static).update("")
            self._show_titles()
            saved, self._to_open = self._to_open, None
            if saved is not None and self._sae_id in saved.sae_ids:
                self.open_found(saved)
            elif self._drilled is not None:
                self.action_run()
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
            partial(self.names_of, inspection, sae_id),
            partial(self._renamed, inspection),
            group="names",
            trouble=self.query_one("#names-trouble", Trouble),
        )

    def _renamed(self, inspection: Inspection, rows: "Mapping[int, FeatureRow]") -> None:
        if inspection is not self._inspection:
            return  # the names of another text's features, perhaps of another SAE's
        self._rows = rows
        self._put_under()
        self._show_lists()
        self._show_token_list()
        self._show_titles()

    @property
    def can_stop(self) -> bool:
        return self.is_working("inspect") or self.is_working("explain")

    def stop_running(self) -> bool:
        if not self.can_stop:
            return False
        self.in_thread(partial(self.context.session.interrupt, None))
        return True

    # What is shown.

    def _say(self, text: str) -> None:
        self.query_one("#inspect-status", Words).update(text)

    def _put_under(self) -> None:
        labels = token_labels(self._inspection, self._rows) if self._labelled else ()
        self.tokens.put_under(labels)

    def _show_lists(self) -> None:
        top = self.query_one("#list-text", RowList)
        found = self._inspection
        top.bring(*found.extra_columns)
        top.set_rows(feature_rows(found.top, self._rows, self._pinned, found.layers))
        needed = max(len(top.rows) + 2, self.tokens.row_count + 2, 8)
        self.query_one(FeatureCard).give(self.query_one("#inspect-body"), needed)

    def _none_left(self) -> str:
        if not self._inspection.tokens or self._shown.which == "all":
            return "none"
        return f"none of these; {key('inspect.show')} shows others"

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
        self.query_one("#inspect-title", Words).update(self._title())
        title = _heading("In the text", self._inspection.top, self._shown.words())
        self.query_one("#title-text", Static).update(title)

    def _title(self) -> Content:
        if self._feature is None:
            return Content.styled(no_sae(self.context) or _hello(), "$muted")
        found, row = self._inspection, self._rows.get(self._feature)
        return feature_title(found, self._feature, row, self.query_one("#inspect-title").size.width)

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
        rows.bring(*found.extra_columns)
        pairs = found.per_token[token]
        rows.set_rows(feature_rows(pairs, self._rows, self._pinned, found.layers))
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

    def action_next_look(self) -> None:
        """The text alone, or with the first features under each token."""
        self._labelled = not self._labelled
        self._put_under()

    def action_pin(self) -> None:
        super().action_pin()
        self._show_lists()
        self._show_token_list()

    async def action_steer(self) -> None:
        if self._feature is not None:
            await self.mi_crow.go("steer", messages.SendToSteer(self._feature, self._sae_id))

    def action_tag(self) -> None:
        if self._feature is None or self._sae_id is None or not may_tag(self.mi_crow):
            return
        row = self._rows.get(self._feature)
        self._naming = Naming(self._sae_id, self._feature, row.concept if row else None)
        value = row.meaning if row is not None else ""
        check = naming_mistake
        self.prompt.ask("tag", f"#{self._feature} is", value, check=check, select=True)

    @on(PromptLine.Answered)
    def _answered(self, message: PromptLine.Answered) -> None:
        if message.purpose == "tag":
            name_feature(self.mi_crow, self._naming, message.value)
        elif message.purpose == "export":
            self.export_to(message.value)
        elif not self.vector_answered(message.purpose, message.value):
            self.answered_source(message.purpose, message.value)

    def action_copy(self) -> None:
        found, token = self._inspection, self.tokens.token
        if self.tokens.has_focus and token is not None:
            copy(self.mi_crow, _as_lines(found.per_token[token]), "the token's features")
        else:
            copy(self.mi_crow, _as_lines(found.top), "the text's features")


def _titled(rows: RowList) -> ComposeResult:
    yield ListHeading("feature", rows, counted=False)
    yield rows


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
