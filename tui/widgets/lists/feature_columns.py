"""The columns of the feature table: what one feature says in the width there is; pure."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from textual.content import Content, Span

from tui.text import count, number, printable
from tui.widgets.lists.row_list import fitted

if TYPE_CHECKING:
    from mi_crow.mechanistic.features.records import FeatureRow


@dataclass(frozen=True)
class FeatureColumn:
    """One column. `width` 0 takes what is left; it shows where the table has `from_width` cells."""

    title: str
    width: int
    cell: "Callable[[FeatureRow], Content]"
    align: Literal["left", "right"] = "right"
    from_width: int = 0
    sort: str = ""  # the sort key of the index that this column shows


def density(share: float) -> str:
    """A share of tokens in at most six characters: 12%, 4.2%, 0.42%, 0.042%."""
    percent = 100 * share
    if percent <= 0:
        return "0"
    if percent < 0.001:
        return "<.001%"
    digits = 0 if percent >= 10 else 1 if percent >= 1 else 2 if percent >= 0.1 else 3
    return f"{percent:.{digits}f}%"


def score(auroc: float | None) -> str:
    """An AUROC in at most five characters; what is not perfect never reads as 1.00."""
    return number(auroc, 3 if auroc is not None and 0.995 <= auroc < 1 else 2)


def _faint_zero(text: str, row: "FeatureRow") -> Content:
    return Content.styled(text, "" if row.fires else "$faint")


def _meaning(row: "FeatureRow") -> Content:
    """The concept that somebody gave it, else the label that it predicts, else a dash."""
    if row.concept:
        return Content.styled(printable(row.concept), "$accent")
    if not row.fires:
        return Content.styled("never fires", "$faint")
    if row.top_label:
        return Content.styled(printable(row.top_label), "$muted")
    return Content.styled("–", "$faint")


def _auroc(row: "FeatureRow") -> Content:
    known = row.top_auroc is not None and row.fires
    style = "$muted" if known and row.top_label else "$faint"
    return Content.styled(score(row.top_auroc) if known else "–", style)


COLUMNS = (
    FeatureColumn("feature", 7, lambda row: _faint_zero(str(row.feature), row), sort="feature"),
    FeatureColumn("density", 7, lambda row: _faint_zero(density(row.density), row), sort="density"),
    FeatureColumn("fires", 6, lambda row: _faint_zero(count(row.fires), row), "right", 52, "fires"),
    FeatureColumn("max", 6, lambda row: _faint_zero(number(row.max_act, 2), row), sort="max_act"),
    FeatureColumn(
        "mean", 6, lambda row: _faint_zero(number(row.mean_act, 2), row), "right", 66, "mean_act"
    ),
    FeatureColumn("concept / top label", 0, _meaning, "left", sort="concept"),
    FeatureColumn("AUROC", 5, _auroc, "right", 52, "top_auroc"),
)
_GAP = 2
_MARKER = 1


def shown_columns(width: int) -> list[tuple[FeatureColumn, int]]:
    """The columns that a table of `width` cells shows, with their widths."""
    columns = [column for column in COLUMNS if width >= column.from_width]
    gaps = _GAP * (len(columns) - 1) + 2 * _MARKER
    rest = width - gaps - sum(column.width for column in columns)
    return [(column, column.width or max(rest, 4)) for column in columns]


def row_content(feature: int, row: "FeatureRow | None", width: int, marker: str) -> Content:
    """One line of the table. A row that is not read yet shows only its number."""
    cells = []
    for column, cells_wide in shown_columns(width):
        if row is not None:
            cell = column.cell(row)
        else:
            cell = Content(str(feature) if column.sort == "feature" else "")
        cells.append(fitted(cell, cells_wide, column.align))
    line = Content.assemble(Content(" " * _GAP).join(cells), " ")
    first = Content.styled(marker, "$primary") if marker.strip() else Content(marker)
    return first + _blanks_joined(line)


def _blanks_joined(line: Content) -> Content:
    """`line` with the blanks behind a coloured text in its colour: each change of colour costs the
    terminal 26 bytes, and a scroll draws every row."""
    text, spans = line.plain, sorted(line.spans)
    starts = [*(span.start for span in spans[1:]), len(text)]
    return Content(
        text,
        [
            Span(one.start, start if text[one.end : start].isspace() else one.end, one.style)
            for one, start in zip(spans, starts, strict=False)
        ],
    )


def titles_content(width: int, sort: str, descending: bool) -> Content:
    """The titles over the columns; the one that sorts carries an arrow, in the gap if need be."""
    line = Content("")
    end = 0
    for column, cells in shown_columns(width):
        end += cells
        sorts = bool(column.sort) and column.sort == sort
        arrow = ("↓" if descending else "↑") if sorts else ""
        text = Content.styled(column.title + arrow, "$accent" if sorts else "$faint")
        if column.align == "left":
            if text.cell_length > cells:  # the arrow must not be cut off
                cut = Content(column.title).truncate(cells - len(arrow), ellipsis=True).plain
                text = Content.styled(cut + arrow, "$accent" if sorts else "$faint")
            line = line.pad_right(end - cells - line.cell_length) + fitted(text, cells)
        else:
            line = line.pad_right(end - text.cell_length - line.cell_length) + text
        end += _GAP
    return Content.assemble(" ", line)
