"""The popup that compares SAEs, and the reading of what it shows."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, cast

from textual import on
from textual.app import ComposeResult
from textual.widgets import Static

from mi_crow.mechanistic.sae.evaluation.figures import figures_of
from mi_crow.mechanistic.sae.evaluation.standing import standing_of
from mi_crow.store.workspace import SaeSummary
from tui import messages
from tui.actions import bindings
from tui.screens.runs.charts import place_name
from tui.screens.runs.comparison import (
    SaeComparison,
    comparison_charts,
    table_rows,
    title_text,
)
from tui.screens.runs.history import curves_of, why_no_curves
from tui.widgets.detail_lines import DetailLines
from tui.widgets.frame.popup import Popup
from tui.widgets.lists.row_list import ListHeading, RowList
from tui.widgets.lists.sorted_list import SortedList
from tui.widgets.plot import Point

if TYPE_CHECKING:
    from tui.workbench import Workbench


class SaeComparePopup(Popup[str]):
    """The table above, the charts below. Dismisses with the id of the SAE that was opened."""

    HEADING = "Compare SAEs"
    BINDINGS = bindings("popup", "close")

    def __init__(self, found: SaeComparison) -> None:
        super().__init__(classes="comparing")
        self._found = found
        self._ids = {one.sae_id for one in found.figures}
        self._chosen: Sequence[SaeSummary] = ()  # as they were read last; at first unknown
        self._table = SortedList(found.columns, id="comparing-table")
        self._charts = DetailLines(id="comparing-charts")

    def compose_box(self) -> ComposeResult:
        yield Static(title_text(self._found), id="comparing-title", markup=False)
        yield ListHeading("SAEs", self._table)
        yield self._table
        yield self._charts

    def on_mount(self) -> None:
        self._table.set_rows(table_rows(self._found))
        self._table.focus()
        cast("Workbench", self.app).context.subscribe(self)

    def on_unmount(self) -> None:
        cast("Workbench", self.app).context.unsubscribe(self)

    def on_sae_renamed(self, message: messages.SaeRenamed) -> None:
        self._ids = {message.new if one == message.old else one for one in self._ids}

    def on_workspace_changed(self, message: messages.WorkspaceChanged) -> None:
        """One of them was evaluated meanwhile, or is not there any more."""
        chosen = [sae for sae in message.saes if sae.sae_id in self._ids]
        if chosen and chosen != self._chosen:
            self._chosen = chosen
            read = partial(read_comparison, chosen, message.saes)
            self.in_thread(read, self._read_again, group="again")

    async def _read_again(self, found: SaeComparison) -> None:
        columns, self._found = self._found.columns, found
        if found.columns != columns:  # those of an SAE that is evaluated by k
            self._table = SortedList(found.columns, id="comparing-table")
            self._charts = DetailLines(id="comparing-charts")
            await self.recompose()
            self._table.focus()
        self.query_one("#comparing-title", Static).update(title_text(found))
        self._table.set_rows(table_rows(found))
        self.query_one(ListHeading).refresh()
        self.on_resize()

    def on_resize(self) -> None:
        """At least half of the popup is for the charts; the table scrolls where it is longer."""
        rows = len(self._found.figures)
        self._table.styles.height = max(min(rows, self.size.height // 2 - 4), 2)
        self.call_after_refresh(self._draw)

    @on(DetailLines.WidthChanged)
    def _draw(self) -> None:
        charts = comparison_charts(self._found, self._charts.width, self._charts.size.height)
        self._charts.show(charts, "charts")

    @on(RowList.Overrun)
    def _to_charts(self, event: RowList.Overrun) -> None:
        if event.direction > 0:
            self._charts.focus()

    @on(RowList.Opened)
    def _opened(self, event: RowList.Opened) -> None:
        self.dismiss(event.key)


def read_comparison(chosen: Sequence[SaeSummary], saes: Sequence[SaeSummary]) -> SaeComparison:
    """What is known of the chosen SAEs, and how good every SAE on their layers is."""
    figures = tuple(figures_of(sae) for sae in chosen)
    places = {one.place for one in figures}
    curves = {sae.sae_id: _over_tokens(curves_of(sae)) for sae in chosen}
    return SaeComparison(
        figures,
        curves,
        tuple(
            (place_name(sae.model_id, sae.layer), standing_of(sae))
            for sae in saes
            if (sae.model_id, sae.layer) in places
        ),
        {sae.sae_id: why_no_curves(sae) for sae in chosen if not curves[sae.sae_id]},
    )


def _over_tokens(curves: Mapping[str, tuple[Point, ...]]) -> dict[str, tuple[Point, ...]]:
    """The same over tokens instead of steps: steps of other batch sizes do not compare. Files
    without a column of tokens stay as they are."""
    tokens = dict(curves.get("tokens", ()))
    if not tokens:
        return dict(curves)
    return {
        name: tuple((tokens[step], value) for step, value in points if step in tokens)
        for name, points in curves.items()
    }
