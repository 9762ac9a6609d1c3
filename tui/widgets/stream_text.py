"""Text that grows while a model writes it: its end stays in sight unless somebody scrolled up, and
its beginning is shown when it is whole."""

from collections.abc import Sequence
from dataclasses import dataclass

from textual.content import Content

from tui.actions import bindings
from tui.text import printable
from tui.widgets.lists.line_view import LineView
from tui.widgets.token_heat import (
    HeatMarks,
    Line,
    heat_line,
    heat_mode,
    peak_index,
    wrap_tokens,
)

PARTING = "┆"  # where a text leaves the one beside it


@dataclass(frozen=True)
class Passage:
    """One piece of text: the prompt that it continues, and a title when there are several. In a
    chat `turns` are above it: who said what.

    Once its `tokens` are known they carry the `heat` of a feature (`top` has the last step), a
    sign before token number `parts`, and a mark on those that `differ` from another text. `notes`
    are below it.
    """

    prompt: str = ""
    text: str = ""
    title: str = ""
    tokens: tuple[str, ...] = ()
    heat: tuple[float, ...] = ()
    top: float = 0.0
    parts: int | None = None
    notes: tuple[str, ...] = ()
    turns: tuple[tuple[str, str], ...] = ()
    differ: tuple[int, ...] = ()


class StreamText(LineView):
    """Passages under one another; the last one grows."""

    BINDINGS = bindings("scroll")

    def __init__(self, id: str | None = None, empty: str = "") -> None:
        super().__init__(id=id)
        self._passages: list[Passage] = []
        self._start = 0  # the line with which what was written last begins
        self._followed_to = 0  # the topmost line when the end was last brought into sight
        self._empty = empty

    def say_empty(self, sentence: str) -> None:
        """Shows `sentence` while there is no text."""
        if sentence != self._empty:
            self._empty = sentence
            self.rewrap()

    @property
    def text(self) -> str:
        """What was written so far; several passages with their titles."""
        if len(self._passages) == 1:
            return self._passages[0].text
        return "\n\n".join(f"{passage.title}\n{passage.text}" for passage in self._passages)

    def show(self, passages: Sequence[Passage], *, grows: bool = False) -> None:
        """Shows these passages; of one that `grows` the end stays in sight where it is."""
        if list(passages) == self._passages:
            return
        follows = grows and self._is_followed and len(passages) >= len(self._passages)
        self._passages = [*passages]
        self.rewrap()
        if follows:
            self._followed_to = self.max_scroll_y
            self._go_to(self.max_scroll_y)

    @property
    def _is_followed(self) -> bool:
        """Whether nobody has scrolled away from the end since it was brought into sight."""
        return self.scroll_offset.y >= min(self._followed_to, self.max_scroll_y) - 1

    def end_growth(self) -> None:
        """The text is whole: its beginning is shown, unless somebody reads another part of it."""
        if self._is_followed:
            self.go_to_start()

    def go_to_start(self) -> None:
        """Shows the beginning; of a chat that of the last message."""
        self._go_to(min(self._start, self.max_scroll_y))

    def _go_to(self, line: int) -> None:
        self.scroll_to(y=line, animate=False, force=True, immediate=True)

    def rewrap(self) -> None:
        lines: list[Content] = []
        self._start = 0
        for passage in self._passages:
            if lines:
                lines.append(Content(""))
            if passage.title:
                lines.append(Content.styled(printable(passage.title), "bold $accent"))
            for turn in passage.turns:
                self._start = len(lines) if len(self._passages) == 1 else 0
                lines += self._lines_of_turn(*turn)
            lines += self._lines_of(passage)
            for note in passage.notes:
                note_lines = wrap_tokens([note], self.text_width)
                lines += [Content.styled(_text(line), "$muted") for line in note_lines]
        if not self._passages and self._empty:
            lines = [Content.styled(self._empty, "$muted")]
        self.set_lines(lines)

    def _lines_of_turn(self, role: str, said: str) -> list[Content]:
        """Who said it, and the words."""
        return [
            Content.assemble(
                *((piece.text, "$muted" if piece.index else "bold $primary") for piece in line)
            )
            for line in wrap_tokens([f"{role}: ", said.strip()], self.text_width)
        ]

    def _lines_of(self, passage: Passage) -> list[Content]:
        """The prompt in another colour, then the text, with heat where it is known."""
        if passage.turns and not passage.prompt and not passage.text:
            return []
        asked_style = "bold $primary" if passage.turns else "$muted"
        if not passage.tokens:
            return [
                Content.assemble(
                    *((piece.text, "" if piece.index else asked_style) for piece in line)
                )
                for line in wrap_tokens([passage.prompt, passage.text], self.text_width)
            ]
        cut = passage.parts if passage.parts is not None else len(passage.tokens)
        sign = [PARTING] if passage.parts is not None else []
        texts = [passage.prompt, *passage.tokens[:cut], *sign, *passage.tokens[cut:]]
        heat = [0.0, *passage.heat[:cut], *(0.0 for _ in sign), *passage.heat[cut:]]
        differing = frozenset(1 + at + (sign != [] and at >= cut) for at in passage.differ)
        marks = HeatMarks(peak_index(heat), differing=differing)
        mode = heat_mode(self.app)
        lines = []
        for line in wrap_tokens(texts, self.text_width):
            own = [piece for piece in line if piece.index]
            asked = _text(tuple(piece for piece in line if not piece.index))
            hot = heat_line(own, heat, passage.top, mode, marks)
            lines.append(Content.assemble((asked, asked_style), hot) if asked else hot)
        return lines


def _text(line: Line) -> str:
    return "".join(piece.text for piece in line)
