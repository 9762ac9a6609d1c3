"""Vectors as lanes of Inspect's grid: how far along each of them the tokens of the text are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from textual.content import Content

from mi_crow.errors import CorruptDataError
from mi_crow.store.json_object import JsonObject
from tui import messages
from tui.screens.inspect.explaining import Explains
from tui.screens.inspect.popups import Wanted
from tui.screens.vectors.ways import HasVectors
from tui.text import number, printable
from tui.widgets.token_grid import GridRow
from tui.widgets.token_heat import quoted

MOST = 8
_KEY = "vector:"


@dataclass(frozen=True)
class Lane:
    """The projections of a text's tokens on a vector at one layer, in multiples of the vector."""

    vector: str
    layer: str
    acts: tuple[float, ...]

    @property
    def key(self) -> str:
        return f"{_KEY}{self.vector}@{self.layer}"


def lanes_from(found: Mapping[str, Any]) -> list[Lane]:
    """Reads the session's answer. Raises CorruptDataError."""
    try:
        return [
            Lane(str(one["vector"]), str(one["layer"]), tuple(map(float, one["acts"])))
            for one in found.get("vectors") or ()
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptDataError(f"the model session returned no vectors ({error!r})") from error


def lane_rows(lanes: Sequence[Lane]) -> list[GridRow]:
    """Rows of the grid: the projection as a share of the largest on the text, in percent; what
    points the other way has a minus."""
    rows = []
    for lane in lanes:
        most = max((abs(act) for act in lane.acts), default=0.0) or 1.0
        shares = [act / most for act in lane.acts]
        texts = tuple(f"{100 * share:.0f}" if abs(share) >= 0.005 else "" for share in shares)
        heat = tuple(max(share, 0.0) for share in shares)
        rows.append(GridRow(lane.key, f"{lane.vector} {lane.layer}", heat, texts, "→ "))
    return rows


def lane_line(lane: Lane, token: int, tokens: Sequence[str]) -> Content:
    """One cell of a lane in full."""
    return Content.assemble(
        ("→ ", "$accent"),
        (f"{printable(lane.vector)} ", "bold"),
        (f"at {printable(lane.layer)} on ", "$muted"),
        quoted(tokens[token]),
        (f"  {number(lane.acts[token], 3)}", "bold $accent"),
        (" times the vector", "$muted"),
    )


class HasLanes(HasVectors, Explains):
    """The part of Inspect whose grid has vectors beside the features."""

    def __init__(self) -> None:
        super().__init__()
        self._lanes: list[str] = []  # names of vectors
        self._read: tuple[str, tuple[str, ...], list[Lane]] | None = None  # text, names, lanes
        self._asks_for_lanes = False

    async def on_vector_to_inspect(self, message: messages.VectorToInspect) -> None:
        if message.name in self._lanes:
            self._lanes.remove(message.name)
        self._lanes = [message.name, *self._lanes][:MOST]
        if not self._inspection.tokens:
            self.notify(printable(f"{message.name} is a lane of the grid of the next text"))
            return
        self.action_grid()

    def action_grid(self) -> None:
        """Features by tokens, below the vectors that were chosen."""
        names = tuple(self._lanes)
        known = self._read is not None and self._read[:2] == (self.text_read, names)
        if not names or known or not self._inspection.tokens:
            super().action_grid()
            return
        text = self.text_read

        def read(found: dict[str, Any]) -> None:
            self._asks_for_lanes = False
            self._read = text, names, lanes_from(found)
            if text == self.text_read:
                super(HasLanes, self).action_grid()

        if not self.is_working("explain"):
            self._asks_for_lanes = True
            asked = {"top": 1, "vectors": list(names), **self.reading_asked}
            self.ask_session("inspect", read, text=text, **asked)

    def _not_explained(self, error: Exception) -> None:
        if self._asks_for_lanes:  # one of them may be gone, or of another model
            self._lanes.clear()
            self._asks_for_lanes = False
        super()._not_explained(error)

    def lanes(self) -> Sequence[Lane]:
        """Of the text that is shown."""
        if self._read is None or self._read[:2] != (self.text_read, tuple(self._lanes)):
            return ()
        return self._read[2]

    def more_rows(self) -> list[GridRow]:
        return lane_rows(self.lanes())

    def more_line(self, key: str, token: int) -> Content:
        lane = next(one for one in self.lanes() if one.key == key)
        return lane_line(lane, token, self._inspection.tokens)

    async def _wanted(self, wanted: Wanted | None) -> None:
        if wanted is None:
            return
        name = (wanted.target or "").removeprefix(_KEY).rpartition("@")[0]
        if wanted.what == "vectors":
            self.action_vectors(name)
        elif wanted.what == "no lane":
            if name in self._lanes:
                self._lanes.remove(name)
            self.action_grid()
        else:
            await super()._wanted(wanted)

    def lanes_state(self) -> dict[str, Any]:
        return {"lanes": self._lanes} if self._lanes else {}

    def restore_lanes(self, saved: JsonObject) -> None:
        """Takes up what `lanes_state` gave."""
        self._lanes = [str(one) for one in saved.array("lanes", [])][:MOST]
