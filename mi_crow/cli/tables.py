"""What a command prints: tables, facts and sentences, safe for any text, or JSON."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mi_crow.cli import streams
from mi_crow.cli.formatting import print_json
from mi_crow.visible import visible

Result = TypeVar("Result")

PLAIN_WIDTH = 200  # of output into a file or a pipe, where nothing needs to fit
SHORTEST = 8  # cells that a shortened column keeps
GAPS = (3, 2, 1)  # cells between two columns; fewer where texts would be shortened


@dataclass(frozen=True)
class Column:
    """One column: its title, and whether it is right-aligned or may be shortened, at its end or
    at its beginning."""

    title: str
    right: bool = False
    shorten: bool = False
    keep_end: bool = False

    @classmethod
    def of(cls, column: "Column | str") -> "Column":
        """A column as it is, or of a title: `>title` is right-aligned, `title…` may be
        shortened, and so may `…title`, of which the end is kept."""
        if isinstance(column, Column):
            return column
        if column.startswith("…"):
            return cls(column[1:], shorten=True, keep_end=True)
        right, shorten = column.startswith(">"), column.endswith("…")
        return cls(column[right : len(column) - shorten], right, shorten)


Columns = Sequence[Column | str]  # read by `Column.of`


def console() -> Console:
    """Stdout as a rich console; wide when it is not a terminal."""
    out = Console(file=streams.out(), highlight=False, markup=False, emoji=False, soft_wrap=False)
    if not out.is_terminal and "COLUMNS" not in os.environ:
        out.width = PLAIN_WIDTH
    return out


def print_table(titles: Columns, rows: Iterable[Sequence[str]]) -> None:
    """Prints rows under their titles. Cells are data: never markup, never control characters.

    On a narrow terminal the columns move together, and those that may be shortened are. Where the
    others alone do not fit, each row is a list of what it holds.
    """
    columns = [Column.of(title) for title in titles]
    cells = [[visible(cell) for cell in row] for row in rows]
    out = console()
    needs = [
        max(cell_len(text) for text in (column.title, *(row[index] for row in cells)))
        for index, column in enumerate(columns)
    ]
    gap, widths = _spaced(columns, needs, out.width)
    if sum(widths) + gap * (len(columns) - 1) > out.width:
        _print_records(columns, cells)
        return
    padding = (0, gap // 3, 0, gap // 2)  # beside the cell that a line between columns would take
    table = Table(
        box=SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold", padding=padding
    )
    for column, width in zip(columns, widths, strict=True):
        table.add_column(
            Text(column.title),
            justify="right" if column.right else "left",
            overflow="ellipsis",
            no_wrap=True,
            width=width,
        )
    for row in cells:
        parts = zip(row, columns, widths, strict=False)
        table.add_row(
            *(Text(_ending(cell, width) if one.keep_end else cell) for cell, one, width in parts)
        )
    out.print(table)


def _print_records(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    """Prints each row under the one before, a line for each of its cells."""
    for number, row in enumerate(rows):
        if number:
            print_line()
        named = zip((column.title for column in columns), row, strict=False)
        _print_pairs((title, cell) for title, cell in named if cell)  # titles may be tokens: alike


def _spaced(columns: Sequence[Column], needs: Sequence[int], width: int) -> tuple[int, list[int]]:
    """The gap between columns, and their widths: the widest gap that shortens nothing, else one
    with which they fit."""
    between = len(columns) - 1
    least = sum(
        min(need, SHORTEST) if column.shorten else need
        for column, need in zip(columns, needs, strict=True)
    )
    wide, middle, narrow = GAPS
    if sum(needs) + wide * between <= width:
        gap = wide
    else:
        gap = middle if least + middle * between <= width else narrow
    return gap, fit(columns, needs, width - gap * between)


def _ending(text: str, width: int) -> str:
    """The end of a text of more than `width` cells."""
    if cell_len(text) <= width:
        return text
    while cell_len(text) >= width:
        text = text[1:]
    return f"…{text}"


def fit(columns: Sequence[Column], needs: Sequence[int], room: int) -> list[int]:
    """Widths for columns that need `needs` cells and have `room` between them.

    Fixed columns get what they need; the others share the rest, the narrowest first.
    """
    widths = list(needs)
    elastic = sorted(
        (i for i, column in enumerate(columns) if column.shorten), key=lambda i: needs[i]
    )
    left = room - sum(need for i, need in enumerate(needs) if i not in elastic)
    for position, i in enumerate(elastic):
        share = left // (len(elastic) - position)
        widths[i] = min(needs[i], max(share, SHORTEST))
        left -= widths[i]
    return widths


def print_list(
    as_json: bool,
    records: Sequence[Any],
    columns: Columns,
    rows: Iterable[Sequence[str]],
    empty: str,
) -> None:
    """Prints records as JSON, as a table of `rows`, or the line `empty` when there are none."""
    if as_json:
        print_json(records)
    elif not records:
        print_line(empty)
    else:
        print_table(columns, rows)


def print_result(as_json: bool, result: Result, show: Callable[[Result], None]) -> int:
    """Prints a result: an object for programs, what `show` prints for people. Gives the exit code
    of success."""
    if as_json:
        print_json(result)
    else:
        show(result)
    return 0


def print_outcome(as_json: bool, value: Mapping[str, Any], sentence: str) -> None:
    """Prints what a command did: an object for programs, a sentence for people."""
    if as_json:
        print_json(value)
    else:
        print_line(sentence)


def print_facts(facts: Mapping[str, str]) -> None:
    """Prints names and values in two columns; long values wrap."""
    _print_pairs(facts.items())


def _print_pairs(pairs: Iterable[tuple[str, str]]) -> None:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in pairs:
        table.add_row(Text(visible(name)), Text(visible(value)))
    console().print(table)


def print_line(text: str = "", style: str = "") -> None:
    """Prints one line of data; the terminal wraps it, so that it can be copied whole."""
    console().print(Text(visible(text), style=style), soft_wrap=True)
