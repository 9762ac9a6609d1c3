"""The popups of measured steering: the list of measurements, and one of them with its chart."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from textual import events, on
from textual.app import ComposeResult
from textual.content import Content
from textual.widgets import Static

from mi_crow.mechanistic.steering.interventions import Intervention
from tui.actions import bindings
from tui.preferences.key_words import key
from tui.screens.steer.measured.results import (
    MEASUREMENT_COLUMNS,
    Measured,
    arm_chart,
    arm_columns,
    arm_rows,
    measured_rows,
    subject,
    told,
)
from tui.widgets.detail_lines import DetailLines
from tui.widgets.frame.popup import Popup
from tui.widgets.lists.row_list import ListHeading, RowList

_CHART, _TALLEST = 14, 30  # lines that it gets first, and at most
_CHART_WIDTH = 100
_LEFT_FOR_TABLE = 6
_SIDES = 4  # columns of the frame and what is left beside it


@dataclass(frozen=True)
class MeasuredChoice:
    """A measurement to show or to remove, or a new one to begin."""

    action: str  # open | remove | new
    measured: Measured | None = None


class MeasurementsPopup(Popup[MeasuredChoice]):
    """Lists measurements, those of the stack on the screen first."""

    HEADING = "Measured"
    BINDINGS = [*bindings("popup", "close"), *bindings("measurements")]

    def __init__(
        self,
        found: Sequence[Measured],
        stack: Sequence[Intervention],
        presets: Mapping[str, str],
    ) -> None:
        super().__init__(classes="presets measurements")
        self._found = {one.name: one for one in found}
        self._rows = measured_rows(found, stack, presets, _when)

    def compose_box(self) -> ComposeResult:
        rows = RowList(
            MEASUREMENT_COLUMNS,
            empty=lambda: (
                f"nothing measured yet: {key('measurements.new')} measures the stack, "
                f"{key('steer.auto')} on Steer finds a setting"
            ),
        )
        if self._rows:
            yield ListHeading("  stack", rows)
        yield rows

    def on_mount(self) -> None:
        rows = self.query_one(RowList)
        rows.set_rows(self._rows)
        rows.styles.height = min(max(len(self._rows), 1), 14)
        rows.focus()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        of_a_row = action == "select_row" or (action == "choose" and parameters != ("new",))
        return bool(self._rows) or not of_a_row

    @on(RowList.Opened)
    def _open(self) -> None:
        self.action_choose("open")

    def action_choose(self, action: str) -> None:
        name = self.query_one(RowList).key
        if action == "new" or name is not None:
            one = self._found[name] if name is not None else None
            self.dismiss(cast("MeasuredChoice", MeasuredChoice(action, one)))


class ArmsPopup(Popup[Mapping[str, Any]]):
    """One measurement: the table above, hits against perplexity below. Dismisses with an arm."""

    HEADING = "Measured"
    OPEN_WORDS = "take"
    BINDINGS = [*bindings("popup", "close"), *bindings("arms")]

    def __init__(self, found: Measured) -> None:
        super().__init__(classes="comparing measured")
        self._found = found
        self._title_lines = 1
        self._table = RowList(arm_columns(found), empty="nothing was measured", id="arms-table")
        self._chart = DetailLines(id="arms-chart")

    def heading(self) -> str:
        return f"Measured: {subject(self._found)}"

    def compose_box(self) -> ComposeResult:
        yield Static(told(self._found), id="comparing-title", markup=False)
        yield ListHeading("Settings", self._table)
        yield self._table
        yield self._chart

    def on_mount(self) -> None:
        self._table.set_rows(arm_rows(self._found))
        names = [one.get("name") for one in self._found.arms]
        if self._found.best in names:
            self._table.cursor = names.index(self._found.best)
        self._table.focus()
        self._lay_out()

    @on(events.Resize)
    def _lay_out(self) -> None:
        title = self.query_one("#comparing-title", Static)
        words = Content(told(self._found))
        self._title_lines = len(words.wrap(max(self.size.width - _SIDES, 1)))
        title.styles.height = self._title_lines
        room = self.size.height - 6 - self._title_lines
        rows = max(len(self._found.arms), 1)
        table = min(rows, max(room - _CHART, min(rows, _LEFT_FOR_TABLE)))
        self._table.styles.height = table
        self._draw()

    @on(RowList.Highlighted)
    @on(DetailLines.WidthChanged)
    def _draw(self) -> None:
        table = self._table.styles.height
        used = int(table.value) if table is not None else 1
        height = min(self.size.height - 7 - self._title_lines - used, _TALLEST)
        cursor = self._table.cursor if self._found.arms else None
        width = min(self._chart.width, _CHART_WIDTH)
        lines = arm_chart(self._found, cursor, width, max(height, 2))
        self._chart.show(Content("\n").join(lines), "chart")

    @on(RowList.Opened)
    def _take(self, event: RowList.Opened) -> None:
        self.dismiss(self._found.arms[int(event.key)])


def _when(moment: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(moment))
