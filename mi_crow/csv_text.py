"""The one writer and reader of our CSV files, safe from formula injection.

A spreadsheet treats a cell that begins with `=`, `+`, `-`, `@`, tab or carriage return as a formula
(OWASP, "CSV Injection"). Such a text is written with an apostrophe in front, as is one that begins
with an apostrophe itself, so that reading removes exactly what writing added.
"""

import csv
import io
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from mi_crow.clean_text import clean_text
from mi_crow.errors import UserError

_MARK = "'"
# Also their full-width forms, which some spreadsheets treat alike.
_RUNS = frozenset("=+-@\uff1d\uff0b\uff0d\uff20\t\r\n")
_ENDS = "\r\n"
LONGEST_CELL = 2**31 - 1  # Python's own limit is 128 KB, for the whole process


def csv_text(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Header and rows as CSV. Texts are quoted and made harmless; numbers stay as they are."""
    lines: list[str] = []
    # It quotes what holds one of its line's ends: with both, either comes back as it was.
    writer = csv.writer(_Lines(lines), lineterminator=_ENDS)
    writer.writerow(header)
    for row in rows:
        writer.writerow([harmless(cell) if isinstance(cell, str) else cell for cell in row])
    return "".join(f"{line.removesuffix(_ENDS)}\n" for line in lines)


class _Lines:
    """Takes each row that a CSV writer writes, which is one call, to a list."""

    def __init__(self, lines: list[str]) -> None:
        self.write = lines.append


def csv_rows(
    text: str,
    what: str,
    header: Sequence[Sequence[str]],
    longest: int = LONGEST_CELL,
    *,
    keep_wrong: bool = False,
) -> Iterator[Mapping[str, Any]]:
    """The rows below a header, by its names; what `csv_text` wrote comes back unchanged.

    The header must have one of each of the alternatives in `header`. Cells may also be separated
    by semicolons or tabs, as spreadsheets of many countries do. The names may be in capitals, and
    have blanks for their underscores. A row's key LINE says where it ends. With `keep_wrong`, a row
    that is not CSV is among them, its key WRONG saying why.

    Raises UserError, naming `what`, for another header, for one that has a name twice, for what is
    not CSV and for a cell of more than `longest` characters.
    """
    reader = _reader(text, ",")
    before = csv.field_size_limit(longest)
    try:
        if missing := _missing(reader, header):
            others = (_reader(text, separator) for separator in ";\t")
            known = next((one for one in others if not _missing(one, header)), None)
            if known is None:
                columns = ", ".join(one[0] for one in header)
                raise UserError(
                    f"{what} has no column {missing!r}",
                    hint=f"the first line names the columns, at least {columns}",
                )
            reader = known
        _check_unique(reader.fieldnames or (), what)
        found = list(_rows(reader, what, keep_wrong))
    except csv.Error as error:  # in the header
        raise UserError(f"{what} line {reader.reader.line_num} {_wrong(error)}") from error
    finally:
        csv.field_size_limit(before)
    yield from found


def _rows(
    reader: "csv.DictReader[str]", what: str, keep_wrong: bool
) -> Iterator[Mapping[str, Any]]:
    lines = reader.reader  # the dictionary's own count stays behind when a row is wrong
    while True:
        start = lines.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            # A quote that is not closed takes in the rest of the file: where it began is told.
            line = start if "unexpected end" in str(error) else lines.line_num
            if not keep_wrong:
                raise UserError(f"{what} line {line} {_wrong(error)}") from error
            yield {LINE: line, WRONG: f"it {_wrong(error)}"}
        else:
            yield {
                key: original(cell) if isinstance(cell, str) else cell for key, cell in row.items()
            } | {LINE: lines.line_num}


def _wrong(error: csv.Error) -> str:
    open_quote = "unexpected end" in str(error)
    return f"is not valid CSV ({'a quote is not closed' if open_quote else error})"


def _check_unique(names: Sequence[str], what: str) -> None:
    """Raises UserError for a name of two columns, of which only one would be read."""
    for place, name in enumerate(names):
        if name and name in names[:place]:
            raise UserError(
                f"{what} has two columns {name!r}", hint="rename or remove one of the two"
            )


def _reader(text: str, separator: str) -> "csv.DictReader[str]":
    reader = csv.DictReader(
        io.StringIO(text, newline=""), delimiter=separator, restkey=MORE, strict=True
    )
    if reader.fieldnames is not None:
        reader.fieldnames = ["_".join(name.casefold().split()) for name in reader.fieldnames]
    return reader


def _missing(reader: "csv.DictReader[str]", header: Sequence[Sequence[str]]) -> str:
    """The first column that the header lacks, by the first of its names; else empty."""
    names = reader.fieldnames or ()
    return next((one[0] for one in header if not any(name in names for name in one)), "")


# Keys that no header has: where a row ends, why it is not CSV, its cells beyond the header.
LINE, WRONG, MORE = "\0line", "\0wrong", "\0more"


def overflow(row: Mapping[str, Any]) -> str:
    """What is wrong with a row that has more cells than the first line; empty where nothing is."""
    if any(cell.strip() for cell in row.get(MORE, ())):
        return "it has more cells than the first line has; quote a text that has commas"
    return ""


def harmless(cell: str) -> str:
    """`cell` so that a spreadsheet shows it and does not run it."""
    cell = clean_text(cell)
    return _MARK + cell if _is_marked(cell) else cell


def original(cell: str) -> str:
    """The cell that `harmless` was given; others stay as they are."""
    return cell[1:] if cell.startswith(_MARK) and _is_marked(cell[1:]) else cell


def _is_marked(cell: str) -> bool:
    """True for a text that would run as a formula or begins with a mark."""
    for char in cell:
        if char in _RUNS or char == _MARK:
            return True
        # Blanks and invisible characters, which a spreadsheet may strip first.
        if unicodedata.category(char)[0] not in "ZC":
            return False
    return False
