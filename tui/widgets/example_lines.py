"""One text on which a feature fires, as lines: a window, one line, aligned at the peak, or all of
it; pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from rich.cells import cell_len
from textual.content import Content

from tui.text import number, printable
from tui.widgets.token_heat import (
    HeatMarks,
    HeatMode,
    Line,
    Piece,
    heat_line,
    quoted,
    token_window,
    wrap_tokens,
)

if TYPE_CHECKING:
    from mi_crow.mechanistic.features.records import Example

ExampleLook = Literal["windows", "lines", "aligned", "documents"]
LOOKS: tuple[ExampleLook, ...] = get_args(ExampleLook)

_ELLIPSIS = "…"
_WITHIN_WORDS = "'’_"
_ENDS_PHRASES = tuple(".,;:!?)]}»”")  # no text begins with one
_LONG_WORD = 16  # cells
_ALIKE = 16  # tokens on either side of the peak by which examples are the same
_LONGEST = 20_000  # characters of a document that are wrapped on either side of the window
_ACTIVATION = 7


@dataclass(frozen=True)
class Folded:
    """An example, and how often the same text around the same peak occurs among those shown."""

    example: "Example"
    times: int = 1


def folded(examples: "Sequence[Example]") -> tuple[Folded, ...]:
    """The examples in their order, each text once: data sets repeat their documents."""
    first: dict[tuple[str, ...], Example] = {}
    times: dict[tuple[str, ...], int] = {}
    for example in examples:
        peak = peak_place(example)
        begin = max(peak - _ALIKE, 0)
        key = (str(peak - begin), *example.tokens[begin : peak + _ALIKE + 1])
        first.setdefault(key, example)
        times[key] = times.get(key, 0) + 1
    return tuple(Folded(example, times[key]) for key, example in first.items())


def peak_place(example: "Example") -> int:
    """Where the peak is among the tokens of the window."""
    return min(max(example.position - example.window_start, 0), max(len(example.tokens) - 1, 0))


@dataclass(frozen=True)
class Drawing:
    """How examples are drawn. `top` is the activation of the last heat step, so that the examples
    of one feature compare."""

    top: float
    width: int
    mode: HeatMode = "colour"

    def windows(self, one: Folded, max_lines: int) -> list[Content]:
        """The peak written out, then the tokens around it in at most `max_lines` lines."""
        example, width = one.example, self.width
        texts, acts, peak = list(example.tokens), list(example.acts), peak_place(example)
        lines: Sequence[Line] = ()
        values: list[float] = []
        marks = HeatMarks()
        for cut in range(4):  # words that do not break well need more room than they count
            cells = (width - 1) * max_lines - 2 - cut * (width // 6)
            start, stop = token_window(texts, peak, cells) if texts else (0, 0)
            start = _next_word(texts, start, peak, example.before)
            stop = _last_word(texts, stop, peak + 1, example.after)
            before = [_ELLIPSIS] if start > 0 or example.window_start > 0 else []
            after = [_ELLIPSIS] if stop < len(texts) else []
            lines = wrap_tokens([*before, *texts[start:stop], *after], width)
            values = [0.0] * len(before) + acts[start:stop] + [0.0] * len(after)
            marks = HeatMarks(
                peak=peak - start + len(before),
                dimmed=frozenset(([0] if before else []) + ([len(values) - 1] if after else [])),
            )
            if len(lines) <= max_lines:
                break
        lines = _around(lines, marks.peak, max_lines)
        return [self._head(one), *(self._heat(line, values, marks) for line in lines)]

    def document(self, one: Folded) -> list[Content]:
        """The peak written out, then the whole text; heat only where activations are kept."""
        example = one.example
        before, after = example.before, example.after
        cut = len(before) - _LONGEST, len(after) - _LONGEST
        first = f"{_ELLIPSIS}{before[-_LONGEST:]}" if cut[0] > 0 else before
        last = f"{after[:_LONGEST]}{_ELLIPSIS}" if cut[1] > 0 else after
        values = [0.0, *example.acts, 0.0]
        marks = HeatMarks(peak=peak_place(example) + 1)
        lines = wrap_tokens([first, *example.tokens, last], self.width)
        return [self._head(one), *(self._heat(line, values, marks) for line in lines)]

    def line(self, one: Folded) -> Content:
        """One line: the activation and the tokens around the peak."""
        return self._row(one, share=2 / 3, align=False)

    def aligned(self, one: Folded) -> Content:
        """One line with the peak in the same column as in all others."""
        return self._row(one, share=0.5, align=True)

    def _row(self, one: Folded, share: float, align: bool) -> Content:
        example = one.example
        peak, texts = peak_place(example), example.tokens
        times = f" ×{one.times}" if one.times > 1 else ""
        room = max(self.width - _ACTIVATION - 1 - len(times), 8)
        token = printable(texts[peak]) if texts else ""
        token = token[: room // 2]
        space = room - cell_len(token)
        first, begin = _cut_before(texts[:peak], example.before, int(space * share))
        used = cell_len(begin) + sum(cell_len(printable(text)) for text in texts[first:peak])
        left = int(space * share) if align else used
        stop, end = _cut_after(texts[peak + 1 :], example.after, space - left)
        stop += peak + 1
        around = range(first, max(stop, peak + 1) if texts else 0)
        parts = [" " * (left - used), begin]
        parts += [token if at == peak else printable(texts[at]) for at in around]
        parts.append(end)
        line = tuple(Piece(at, text) for at, text in enumerate(parts) if text)
        marks = HeatMarks(peak=2 + peak - first, dimmed=frozenset((1, len(parts) - 1)))
        body = self._heat(line, [0.0, 0.0, *(example.acts[at] for at in around)], marks)
        head = Content.styled(
            f"{number(example.activation, 2):>{_ACTIVATION - 1}} ", "bold $accent"
        )
        return Content.assemble(head, body, (times, "$muted")).truncate(self.width, ellipsis=True)

    def _heat(self, line: Line, values: Sequence[float], marks: HeatMarks) -> Content:
        return heat_line(line, values, self.top, self.mode, marks)

    def _head(self, one: Folded) -> Content:
        """The peak and where it is. Where there is no room the label goes and the token is cut; the
        document's number never is."""
        example = one.example
        token = quoted(example.tokens[peak_place(example)]) if example.tokens else ""
        label = f"   {printable(example.label)}" if example.label else ""
        peak = Content.styled(
            f"{number(example.activation, 2):>{_ACTIVATION - 1}} ", "bold $accent"
        )
        room, rest = 0, Content("")
        for words, where, same in (
            (label, "   document", " the same text"),
            (label, "   doc", ""),
            ("", "   doc", ""),
        ):
            rest = Content.assemble(
                (words, "$muted"),
                (f"{where} {example.document}", "$faint"),
                (f"   ×{one.times}{same}" if one.times > 1 else "", "$muted"),
            )
            room = self.width - peak.cell_length - rest.cell_length
            if room >= cell_len(token):
                break
        cut = Content(token).truncate(max(room, 1), ellipsis=True)
        return Content.assemble(peak, cut, rest).truncate(self.width, ellipsis=True)


def _cut_before(texts: Sequence[str], before: str, cells: int) -> tuple[int, str]:
    """The first of the tokens before a peak that fit into `cells`, and the ellipsis where there is
    more: `before` is what stands before them. Cut between words; within one that is very long."""
    first = len(texts) - _fitting(texts[::-1], cells)
    if first == 0 and not before:
        return 0, ""
    kept = len(texts) - _fitting(texts[::-1], cells - 1)
    return _next_word(texts, kept, len(texts), before), _ELLIPSIS[: max(cells, 0)]


def _cut_after(texts: Sequence[str], after: str, cells: int) -> tuple[int, str]:
    """How many of the tokens after a peak fit into `cells`, and the ellipsis, as before it."""
    if not after and _fitting(texts, cells) == len(texts):
        return len(texts), ""
    return _last_word(texts, _fitting(texts, cells - 1), 0, after), _ELLIPSIS[: max(cells, 0)]


def _next_word(texts: Sequence[str], start: int, most: int, before: str) -> int:
    """Where the next word begins, from `start` on, at `most` there; `before` is what stands before
    all. Within a word that is very long it is `start`."""
    ends = [before[-1:], *(text[-1:] for text in texts)]
    ends_phrase = _ENDS_PHRASES if before or start else ()  # all of a text is shown as it is
    words = (
        at
        for at in range(start, most)
        if texts[at][:1] not in ends_phrase and not _in_word(ends[at], texts[at][:1])
    )
    first = next(words, most)
    return start if _is_long(texts[start:first]) else first


def _last_word(texts: Sequence[str], stop: int, least: int, after: str) -> int:
    """Where the last word before `stop` ends, not before `least`; as `_next_word` does."""
    starts = [*(text[:1] for text in texts), after[:1]]
    words = (at for at in range(stop, least, -1) if not _in_word(texts[at - 1][-1:], starts[at]))
    last = next(words, least)
    return stop if _is_long(texts[last:stop]) else last


def _is_long(texts: Sequence[str]) -> bool:
    """Whether a part of a word is too much to leave out, as in languages without spaces."""
    return sum(map(cell_len, texts)) > _LONG_WORD


def _fitting(texts: Sequence[str], cells: int) -> int:
    """How many of the texts, from the first one, fit into `cells`."""
    for at, text in enumerate(texts):
        cells -= cell_len(printable(text))
        if cells < 0:
            return at
    return len(texts)


def _in_word(last: str, first: str) -> bool:
    """Whether two characters that follow one another belong to one word. Those as wide as two
    cells are words of their own."""
    return bool(first) and all(
        cell_len(one) < 2 and (one.isalnum() or one in _WITHIN_WORDS) for one in (last, first)
    )


def _around(lines: Sequence[Line], peak: int | None, count: int) -> Sequence[Line]:
    """At most `count` of the lines, the one with the peak among them (line feeds make many)."""
    at = next((n for n, line in enumerate(lines) if any(p.index == peak for p in line)), 0)
    first = max(0, min(at - count + 2, len(lines) - count))
    return lines[first : first + count]
