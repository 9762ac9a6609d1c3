"""Some of the texts of a run, beside one another where there is room; pure."""

from collections.abc import Sequence
from itertools import zip_longest
from textwrap import wrap

from textual.content import Content

from mi_crow.store.runs.glance import Glance, SampleText, evenly
from tui.text import printable
from tui.widgets.facts import section

_TEXT_LINES = 3  # of each text at most
_LEAST_TEXTS = 12  # also where they have to be scrolled to
_GAP = 4  # cells between columns
_TEXT_WIDTH = 56  # cells of a column of texts, at least


def some_texts(
    glance: Glance | None, width: int, height: int, title: str = "Some of its texts"
) -> Content | None:
    """Some of the texts, with what is known of each: a dozen, and as many more as fit into `height`
    lines. Beside one another where lines would be too long to read."""
    if glance is None or not glance.texts:
        return None
    columns = max(width // _TEXT_WIDTH, 1)
    room = (width + _GAP) // columns - _GAP
    wanted = max(height // (_TEXT_LINES + 2) * columns, _LEAST_TEXTS)
    texts = evenly(glance.texts, wanted)
    rows, lines = [], 1  # with the title
    for at in range(0, len(texts), columns):
        row = _row([_text(one, room) for one in texts[at : at + columns]], room)
        lines += len(row.plain.splitlines()) + 1
        if lines > height and at >= _LEAST_TEXTS:
            break
        rows.append(row)
    return section(title, Content("\n\n").join(rows))


def _text(one: SampleText, width: int) -> list[Content]:
    held = "" if one.split == "train" else "held out"
    words = [printable(one.label or ""), f"{one.tokens:,} tokens", held]
    about = " · ".join(word for word in words if word)
    lines = wrap(printable(one.text), width, max_lines=_TEXT_LINES, placeholder=" …") or ["–"]
    return [Content.styled(about, "$muted").truncate(width, ellipsis=True), *map(Content, lines)]


def _row(texts: Sequence[list[Content]], width: int) -> Content:
    """Texts beside one another, each in `width` cells."""
    lines = []
    for cells in zip_longest(*texts, fillvalue=Content("")):
        padded = [cell.pad_right(max(width + _GAP - cell.cell_length, 0)) for cell in cells[:-1]]
        lines.append(Content("").join([*padded, cells[-1]]))
    return Content("\n").join(lines)
