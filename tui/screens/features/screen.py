"""Screen 2, Features: the table of all features beside the open one."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.widgets import Static

from mi_crow.mechanistic.features.catalogue import DEFAULT, OF_CONCEPTS
from mi_crow.store.json_object import JsonObject
from tui import messages
from tui.actions import bindings
from tui.annotate import Naming, may_tag, name_feature
from tui.screens.features.comparing import FeatureCompareScreen
from tui.screens.features.detail import FeatureDetailPane
from tui.screens.features.heading import TableHeading
from tui.screens.features.map import FeatureMapScreen, saved_colour
from tui.screens.features.map_place import saved_place
from tui.screens.features.marking import (
    BULK,
    MARKED_PURPOSES,
    saved_columns,
    saved_marks,
)
from tui.screens.features.naming import ask_name
from tui.screens.features.opening import saved_look
from tui.screens.features.query import TableQuery, understood
from tui.screens.features.welcome import welcome
from tui.screens.no_sae import making_one
from tui.widgets.lists.feature_table import FeatureTable
from tui.widgets.prompt_line import PromptLine
from tui.widgets.trouble import Trouble

if TYPE_CHECKING:
    from mi_crow.mechanistic.features.records import FeatureRow

OF_ITS_ORDER = ("sort_by", "columns", "reverse", "next_filter")
FOR_MARKS = tuple(
    f"features.{name}" for name in ("tag", "tags", "note", "remove", "steer", "compare", "export")
)
OF_THE_TABLE = ("filter", "next_sort", "sort_by", "columns", "reverse", "next_filter")
OF_THE_TABLE += ("jump", "map")


class FeaturesScreen(FeatureMapScreen, FeatureCompareScreen):
    """The table of features and the open one, to browse, name and send on."""

    NAME = "features"
    HOME = "#features-table"
    CSS_PATH = ["../../widgets/widgets.tcss", "features.tcss"]
    BINDINGS = bindings("features")

    def __init__(self) -> None:
        super().__init__()
        self.add_class("-no-index")  # later it would style every widget again
        self._naming: Naming | None = None
        self._names: Mapping[int, object] | None = None  # the concepts that are shown

    def compose_body(self) -> ComposeResult:
        yield Static(id="features-welcome", classes="stays", markup=False)
        with Horizontal(id="features-body"):
            with Vertical(id="features-left"):
                table = FeatureTable(id="features-table")
                yield TableHeading(table, id="features-heading")
                yield Trouble(id="table-trouble")
                yield table
            yield FeatureDetailPane(id="feature-detail")
        yield PromptLine()

    def on_mount(self) -> None:
        self._sae_id = self.context.sae_id
        self._take_usual(self.mi_crow.preferences.columns)
        self._show_state()
        self._list_again()

    # What changed elsewhere.

    def on_sae_renamed(self, message: messages.SaeRenamed) -> None:
        if self._sae_id == message.old:  # what is open and marked stays so
            self._sae_id = message.new
        if self._map_place is not None and self._map_place.sae_id == message.old:
            self._map_place = replace(self._map_place, sae_id=message.new)

    def on_sae_changed(self, message: messages.SaeChanged) -> None:
        if message.sae_id != self._sae_id:
            self._sae_id, self._feature, self._band = message.sae_id, None, 0
            self.table.marks.clear()
            self.remove_class("-detail")
        store = self.context.features
        self._names = store.concepts() if store is not None else None
        self._error = message.error
        if message.error:
            self._wanted = None
        self._show_state()
        self._list_anew()

    def on_workspace_changed(self, _: messages.WorkspaceChanged) -> None:
        self._show_state()
        if self.pane.shown is not None and not self.is_resting("detail"):
            self._look_elsewhere()

    def on_workspace_back(self, _: messages.WorkspaceBack) -> None:
        if self.trouble.display:
            self._list_anew()
        shown = self.pane.shown
        if shown is not None and shown.error is not None:
            self._open_again()

    def on_concepts_changed(self, _: messages.ConceptsChanged) -> None:
        store = self.context.features
        if store is not None:
            self.in_thread(store.refresh_concepts, self._names_refreshed, group="names")

    def _names_refreshed(self, _: object) -> None:
        store = self.context.features
        names = store.concepts() if store is not None else None
        if names is self._names:  # a change replaces them as a whole
            return
        self._names = names
        self._expect(None)  # it was read with the names from before
        self.table.reread()
        self._open_anew()
        by_names = self._query.sort in ("concept", *OF_CONCEPTS)
        if self._query.show != "firing" or self._query.search or by_names:
            self._list_anew()

    def on_open_feature(self, message: messages.OpenFeature) -> None:
        if message.feature is not None:
            self._go_to(message.feature, message.in_table)
        elif self.is_alone:
            self._to_table()

    def on_show_query(self, message: messages.ShowQuery) -> None:
        self.search(message.text)

    def on_keys_changed(self, _: messages.KeysChanged) -> None:
        self._show_state()

    def _show_state(self) -> None:
        """Either the table or a sentence that says what to do."""
        context = self.context
        text = welcome(
            context.sae_id,
            context.sae(),
            context.features,
            self._error,
            looked=context.has_looked,
            making=making_one(context),
        )
        self.set_class(text is not None, "-no-index")
        if text is not None:
            self.query_one("#features-welcome", Static).update(text)

    # What comes back at the next start.

    def state(self) -> dict[str, Any]:
        return {
            "sae": self._sae_id,
            "feature": self._feature,
            "detail": self.has_class("-detail"),
            "columns": list(self._columns),
            "columns_set": list(self.mi_crow.preferences.columns),
            "layers_hidden": self._layers_hidden,
            "map_colour": self._map_colour,
            "map": self.map_place.as_json() if self.map_place is not None else None,
            "marks": self.table.marks.as_json(),
            "look": self.pane.examples.look,
            **self._query.as_json(),
        }

    def restore(self, saved: JsonObject) -> None:
        self._query = TableQuery.from_json(saved)
        default = self.mi_crow.preferences.columns
        if saved.array("columns_set", list(DEFAULT)) == list(default):  # else those are newer
            self._columns = saved_columns(saved)
            self._layers_hidden = saved.flag("layers_hidden", self._layers_hidden)
        self.pane.examples.look = saved_look(saved)
        self._map_colour = saved_colour(saved)
        self._map_place = saved_place(saved)
        if saved.text("sae", None) == self._sae_id:
            self._restored = saved.integer("feature", None, least=0)
            self._restored_detail = saved.flag("detail", False)
            self.table.marks = saved_marks(saved)
        self._list_again()

    # Escape.

    @property
    def open_feature(self) -> int | None:
        """The feature to come back to."""
        return self._feature

    def close_popup(self) -> bool:
        prompt = self.prompt
        if prompt.is_open:
            if prompt.purpose == "filter":
                self.search_while_typed("")
            return prompt.close()
        if self.context.features is None:
            return False  # the filter is kept for the next table
        focused = self.focused
        if focused is not None and self.pane in focused.ancestors:
            if self.is_narrow:
                self.unzoom()  # the table alone would look the same
            self._leave_detail()
            self.table.focus()
            return True
        if self._query.search:
            self._ask(self._query.searching(""))
            return True
        if self.table.marks:
            self.action_unmark()
            return True
        return False

    @property
    def escape_words(self) -> str:
        """What escape does, where it is not seen: for the footer."""
        focused = self.focused
        if self.prompt.is_open and self.prompt.purpose != "filter":
            return ""
        if self.context.features is None and not self.prompt.is_open:
            return ""  # no table is seen that could be cleared
        if self.is_narrow and focused is not None and self.pane in focused.ancestors:
            return "table"
        if self._query.search or self.prompt.is_open:
            return "all features" if self._query.search else ""
        return f"unmark {len(self.table.marks):,}" if self.table.marks else ""

    @property
    def first_keys(self) -> tuple[str, ...]:
        """What the footer shows first: with marks what can be done with them."""
        return FOR_MARKS if self.table.marks else ()

    # Actions.

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action in OF_ITS_ORDER and self.is_alone:
            return False  # the table is not seen
        if action in OF_THE_TABLE:
            return self.context.features is not None and not self.prompt.is_open
        if action in BULK:
            return self.context.features is not None and bool(self._chosen())
        if action in ("steer", "inspect", "copy", "next_band", "next_look", "step", "unnamed"):
            return self.context.features is not None and self._feature is not None
        return True

    def action_next_sort(self) -> None:
        self._to_table()
        super().action_next_sort()

    def action_jump(self) -> None:
        self.prompt.ask(
            "jump", "#", placeholder="feature number", refuse=self._no_feature, opens=True
        )

    def _no_feature(self, text: str) -> str:
        """Why a text is the number of no feature; empty when it is one, or nothing was typed."""
        number, store = text.removeprefix("#"), self.context.features
        if number and not (number.isdecimal() and number.isascii()):
            return f"{number!r} is not a number"
        count = store.meta().n_features if store is not None else None
        if number and count is not None and int(number[:10]) >= count:
            shown = number if len(number) <= 12 else f"{number[:11]}…"
            return f"feature {shown} not found; the features are 0 to {count - 1}"
        return ""

    def action_tag(self) -> None:
        if self.table.marks:
            self.name_marked()
        elif (row := self._row) is not None and may_tag(self.mi_crow):
            self._ask_name(row)

    def _ask_name(self, row: "FeatureRow", *, goes_on: bool = False) -> None:
        sae_id, shown = self._sae_id, self.pane.shown
        if sae_id is None:
            return
        detail = shown.detail if shown is not None and shown.feature == row.feature else None
        score = detail.proposal.score if detail is not None and detail.proposal else None
        store = self.context.features
        self._naming = ask_name(self.prompt, store, sae_id, row, score, on=True, goes_on=goes_on)

    @on(PromptLine.Typed)
    def _typed(self, message: PromptLine.Typed) -> None:
        if message.purpose == "filter":
            self.search_while_typed(understood(message.value))
        elif message.purpose == "jump":
            number = message.value.strip().removeprefix("#")
            self._expect(int(number) if number.isdecimal() and number.isascii() else None)

    @on(PromptLine.Answered)
    def _answered(self, message: PromptLine.Answered) -> None:
        if message.purpose == "filter":
            self.filter_by(message.value)
        elif message.purpose == "jump":
            number = message.value.removeprefix("#")
            if number:
                self.mi_crow.leave_place()
                self.lay_out()  # without the line
                self._go_to(int(number))
            else:
                self.let_frame_go()
        elif message.purpose in MARKED_PURPOSES:
            self.answered_for_marked(message.purpose, message.value)
        elif message.purpose == "tag":
            self._save_name(message.value, stay=message.stay)

    def _save_name(self, line: str, *, stay: bool) -> None:
        """Names the feature that was asked about; its row shows it before it is written, and before
        the rest of the screen is drawn without the line."""
        naming = self._naming
        name = name_feature(self.mi_crow, naming, line, self._not_named)
        if naming is not None and name is not None:
            self.table.say_name(naming.feature, name)
        if naming is not None and not stay and (name or not (line or naming.before)):
            self._name_next(naming.feature)
        elif not stay:
            self.prompt.close()
        self.let_frame_go()

    def _name_next(self, feature: int) -> None:
        """Goes to the next unnamed feature and asks for its name, where the line is open for it."""
        moved = self.table.feature == feature and self.action_unnamed(1)
        if not self.prompt.is_open:
            return
        row = self.table.row_at(self.table.cursor)
        if moved and row is not None:
            self._ask_name(row, goes_on=True)
        else:
            self.prompt.close()

    def _not_named(self, error: Exception) -> None:
        self.table.reread()
        self.tell(error)
