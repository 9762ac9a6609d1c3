"""The list of the Features screen: what the table shows, in which order, and the way to one row."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from textual import on

from mi_crow.errors import NotFoundError, UserError
from mi_crow.mechanistic.features.catalogue import DEFAULT, LAYER
from mi_crow.mechanistic.features.query_language import REFERENCE, QueryError, completions
from tui import messages
from tui.preferences.key_words import key
from tui.screens.features.detail import FeatureDetailPane
from tui.screens.features.heading import TableHeading
from tui.screens.features.opening import TABLE, OpenFeatureScreen
from tui.screens.features.query import TableQuery, known_columns, mistake_at, mistake_in
from tui.screens.features.reading import IdsRead, read_ids, vocabulary
from tui.text import printable
from tui.threads import error_sentence
from tui.widgets.lists.feature_columns import column_of
from tui.widgets.lists.feature_table import FeatureTable
from tui.widgets.trouble import Trouble

BUSY_S = 0.1  # an answer that comes sooner needs no word that it is on its way


class FeatureListScreen(OpenFeatureScreen):
    """Reads the sorted ids of a query in a thread and gives them to the table."""

    def __init__(self) -> None:
        super().__init__()
        self._error = ""  # why there is no index, in one sentence
        self._query = self._shown_query = TableQuery()  # asked for, and in the table
        self._columns: tuple[str, ...] = DEFAULT  # the user's own once it is mounted
        self._layers_hidden = False  # the column of an SAE over several layers was put away
        self._total = 0
        self._kept: TableQuery | None = None  # with the filter that was typed last
        self._requested: object = None  # index and query that the table shows or will show
        self._listed = False
        # To be opened as soon as the index is there, or in the table only.
        self._wanted: tuple[int, bool] | None = None
        self._restored: int | None = None  # open when the app last ended, or before a filter
        self._left: int | None = None  # under the cursor when a filter was asked for
        self._restored_detail = False  # whether it was open in place of the table

    @property
    def error(self) -> str:
        """Why the index of the open SAE cannot be read; empty when it can."""
        return self._error

    @property
    def listed(self) -> tuple[str, Sequence[int], int] | None:
        """The search, the features that match it, and how many there are in all; None while they
        are read."""
        if not self._listed or self.is_working("ids"):
            return None
        return self._shown_query.search, self.table.shown_ids, self._total

    def action_filter(self) -> None:
        known = vocabulary(self.context.features)
        self._to_table()
        self._left = None if self._query.search else self.table.feature
        self.prompt.ask(
            "filter",
            "/",
            self._query.search,
            suggestions=partial(completions, vocabulary=known),
            placeholder=REFERENCE,
            hint="enter keeps · esc clears",
            check=mistake_in,
        )

    def filter_by(self, text: str) -> None:
        """Keeps the filter that was typed; asks for it again where the index refuses it."""
        self._ask(self._query.searching(text))
        self._kept = self._query if self.is_working("ids") else None

    def search(self, text: str) -> None:
        """Shows what a query finds."""
        self._ask(self._query.searching(text))

    def search_while_typed(self, text: str) -> None:
        """Shows what a query finds so far; without one, the cursor goes back to where it was."""
        if not text and self._query.search and self._restored is None:
            self._restored, self._restored_detail = self._left, False
        elif text and self._restored == self._left:
            self._restored = None  # the table was not read before this was typed
        self.search(text)

    @property
    def trouble(self) -> Trouble:
        """Why the list, or rows of it, cannot be read."""
        return self.query_one("#table-trouble", Trouble)

    @on(FeatureTable.RowsFailed)
    def _rows_failed(self, message: FeatureTable.RowsFailed) -> None:
        self.trouble.show(message.error)
        self.tell(message.error)

    def _ask(self, query: TableQuery) -> None:
        filtered, self._query = bool(self._query.search), query
        if filtered != bool(query.search):
            self.refresh_bindings()  # what escape does
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
        self.set_timer(BUSY_S, self._still_reading)

    def _still_reading(self) -> None:
        """Says so where an answer takes its time; the rows of the one before stay."""
        if self.is_working("ids"):
            self.query_one(TableHeading).show(self._query, None, self._total)

    def _not_listed(self, error: Exception) -> None:
        """Rows and heading stay; a filter that does not fit the index is explained in its
        line, and dropped when it comes from elsewhere."""
        self._listed = True
        self.query_one(TableHeading).show(self._shown_query, self.table.row_count, self._total)
        kept, self._kept = self._kept, None
        mistake = error_sentence(error)
        if isinstance(error, QueryError):
            text = self.prompt.field.value
            mistake = mistake_at(error, len(text) - len(text.lstrip()))
        if self.prompt.is_open and self.prompt.purpose == "filter":
            self.prompt.explain(mistake)
            return
        refused = isinstance(error, UserError) and kept is not None and kept == self._query
        typed = self.prompt.field.value
        if refused and self.app.screen is self and self.prompt.ask_again("filter", typed, mistake):
            return
        self.trouble.show(error)
        self.tell(error)
        if isinstance(error, UserError) and self._query.search:
            self._ask(self._query.searching(""))
        elif isinstance(error, UserError) and self._query.sort != TableQuery.sort:
            # Another index may lack the label that the one before was sorted by.
            self._ask(replace(self._query, sort=TableQuery.sort, descending=True))

    def _list(self, read: IdsRead) -> None:
        store = self.context.features
        if store is None or read.store is not store:
            return  # another index was opened meanwhile; it is read next
        self._listed = True
        self._kept = None
        self.trouble.clear()
        if read.why_unordered and read.query.sort != self._shown_query.sort:
            self.app.notify(f"In no order: {printable(read.why_unordered)}", severity="warning")
        searched = bool(read.query.search) and read.query.search != self._shown_query.search
        self._shown_query, self._total = read.query, read.total
        self.query_one(TableHeading).show(read.query, len(read.ids), read.total)
        self._set_columns()
        self.table.marks.keep_below(read.total)
        self.table.show(read.ids, store.rows, self._none_match(read), first=searched)
        restored, self._restored = self._restored, None
        if self._wanted is not None:
            wanted, self._wanted = self._wanted, None
            self._go_to(*wanted)
        elif restored is not None and self.table.go_to(restored):
            self._open(restored)
            if self._restored_detail and self.is_narrow and self.focused in (None, self.table):
                self._enter_detail()
        elif self._feature is None and self.table.feature is not None:
            self._open(self.table.feature)
        elif self.pane.shown is None or self.pane.shown.store is not store:
            self._open_again()  # the index was built anew

    @staticmethod
    def _none_match(read: IdsRead) -> str:
        """What an empty table says, with the key that leads out of it."""
        query = read.query
        if query.search:
            why = f": {printable(read.why_none)}" if read.why_none else ""
            clears = f"{key('app.escape')} clears the filter"
            if read.hidden:
                others = f"{read.hidden:,} {'other does' if read.hidden == 1 else 'others do'}"
                shows = f"{key('features.show')} shows others"
                return f"No {query.show} features match, {others}; {shows}, {clears}"
            return f"No features match{why}; {clears}"
        if query.show != "all":
            return f"No features match; {key('features.show')} shows others"
        return "No features"

    def _go_to(self, feature: int, in_table: bool = False) -> None:
        """Opens a feature, without the filter when that hides it; `in_table`: beside the table, or
        where there is no room for both, the table with the cursor on it."""
        if self.context.features is None or not self._listed:
            self._wanted = feature, in_table
            return
        if not self.table.go_to(feature):
            everything = replace(self._query.searching(""), show="all")
            if self._query != everything:
                self._wanted = feature, in_table
                self._ask(everything)
            else:
                self.tell(NotFoundError(f"feature {feature} not found"))
            return
        self._open(feature)
        if in_table and self.is_narrow:
            self._to_table()
        else:
            self._enter_detail()

    @on(FeatureTable.Highlighted)
    def _highlighted(self, message: FeatureTable.Highlighted) -> None:
        if message.feature is not None:
            self._point_at(message.feature)

    @on(FeatureTable.Opened)
    def _opened(self, message: FeatureTable.Opened) -> None:
        if not self._detail_shows:
            self.mi_crow.history.leave(TABLE)
        self._open(message.feature)
        self._enter_detail()

    @on(FeatureDetailPane.Wanted)
    def _related(self, message: FeatureDetailPane.Wanted) -> None:
        sae = self.context.find_sae(message.sae_id)
        if message.sae_id and (sae is None or not sae.has_index):
            keys = key("runs.new", "new.index")
            hint = f"{keys} on Runs, or mi-crow index --sae {message.sae_id}, builds it"
            self.tell(UserError(f"SAE {message.sae_id} has no feature index", hint=hint))
            return
        self.mi_crow.leave_place()
        if message.sae_id:
            self.mi_crow.open_sae(message.sae_id)
        self._go_to(message.feature)

    # Actions.

    def action_next_sort(self) -> None:
        sorts = [column_of(name).sort for name in self.table.columns]
        self._ask(self._query.next_sort(sorts))

    @on(TableHeading.SortWanted)
    def _sort_wanted(self, message: TableHeading.SortWanted) -> None:
        self._ask(self._query.sorted_by(message.sort))

    @property
    def _known_columns(self) -> tuple[str, ...]:
        store = self.context.features
        return known_columns(store.meta().labels if store is not None else ())

    def action_columns(self) -> None:
        from tui.screens.features.columns import helps
        from tui.widgets.lists.columns_popup import ColumnList, ColumnsPopup

        table = self.table
        columns = ColumnList(
            table.columns,
            helps(self._known_columns),
            table.layout_now.left_out if table.region else (),  # none beside an open feature
            self._usual_columns,
            always="feature",  # marks and rows go by it
        )
        self.app.push_screen(ColumnsPopup(columns), self._show_columns)

    def _show_columns(self, columns: Sequence[str] | None) -> None:
        if columns is None:
            return
        if self._brings_layer:
            self._layers_hidden = LAYER not in columns
            if tuple(columns[1:2]) == (LAYER,):  # where it is brought, and not by other SAEs
                columns = (columns[0], *columns[2:])
        self._columns = tuple(columns)
        self._set_columns()

    def on_columns_changed(self, message: messages.ColumnsChanged) -> None:
        if message.features is not None:
            self._take_usual(message.features)
            self._set_columns()

    def _take_usual(self, columns: tuple[str, ...]) -> None:
        """The columns of the settings: who chose some there misses none."""
        self._columns, self._layers_hidden = columns, columns != DEFAULT

    @property
    def _usual_columns(self) -> tuple[str, ...]:
        usual = self.mi_crow.preferences.columns
        return (usual[0], LAYER, *usual[1:]) if usual == DEFAULT and self._brings_layer else usual

    @property
    def _brings_layer(self) -> bool:
        """Whether the open SAE is over several layers, so that it is told which a feature is of."""
        store = self.context.features
        return store is not None and store.connection.layers.several

    def _set_columns(self) -> None:
        """Those that the open index has; the others come back with an index that has them."""
        known, sort = self._known_columns, self._shown_query.parsed.sort
        shown = [name for name in self._columns if name in known]
        if LAYER not in shown and not self._layers_hidden and self._brings_layer:
            shown[1:1] = [LAYER]
        if sort is not None and sort not in {column_of(name).sort for name in shown}:
            # What a query sorts by is seen, before what a narrow table leaves out.
            by = (name for name in known if column_of(name).sort == sort)
            numbers = sorted(by, key=lambda name: not column_of(name).is_number)
            shown[1:1] = numbers[:1]
        self.table.set_columns(shown)

    def action_sort_by(self) -> None:
        from tui.screens.features.columns import SortPopup

        def chosen(sort: str | None) -> None:
            if sort is not None:
                self._ask(self._query.sorted_by(sort))

        self.app.push_screen(SortPopup(self._known_columns, self._query.sort), chosen)

    @on(FeatureTable.LaidOut)
    def _laid_out(self) -> None:
        self.query_one(TableHeading).refresh()

    def action_reverse(self) -> None:
        self._ask(replace(self._query, descending=not self._query.descending))

    def action_next_filter(self) -> None:
        self._ask(self._query.next_show())

    def action_step(self, rows: int) -> None:
        self.table.cursor += rows
