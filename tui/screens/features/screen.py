"""Screen 2, Features: the table of all features beside the open one."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.widgets import Static

from mi_crow.errors import NotFoundError, UserError
from mi_crow.mechanistic.features.query_language import REFERENCE, completions
from mi_crow.store.json_object import JsonObject
from mi_crow.visible import visible
from tui import messages
from tui.actions import bindings
from tui.annotate import Naming, may_tag, name_feature
from tui.clipboard import copy
from tui.screens.base import MiCrowScreen
from tui.screens.features.detail import FeatureDetailPane
from tui.screens.features.heading import TableHeading
from tui.screens.features.query import TableQuery, mistake_in, understood
from tui.screens.features.reading import DetailRead, IdsRead, read_detail, read_ids, vocabulary
from tui.screens.features.welcome import welcome
from tui.threads import error_sentence
from tui.widgets.example_list import ExampleList
from tui.widgets.lists.feature_table import FeatureTable
from tui.widgets.prompt_line import PromptLine

if TYPE_CHECKING:
    from mi_crow.mechanistic.features.queries import FeatureStore
    from mi_crow.mechanistic.features.records import Example, FeatureRow


class FeaturesScreen(MiCrowScreen):
    """The table of features and the open one, to browse, name and send on."""

    NAME = "features"
    HOME = "#features-table"
    CSS_PATH = ["../../widgets/widgets.tcss", "features.tcss"]
    BINDINGS = bindings("features")

    def __init__(self) -> None:
        super().__init__()
        self._query = self._shown_query = TableQuery()  # asked for, and in the table
        self._sae_id: str | None = None
        self._total = 0
        self._reading: object = None  # what the thread for the pane reads
        self._requested: object = None  # index and query that the table shows or will show
        self._listed = False
        self._feature: int | None = None  # the feature to show
        self._band = 0
        self._wanted: int | None = None  # to be opened as soon as the index is there
        self._restored: int | None = None  # open when the app last ended
        self._visiting = False  # opened from another screen: escape leads back there
        self._error = ""
        self._naming: Naming | None = None

    def compose_body(self) -> ComposeResult:
        yield Static(id="features-welcome", markup=False)
        with Horizontal(id="features-body"):
            with Vertical(id="features-left"):
                yield TableHeading(id="features-heading")
                yield FeatureTable(id="features-table")
            yield FeatureDetailPane(id="feature-detail")
        yield PromptLine()

    def on_mount(self) -> None:
        self._sae_id = self.context.sae_id
        self._show_state()
        self._list_again()

    @property
    def table(self) -> FeatureTable:
        return self.query_one(FeatureTable)

    @property
    def pane(self) -> FeatureDetailPane:
        return self.query_one(FeatureDetailPane)

    @property
    def prompt(self) -> PromptLine:
        return self.query_one(PromptLine)

    # What changed elsewhere.

    def on_sae_changed(self, message: messages.SaeChanged) -> None:
        if message.sae_id != self._sae_id:
            self._sae_id, self._feature, self._band = message.sae_id, None, 0
            self.remove_class("-detail")
        self._error = message.error
        self._show_state()
        self._list_anew()

    def on_workspace_changed(self, _: messages.WorkspaceChanged) -> None:
        self._show_state()

    def on_concepts_changed(self, _: messages.ConceptsChanged) -> None:
        store = self.context.features
        if store is not None:
            self.in_thread(store.refresh_concepts, self._names_refreshed, group="names")

    def _names_refreshed(self, _: object) -> None:
        self.table.reread()
        self._open_anew()
        if self._query.show != "firing" or self._query.search:
            self._list_anew()

    def on_open_feature(self, message: messages.OpenFeature) -> None:
        self._visiting = True
        self._go_to(message.feature)

    # The table.

    def _show_state(self) -> None:
        """Either the table or a sentence that says what to do."""
        text = welcome(self.context.sae_id, self.context.sae(), self.context.features, self._error)
        self.set_class(text is not None, "-no-index")
        if text is not None:
            self.query_one("#features-welcome", Static).update(text)

    def _ask(self, query: TableQuery) -> None:
        self._query = query
        self._list_again()

    def _list_anew(self) -> None:
        """Reads the list again, though neither index nor query may have changed."""
        self._requested, self._listed = None, False
        self._list_again()

    def _list_again(self) -> None:
        store, query = self.context.features, self._query
        if store is None or self._requested == (store, query):
            return
        self._requested = (store, query)
        shown = self.table.row_count if self._listed else None
        self.query_one(TableHeading).show(query, shown, self._total)
        self.in_thread(
            partial(read_ids, store, query), self._list, group="ids", failed=self._not_listed
        )

    def _not_listed(self, error: Exception) -> None:
        """Rows and heading stay; a filter that does not fit the index is explained while it is
        typed, and dropped when it was kept."""
        self._listed = True
        self.query_one(TableHeading).show(self._shown_query, self.table.row_count, self._total)
        if self.prompt.is_open and self.prompt.purpose == "filter":
            self.prompt.explain(error_sentence(error))
            return
        self.tell(error)
        if isinstance(error, UserError) and self._query.search:
            self._ask(self._query.searching(""))

    def _list(self, read: IdsRead) -> None:
        store = self.context.features
        if store is None or read.store is not store:
            return  # another index was opened meanwhile; it is read next
        self._listed = True
        self._shown_query, self._total = read.query, read.total
        self.query_one(TableHeading).show(read.query, len(read.ids), read.total)
        self.table.show(read.ids, store.rows, "No features match")
        restored, self._restored = self._restored, None
        if self._wanted is not None:
            wanted, self._wanted = self._wanted, None
            self._go_to(wanted)
        elif restored is not None and self.table.go_to(restored):
            self._open(restored)
        elif self._feature is None and self.table.feature is not None:
            self._open(self.table.feature)
        elif self.pane.shown is None or self.pane.shown.store is not store:
            self._open_again()  # the index was built anew

    def _go_to(self, feature: int) -> None:
        """Opens a feature, without the filter when that hides it."""
        if self.context.features is None or not self._listed:
            self._wanted = feature
            return
        if not self.table.go_to(feature):
            everything = replace(self._query.searching(""), show="all")
            if self._query != everything:
                self._wanted = feature
                self._ask(everything)
            else:
                self.tell(NotFoundError(f"there is no feature {feature}"))
            return
        self._open(feature)
        self._enter_detail()

    @on(FeatureTable.Highlighted)
    def _highlighted(self, message: FeatureTable.Highlighted) -> None:
        if message.feature is not None:
            self._open(message.feature)

    @on(FeatureTable.Opened)
    def _opened(self, message: FeatureTable.Opened) -> None:
        self._visiting = False
        self._open(message.feature)
        self._enter_detail()

    # The open feature.

    def _open(self, feature: int) -> None:
        if feature != self._feature:
            self._feature, self._band = feature, 0
        self._open_again()

    @property
    def _request(self) -> "tuple[FeatureStore | None, int | None, int]":
        """What the pane should show."""
        return self.context.features, self._feature, self._band

    def _open_again(self) -> None:
        if not (self.is_working("detail") and self._reading == self._request):
            self._open_anew()

    def _open_anew(self) -> None:
        store, feature, band = self._reading = self._request
        if store is not None and feature is not None and self._detail_shows:
            self.in_thread(
                partial(read_detail, store, feature, band), self._show_feature, group="detail"
            )

    def _show_feature(self, read: DetailRead) -> None:
        if (read.store, read.feature, read.band) == self._request:
            self.pane.show(read)
            self.refresh_bindings()
        else:
            self._open_again()  # the cursor moved on, or another index was opened meanwhile

    @property
    def _detail_shows(self) -> bool:
        return any(self.has_class(name) for name in ("-detail", "-wide", "-very-wide"))

    def on_resize(self) -> None:
        self.call_after_refresh(self._open_again)

    def _enter_detail(self) -> None:
        self.add_class("-detail")
        self._open_again()
        self.pane.examples.focus()

    @property
    def _row(self) -> "FeatureRow | None":
        """The open feature's row, as far as it was read."""
        shown = self.pane.shown
        if shown is not None and shown.detail is not None and shown.feature == self._feature:
            return shown.detail.row
        row = self.table.row_at(self.table.cursor)
        return row if row is not None and row.feature == self._feature else None

    @on(FeatureDetailPane.Wanted)
    def _related(self, message: FeatureDetailPane.Wanted) -> None:
        self._go_to(message.feature)

    @on(ExampleList.Opened)
    async def _inspect_example(self, message: ExampleList.Opened) -> None:
        await self._to_inspect(message.example.text)

    # What comes back at the next start.

    def state(self) -> dict[str, Any]:
        return {"sae": self._sae_id, "feature": self._feature, **self._query.as_json()}

    def restore(self, saved: JsonObject) -> None:
        self._query = TableQuery.from_json(saved)
        if saved.text("sae", None) == self._sae_id:
            self._restored = saved.integer("feature", None, least=0)
        self._list_again()

    # Escape.

    def close_popup(self) -> bool:
        prompt = self.prompt
        if prompt.is_open:
            if prompt.purpose == "filter":
                self._ask(self._query.searching(""))
            return prompt.close()
        focused = self.focused
        if focused is not None and self.pane in focused.ancestors:
            if self._visiting:
                self._visiting = False
                return False
            self.remove_class("-detail")
            self.table.focus()
            return True
        if self._query.search:
            self._ask(self._query.searching(""))
            return True
        return False

    # Actions.

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action in ("filter", "next_sort", "reverse", "next_filter", "jump"):
            return self.context.features is not None and not self.prompt.is_open
        if action in ("tag", "steer", "inspect", "copy", "next_band", "step"):
            return self.context.features is not None and self._feature is not None
        return True

    def action_filter(self) -> None:
        known = vocabulary(self.context.features)
        self.prompt.ask(
            "filter",
            "/",
            self._query.search,
            suggestions=partial(completions, vocabulary=known),
            placeholder=REFERENCE,
            hint="enter keeps · esc clears",
            check=mistake_in,
        )

    def action_jump(self) -> None:
        self.prompt.ask("jump", "#", placeholder="feature number")

    def action_tag(self) -> None:
        row = self._row
        if row is None or self._sae_id is None or not may_tag(self.mi_crow):
            return
        self._naming = Naming(self._sae_id, row.feature, row.concept)
        self.prompt.ask(
            "tag",
            f"#{row.feature} is",
            row.concept or row.top_label or "",
            suggestions=[row.top_label] if row.top_label else (),
            placeholder="what the feature stands for",
            hint="enter saves · esc cancels",
            select=True,
        )

    @on(PromptLine.Typed)
    def _typed(self, message: PromptLine.Typed) -> None:
        if message.purpose == "filter":
            self._ask(self._query.searching(understood(message.value)))

    @on(PromptLine.Answered)
    def _answered(self, message: PromptLine.Answered) -> None:
        if message.purpose == "filter":
            self._ask(self._query.searching(message.value))
        elif message.purpose == "jump":
            number = message.value.removeprefix("#")
            if number.isdigit():
                self._go_to(int(number))
            elif number:
                self.tell(UserError(f"{number!r} is not a number"))
        elif message.purpose == "tag":
            name_feature(self.mi_crow, self._naming, message.value)

    def action_next_sort(self) -> None:
        self._ask(self._query.next_sort())

    def action_reverse(self) -> None:
        self._ask(replace(self._query, descending=not self._query.descending))

    def action_next_filter(self) -> None:
        self._ask(self._query.next_show())

    def action_next_band(self) -> None:
        shown = self.pane.shown
        self._band = (self._band + 1) % ((shown.bands if shown is not None else 0) + 1)
        self._open_again()

    def action_step(self, rows: int) -> None:
        self.table.cursor += rows

    async def action_steer(self) -> None:
        if self._feature is not None:
            await self.mi_crow.go("steer", messages.SendToSteer(self._feature, self._sae_id))

    async def action_inspect(self) -> None:
        store, feature = self.context.features, self._feature
        if self.pane.feature == feature:
            example = self.pane.examples.example
            await self._to_inspect(example.text if example is not None else None)
        elif store is not None and feature is not None:  # the pane is hidden and behind

            async def to_inspect(examples: "Sequence[Example]") -> None:
                await self._to_inspect(examples[0].text if examples else None)

            self.in_thread(partial(store.examples, feature, limit=1), to_inspect, group="strongest")

    async def _to_inspect(self, text: str | None) -> None:
        if self._feature is not None:
            await self.mi_crow.go("inspect", messages.SendToInspect(self._feature, text))

    def action_copy(self) -> None:
        examples = self.pane.examples
        if examples.has_focus and examples.example is not None:
            copy(self.mi_crow, examples.example.text, "the example's text")
        elif self._feature is not None:
            row = self._row
            name = visible((row.concept or row.top_label or "") if row is not None else "")
            copy(self.mi_crow, f"{self._feature}\t{name}".strip(), f"feature {self._feature}")
