"""Tables and lists of facts on the terminal: calm, aligned, and safe for any text."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mi_crow.cli.text import visible

PLAIN_WIDTH = 200  # of output that goes into a file or a pipe, where nothing needs to fit
SHORTEST = 8  # cells that a shortened column keeps


@dataclass(frozen=True)
class Column:
    """One column: its title, and whether it holds numbers or may be shortened."""

    title: str
    right: bool = False
    shorten: bool = False


def console() -> Console:
    """Stdout as a rich console; wide when it is not a terminal."""
    out = Console(highlight=False, markup=False, emoji=False, soft_wrap=False)
    if not out.is_terminal and "COLUMNS" not in os.environ:
        out.width = PLAIN_WIDTH
    return out


def print_table(columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> None:
    """Prints rows under their titles. Cells are data: never markup, never control characters.

    Where the terminal is too narrow, only the columns that may be shortened give way.
    """
    cells = [[visible(cell) for cell in row] for row in rows]
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    for index, column in enumerate(columns):
        widths = [cell_len(column.title), *(cell_len(row[index]) for row in cells)]
        table.add_column(
            Text(column.title),
            justify="right" if column.right else "left",
            overflow="ellipsis" if column.shorten else "fold",
            no_wrap=True,
            min_width=min(max(widths), SHORTEST) if column.shorten else max(widths),
        )
    for row in cells:
        table.add_row(*(Text(cell) for cell in row))
    console().print(table)


def print_facts(facts: Mapping[str, str]) -> None:
    """Prints names and values in two columns; long values wrap."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(Text(name), Text(visible(value)))
    console().print(table)


def print_line(text: str = "", style: str = "") -> None:
    """Prints one line of text that is data; the terminal wraps it, so that it copies whole."""
    console().print(Text(visible(text), style=style), soft_wrap=True)
