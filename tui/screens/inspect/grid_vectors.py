"""Vectors as rows of Inspect's grid: how far along each of them the tokens of the text are."""

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
class GridVector:
    """The projections of a text's tokens on a vector at one layer, in multiples of the vector."""

    vector: str
    layer: str
    acts: tuple[float, ...]

    @property
    def key(self) -> str:
        return f"{_KEY}{self.vector}@{self.layer}"


def grid_vectors_from(found: Mapping[str, Any]) -> list[GridVector]:
    """Reads the session's answer. Raises CorruptDataError."""
    try:
        return [
            GridVector(str(one["vector"]), str(one["layer"]), tuple(map(float, one["acts"])))
            for one in found.get("vectors") or ()
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptDataError(f"the model session returned no vectors ({error!r})") from error


def rows_of_vectors(vectors: Sequence[GridVector]) -> list[GridRow]:
    """Rows of the grid: the projection as a share of the largest on the text, in percent; what
    points the other way has a minus."""
    rows = []
    for vector in vectors:
        most = max((abs(act) for act in vector.acts), default=0.0) or 1.0
        shares = [act / most for act in vector.acts]
        texts = tuple(f"{100 * share:.0f}" if abs(share) >= 0.005 else "" for share in shares)
        heat = tuple(max(share, 0.0) for share in shares)
        rows.append(GridRow(vector.key, f"{vector.vector} {vector.layer}", heat, texts, "→ "))
    return rows


def vector_line(vector: GridVector, token: int, tokens: Sequence[str]) -> Content:
    """One cell of a vector in full."""
    return Content.assemble(
        ("→ ", "$accent"),
        (f"{printable(vector.vector)} ", "bold"),
        (f"at {printable(vector.layer)} on ", "$muted"),
        quoted(tokens[token]),
        (f"  {number(vector.acts[token], 3)}", "bold $accent"),
        (" times the vector", "$muted"),
    )


class HasGridVectors(HasVectors, Explains):
    """The part of Inspect whose grid has vectors beside the features."""

    def __init__(self) -> None:
        super().__init__()
        self._vector_names: list[str] = []  # names of vectors
        # Text, names, vectors.
        self._read: tuple[str, tuple[str, ...], list[GridVector]] | None = None
        self._asks_for_vectors = False

    async def on_vector_to_inspect(self, message: messages.VectorToInspect) -> None:
        if message.name in self._vector_names:
            self._vector_names.remove(message.name)
        self._vector_names = [message.name, *self._vector_names][:MOST]
        if not self._inspection.tokens:
            self.notify(printable(f"{message.name} is a row of the grid of the next text"))
            return
        self.action_grid()

    def action_grid(self) -> None:
        """Features by tokens, below the vectors that were chosen."""
        names = tuple(self._vector_names)
        known = self._read is not None and self._read[:2] == (self.text_read, names)
        if not names or known or not self._inspection.tokens:
            super().action_grid()
            return
        text = self.text_read

        def read(found: dict[str, Any]) -> None:
            self._asks_for_vectors = False
            self._read = text, names, grid_vectors_from(found)
            if text == self.text_read:
                super(HasGridVectors, self).action_grid()

        if not self.is_working("explain"):
            self._asks_for_vectors = True
            asked = {"top": 1, "vectors": list(names), **self.reading_asked}
            self.ask_session("inspect", read, text=text, **asked)

    def _not_explained(self, error: Exception) -> None:
        if self._asks_for_vectors:  # one of them may be gone, or of another model
            self._vector_names.clear()
            self._asks_for_vectors = False
        super()._not_explained(error)

    def grid_vectors(self) -> Sequence[GridVector]:
        """Of the text that is shown."""
        if self._read is None or self._read[:2] != (self.text_read, tuple(self._vector_names)):
            return ()
        return self._read[2]

    def more_rows(self) -> list[GridRow]:
        return rows_of_vectors(self.grid_vectors())

    def more_line(self, key: str, token: int) -> Content:
        vector = next(one for one in self.grid_vectors() if one.key == key)
        return vector_line(vector, token, self._inspection.tokens)

    async def _wanted(self, wanted: Wanted | None) -> None:
        if wanted is None:
            return
        name = (wanted.target or "").removeprefix(_KEY).rpartition("@")[0]
        if wanted.what == "vectors":
            self.action_vectors(name)
        elif wanted.what == "remove vector":
            if name in self._vector_names:
                self._vector_names.remove(name)
            self.action_grid()
        else:
            await super()._wanted(wanted)

    def grid_vectors_state(self) -> dict[str, Any]:
        return {"grid_vectors": self._vector_names} if self._vector_names else {}

    def restore_grid_vectors(self, saved: JsonObject) -> None:
        """Takes up what `grid_vectors_state` gave."""
        self._vector_names = [str(one) for one in saved.array("grid_vectors", [])][:MOST]
