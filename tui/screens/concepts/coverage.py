"""The popup that shows how much the names explain, and the curve over their rank."""

from typing import TYPE_CHECKING

from textual.app import ComposeResult
from textual.content import Content
from textual.widgets import Static

from tui.actions import bindings
from tui.screens.concepts.rows import percent
from tui.widgets.frame.popup import Popup
from tui.widgets.plot import Axis, Curve, chart

if TYPE_CHECKING:
    from mi_crow.mechanistic.concepts.coverage import Coverage

_WIDTH, _HEIGHT = 60, 8


class CoveragePopup(Popup[None]):
    """Figures and the curve; nothing to choose."""

    HEADING = "Coverage"
    BINDINGS = bindings("popup", "close")

    def __init__(self, found: "Coverage") -> None:
        super().__init__(classes="coverage")
        self._found = found

    def compose_box(self) -> ComposeResult:
        yield Static(coverage_text(self._found), markup=False)


def coverage_text(found: "Coverage") -> Content:
    """The figures, then what this many names explain and could explain."""
    parts = [
        _line(f"{found.named:,}", f"of {found.alive:,} firing features have a name"),
        _line(percent(found.firings), "of all firings are theirs"),
        _line(percent(found.documents), "of the texts have one among their strongest"),
        _line(percent(found.strongest), "of the texts have a name for the strongest"),
    ]
    curve = found.curve
    if len(curve) > 1:
        ours = tuple((float(place), one.share) for place, one in enumerate(curve))
        could = tuple((float(place), one.possible) for place, one in enumerate(curve))
        names = [f"{one.names:,}" for one in curve]
        lines = chart(
            Axis("names, those that fire most first", lambda x: names[round(x)]),
            Axis("share", percent, low=0.0),
            _WIDTH,
            _HEIGHT,
            [Curve(could, "$faint"), Curve(ours, "$accent")],
        )
        legend = Content.assemble(
            ("share of firings: ", "$muted"),
            ("━ these names", "$accent"),
            ("  ━ as many that fire most", "$faint"),
        )
        parts += [Content(""), legend, *lines]
    return Content("\n").join(parts)


def _line(figure: str, words: str) -> Content:
    return Content.assemble((f"{figure:>7}", "bold $accent"), (f"  {words}", "$muted"))
