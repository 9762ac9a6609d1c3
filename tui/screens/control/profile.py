"""The charts of the Control screen: what the blocks of a model do on a text, over depth; pure."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from textual.content import Content

from tui.text import number
from tui.widgets.plot import Axis, Curve, Mark, Point, chart, room_of_each, side_by_side

_STYLES = ("$chart", "$accent", "$primary")
_SIGNS = ("●", "▲", "◆")
_MOST_WIDTH = 76
_THREE = 180  # cells from which all three are beside one another
# Each chart: its title, and its curves as (name, key of a block's row).
_CHARTS = (
    (
        "Norms",
        (("stream", "norm"), ("attention", "attention"), ("MLP", "mlp")),
    ),
    ("Cosine to the stream", (("attention", "attention_cosine"), ("MLP", "mlp_cosine"))),
    ("Entropy of the logit lens, nats", (("", "entropy"),)),
)


def profile_charts(
    profile: Mapping[str, Any], here: str, width: int, height: int
) -> Content | None:
    """The charts, next to each other where they fit; signs are at the block called `here`, whose
    values the titles say. None without blocks."""
    blocks = [row for row in profile.get("blocks") or () if isinstance(row, Mapping)]
    if not blocks:
        return None
    columns = 3 if width >= _THREE else 2 if width >= 76 else 1
    room = min(room_of_each(columns, width), _MOST_WIDTH)
    drawn = [
        lines
        for title, curves in _CHARTS
        if (lines := _chart(blocks, title, curves, here, room, height))
    ]
    return side_by_side(drawn, columns, room)


def _chart(
    blocks: Sequence[Mapping[str, Any]],
    title: str,
    curves: Sequence[tuple[str, str]],
    here: str,
    width: int,
    height: int,
) -> list[Content]:
    drawn, marks, legend = [], [], []
    for (name, key), style, sign in zip(curves, _STYLES, _SIGNS, strict=False):
        points = _points(blocks, key)
        if not points:
            continue
        drawn.append(Curve(points, style))
        value = next((row.get(key) for row in blocks if row.get("name") == here), None)
        if isinstance(value, int | float):
            at = next(float(row["block"]) for row in blocks if row.get("name") == here)
            marks.append(Mark((at, float(value)), sign, style))
            legend.append((f"  {sign} {name} {number(value, 2)}".replace("  ", " "), style))
        else:
            legend.append((f"  {name}", style))
    last = float(max(int(row.get("block", 0)) for row in blocks))
    x = Axis("block", partial(number, digits=0), 0.0, max(last, 1.0))
    y = Axis(title, partial(number, digits=2))
    lines = chart(x, y, width, height, drawn, marks)
    if not lines:
        return []
    return [Content.assemble((title, "bold $primary"), *legend), *lines]


def _points(blocks: Sequence[Mapping[str, Any]], key: str) -> tuple[Point, ...]:
    return tuple(
        (float(row["block"]), float(row[key]))
        for row in blocks
        if isinstance(row.get(key), int | float)
    )
