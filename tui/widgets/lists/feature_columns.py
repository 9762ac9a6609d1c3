"""The columns of the feature table: what each says, and its width in the room there is; pure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from textual.content import Content, Span

from mi_crow.mechanistic.features.catalogue import LAYER, FeatureColumn, Kind, column_named
from mi_crow.mechanistic.features.records import auroc_text
from tui.text import count, number, printable
from tui.widgets.lists.layers import brief_layer
from tui.widgets.lists.row_list import fitted

if TYPE_CHECKING:
    from mi_crow.mechanistic.features.records import FeatureRow

_GAP = 2
_MARKER = 1
_LEAST_TEXT = 4  # cells of a text column
_MOST_TEXT = 60
# Where the table is too narrow these go first, then those at the right, and the names last. Before
# one of the figures that are missed most goes, texts are cut shorter, and layers are said in brief.
_FIRST_TO_GO = ("mean", "fires", "auroc")
_LAST_TO_GO = ("feature", "meaning")
_MISSED = ("density", "max")
_ENOUGH, _CUT, _BRIEF = 12, 8, 5  # cells of texts; of texts that are cut, and of a layer then


def density(share: float) -> str:
    """A share of tokens in at most six characters: 12%, 4.2%, 0.42%, 0.042%."""
    percent = 100 * share
    if percent <= 0:
        return "0"
    if percent < 0.001:
        return "<.001%"
    shown = float(f"{percent:.2g}")  # 9.96 is 10%, not 10.0%
    digits = 0 if shown >= 10 else 1 if shown >= 1 else 2 if shown >= 0.1 else 3
    return f"{percent:.{digits}f}%"


def score(auroc: float | None) -> str:
    """An AUROC in at most five characters; what is not perfect never reads as 1.00."""
    return "–" if auroc is None or auroc != auroc else auroc_text(auroc)


def _meaning(row: "FeatureRow") -> Content:
    """The concept that somebody gave it, else the name proposed for it, else the label that it
    predicts, else a dash."""
    if row.concept:
        return Content.styled(printable(row.concept), "$accent")
    if not row.fires:
        return Content.styled("never fires", "$faint")
    if row.proposed:
        return Content.styled(printable(row.proposed), "italic $muted")
    if row.top_label:
        return Content.styled(printable(row.top_label), "$muted")
    return Content.styled("–", "$faint")


def _auroc(row: "FeatureRow") -> Content:
    known = row.top_auroc is not None and row.fires
    style = "$muted" if known and row.top_label else "$faint"
    return Content.styled(score(row.top_auroc) if known else "–", style)


def _score(row: "FeatureRow") -> Content:
    """Of the name that is shown: a chat model's is scored by detection."""
    value, mark = row.more.get("score"), ""
    if row.explainer:
        value, mark = row.detection, "d "
    if value is None:
        return Content.styled("–", "$faint")
    about = row.fires and _is_of_proposed(row)
    return Content.styled(f"{mark}{score(value)}", "" if about else "$faint")


def _is_of_proposed(row: "FeatureRow") -> bool:
    """Whether the name that is shown is the one that was proposed and scored."""
    return not row.concept or row.accepted


def _text(value: object, style: str = "$muted") -> Content:
    words = (
        " · ".join(str(one).strip() or str(one) for one in value)
        if isinstance(value, tuple)
        else str(value or "")
    )
    return Content.styled(printable(words), style) if words else Content.styled("–", "$faint")


_FORMATS: Mapping[Kind, Callable[[float], str]] = {
    "number": lambda value: f"{value:.0f}",
    "share": density,
    "count": count,
    "activation": lambda value: number(value, 2),
    "score": score,
}
_OWN: Mapping[str, "Callable[[FeatureRow], Content]"] = {
    "meaning": _meaning,
    "auroc": _auroc,
    "score": _score,
}
_OF_PROPOSED = ("score", "detection", "fuzzing")  # not of a name that somebody gave it
_STYLES = {"names": "$accent", "tags": "$secondary", "tokens": "$success", "suppressed": "$error"}


def cell(column: FeatureColumn, row: "FeatureRow") -> Content:
    """What a column says about a feature."""
    if column.name in _OWN:
        return _OWN[column.name](row)
    value = row.more.get(column.name, getattr(row, column.key, None))
    if not column.is_number:
        return _text(value, _STYLES.get(column.name, "$muted"))
    if value is None:
        return Content.styled("–", "$faint")
    about = row.fires and (column.name not in _OF_PROPOSED or _is_of_proposed(row))
    return Content.styled(_FORMATS[column.kind](value), "" if about else "$faint")


@cache
def column_of(name: str) -> FeatureColumn:
    """A column by its name. Raises UserError."""
    return column_named(name)


@dataclass(frozen=True)
class Layout:
    """The columns that fit into a table, with their widths, and those that do not."""

    columns: tuple[tuple[FeatureColumn, int], ...]
    left_out: tuple[str, ...] = ()

    def column_at(self, x: int) -> FeatureColumn | None:
        """The column whose cells, or the gap before them, are at `x`."""
        end = _MARKER
        for column, width in self.columns:
            end += width
            if x < end:
                return column
            end += _GAP
        return None


def layout(names: Sequence[str], needs: Mapping[str, int], width: int) -> Layout:
    """Places the columns `names` in `width` cells. `needs` are the widest cells of each that were
    read; texts share what numbers leave, and the last text takes the rest."""
    columns = [column_of(name) for name in names]
    room = width - 2 * _MARKER
    left_out: list[str] = []
    least, cuts = _least(needs), False
    while len(columns) > 1 and sum(map(least, columns)) + _gaps(columns) > room:
        rest = [c for c in columns if c.name not in _LAST_TO_GO] or columns[-1:]
        if rest[-1].name == "feature":
            rest = columns[-2:-1]
        gone = next((c for name in _FIRST_TO_GO for c in columns if c.name == name), rest[-1])
        if gone.name in _MISSED and not cuts:
            least, cuts = _least(needs, cut=True), True
            continue
        columns.remove(gone)
        left_out.append(gone.name)
    widths = {c.name: least(c) for c in columns}
    texts = sorted((c for c in columns if not c.is_number), key=_wish(needs))
    rest = room - _gaps(columns) - sum(widths[c.name] for c in columns if c.is_number)
    for place, column in enumerate(texts):
        share = rest // (len(texts) - place)
        fewest = widths[column.name]
        widths[column.name] = max(min(_wish(needs)(column), share), min(fewest, rest))
        if column.name == LAYER and widths[LAYER] < needs.get(LAYER, 0):
            widths[LAYER] = min(_BRIEF, rest)
        rest -= widths[column.name]
    if texts:
        last = [c for c in columns if not c.is_number][-1].name
        widths[last] += max(rest, 0)
    return Layout(tuple((c, widths[c.name]) for c in columns), tuple(left_out))


def _gaps(columns: Sequence[FeatureColumn]) -> int:
    return _GAP * (len(columns) - 1)


def _least(needs: Mapping[str, int], *, cut: bool = False) -> Callable[[FeatureColumn], int]:
    """Numbers are never cut; a feature's number leaves a cell for its mark."""

    def least(column: FeatureColumn) -> int:
        if not column.is_number:
            most = (_BRIEF if column.name == LAYER else _CUT) if cut else _ENOUGH
            return max(min(needs.get(column.name, 0), most), _LEAST_TEXT)
        title = min(len(column.title), 12)
        return max(title, needs.get(column.name, 0) + (column.name == "feature"))

    return least


def _wish(needs: Mapping[str, int]) -> Callable[[FeatureColumn], int]:
    return lambda column: min(max(needs.get(column.name, 0), len(column.title) + 1), _MOST_TEXT)


def needs_of(names: Sequence[str], rows: "Sequence[FeatureRow]") -> dict[str, int]:
    """The widest cell of each column in some rows."""
    columns = [column_of(name) for name in names]
    return {c.name: max((cell(c, row).cell_length for row in rows), default=0) for c in columns}


_EMPTY = Content("")


def row_content(
    feature: int, row: "FeatureRow | None", shown: Layout, marker: str, *, marked: bool = False
) -> Content:
    """One line of the table. A row that is not read yet shows only its number."""
    # Put together by hand: a page draws every row, and joining contents takes thrice the time.
    text, spans = marker, []
    for place, (column, width) in enumerate(shown.columns):
        own = _EMPTY
        if row is not None:
            own = cell(column, row)
        elif column.name == "feature":
            own = Content(str(feature))
        if own.cell_length > width and column.name == LAYER:
            own = Content.styled(brief_layer(own.plain), "$muted")
        if own.cell_length > width:
            own = own.truncate(width, ellipsis=True)
        pad = " " * (width - own.cell_length)
        text += " " * _GAP * bool(place) + pad * column.is_number
        start = len(text)
        spans += [Span(start + one.start, start + one.end, one.style) for one in own.spans]
        text += own.plain + pad * (not column.is_number)
    text += " "
    if marked:
        text = f"{text[:_MARKER]}•{text[_MARKER + 1 :]}"
        spans = [one._replace(start=max(one.start, _MARKER + 1)) for one in spans]
        spans.append(Span(_MARKER, _MARKER + 1, "$warning"))
    spans = _blanks_joined(text, sorted(spans))
    if marker.strip():
        spans.append(Span(0, _MARKER, "$primary"))
    return Content(text, spans)


def _blanks_joined(text: str, spans: Sequence[Span]) -> list[Span]:
    """The spans with the blanks behind a coloured text in its colour: each change of colour costs
    the terminal 26 bytes, and a scroll draws every row."""
    starts = [*(span.start for span in spans[1:]), len(text)]
    return [
        Span(one.start, start if text[one.end : start].isspace() else one.end, one.style)
        for one, start in zip(spans, starts, strict=False)
    ]


def titles_content(shown: Layout, sort: str, descending: bool) -> Content:
    """The titles over the columns; the one that sorts carries an arrow, in the gap if need be."""
    line = Content("")
    end = 0
    for column, cells in shown.columns:
        end += cells
        sorts = column.sort == sort
        arrow = ("↓" if descending else "↑") if sorts else ""
        style = "$accent" if sorts else "$faint"
        title = printable(column.title)
        text = Content.styled(title + arrow, style)
        if text.cell_length > cells + (column.is_number and bool(arrow)):  # keep the arrow
            cut = Content(title).truncate(cells - len(arrow), ellipsis=True).plain
            text = Content.styled(cut + arrow, style)
        if column.is_number:
            line = line.pad_right(max(end - text.cell_length - line.cell_length, 0)) + text
        else:
            line = line.pad_right(end - cells - line.cell_length) + fitted(text, cells)
        end += _GAP
    return Content.assemble(" ", line)
