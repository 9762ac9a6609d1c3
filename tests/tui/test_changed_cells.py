"""What is sent of a frame, read by a small terminal: it shows the whole frame, for fewer bytes."""

import os
import random
import re
import subprocess
import sys
from collections.abc import Iterable
from itertools import product

import pytest
from rich.cells import cell_len
from rich.color import ColorSystem
from rich.console import Console
from rich.segment import Segment
from rich.style import Style
from textual._compositor import ChopsUpdate, LayoutUpdate
from textual.geometry import Region
from textual.strip import Strip

from tui.terminal.changed_cells import ChangedCells, SentFrame

WIDTH, HEIGHT = 24, 12
STYLES = (
    None,
    Style.parse("bold red on blue"),
    Style.parse("red on blue"),
    Style.parse("#102030 on #405060"),
    Style.parse("underline reverse"),
    Style.parse("italic red on blue"),
)
WORDS = ("a word", "and ", "another", "  ", " " * 14, "wide 漢字", "é", "👩\u200d🔬")
_PART = re.compile("\x1b\\[([0-9;]*)([HmrLMXCG])|([^\x1b])")


class Shown:
    """A terminal that knows how to move, how to scroll, how to colour and how to write."""

    def __init__(self) -> None:
        self.cells = {(y, x): ("?", "") for y in range(HEIGHT) for x in range(WIDTH)}
        self._look = ["", "39", "49"]

    def read(self, sent: str) -> None:
        y = x = 0
        bottom = HEIGHT - 1
        for values, kind, character in _PART.findall(sent):
            if kind == "H":
                y, x = (int(value) - 1 for value in values.split(";"))
            elif kind == "r":
                edges = [int(value) - 1 for value in values.split(";") if value]
                bottom = edges[1] if edges else HEIGHT - 1
            elif kind in ("L", "M"):
                self._scroll(y, bottom, int(values) * (1 if kind == "M" else -1))
            elif kind == "m":
                self._turn(values.split(";"))
            elif kind == "X":  # erases in the background that is set
                blank = " ", f"||{self._look[2]}"
                self.cells |= {(y, at): blank for at in range(x, x + int(values))}
            elif kind == "C":
                x += int(values)
            elif kind == "G":
                x = int(values) - 1
            else:
                for _ in range(max(cell_len(character), 1)):
                    self.cells[y, x] = (character, self._seen(character))
                    x += 1

    def _seen(self, character: str) -> str:
        """What is seen of the look: of a blank without lines the background."""
        attributes, _, background = self._look
        if character == " " and not {"4", "7"} & set(attributes.split(";")):
            return f"||{background}"
        return "|".join(self._look)

    def _scroll(self, top: int, bottom: int, by: int) -> None:
        blank = {(-1, x): (" ", "|".join(self._look)) for x in range(WIDTH)}
        before = self.cells | blank
        for y, x in product(range(top, bottom + 1), range(WIDTH)):
            self.cells[y, x] = before[y + by if top <= y + by <= bottom else -1, x]

    def _turn(self, values: list[str]) -> None:
        while values:
            value = values.pop(0)
            if value == "0":
                self._look = ["", "39", "49"]
            elif value in ("22", "23"):  # no longer bold, no longer italic
                ended = {"22": ";1", "23": ";3"}[value]
                self._look[0] = self._look[0].replace(ended, "")
            elif (value[:1] in "349" and len(value) > 1) or value.startswith("10"):
                more = values[: {"5": 2, "2": 4}[values[0]]] if value in ("38", "48") else []
                values = values[len(more) :]
                self._look[1 if value[:1] in "39" else 2] = ";".join([value, *more])
            else:
                self._look[0] += f";{value}"


def line(random_one: random.Random, words: tuple[str, ...] = WORDS) -> Strip:
    segments: list[Segment] = []
    while sum(segment.cell_length for segment in segments) < WIDTH:
        segments.append(Segment(random_one.choice(words), random_one.choice(STYLES)))
    return Strip(segments).crop(0, WIDTH)


def update(lines: list[Strip]) -> LayoutUpdate:
    return LayoutUpdate([[one] for one in lines], Region(0, 0, WIDTH, len(lines)))


def sent(frame: SentFrame, of: LayoutUpdate | ChopsUpdate) -> str:
    return frame.changes(of, (WIDTH, HEIGHT), ColorSystem.TRUECOLOR)


def test_after_any_frames_the_terminal_shows_the_last_of_them() -> None:
    chance = random.Random(7)
    frame, shown = SentFrame(), Shown()
    words = tuple(word for word in WORDS if "\u200d" not in word)  # the small terminal has no such
    lines = [line(chance, words) for _ in range(HEIGHT)]
    for _ in range(300):
        if chance.random() < 0.4:  # a list scrolls, by some lines up or down
            first, last = sorted(chance.sample(range(HEIGHT + 1), 2))
            by = chance.randint(1, 3)
            part, new = lines[first:last], [line(chance, words) for _ in range(by)]
            part = [*part, *new][by:] if chance.random() < 0.5 else [*new, *part][: last - first]
            lines[first:last] = part[: last - first]
        lines[chance.randrange(HEIGHT)] = line(chance, words)
        if chance.random() < 0.5:
            shown.read(sent(frame, update(lines)))
        else:
            y = chance.randrange(HEIGHT)
            spans = [(y, 0, WIDTH)]
            shown.read(
                sent(frame, ChopsUpdate([{0: one} for one in lines], spans, [[WIDTH]] * HEIGHT))
            )
        shown.read(sent(frame, update(lines)))
        whole = Shown()
        whole.read(sent(SentFrame(), update(lines)))
        assert shown.cells == whole.cells


@pytest.mark.parametrize("emoji", ["\U0001f3f3\ufe0f", "\U0001f44d\U0001f3fd", "q\u0301", "👩"])
@pytest.mark.parametrize("width", [1, 2, 4])
def test_what_is_behind_an_emoji_stands_where_it_belongs_however_wide_the_terminal_takes_it(
    monkeypatch: pytest.MonkeyPatch, emoji: str, width: int
) -> None:
    own = cell_len(emoji)
    monkeypatch.setattr(f"{__name__}.cell_len", lambda text: width if text in emoji else 1)
    frame, shown = SentFrame(), Shown()
    lines = [f"a {emoji} one two {emoji}three", "another line", f"a{emoji} four", "plain"]
    for text in lines:
        shown.read(sent(frame, update([Strip([Segment(text)]).adjust_cell_length(WIDTH)])))
        at = 0
        for part in re.split(f"({emoji})", text):
            if part == emoji:
                at += own
                continue
            for letter in part:
                if letter != " ":
                    assert shown.cells[0, at][0] == letter
                at += 1
        assert all(shown.cells[0, x][0] == " " for x in range(at, WIDTH))


def test_a_frame_that_stands_already_sends_nothing() -> None:
    chance, frame = random.Random(3), SentFrame()
    lines = [line(chance) for _ in range(HEIGHT)]
    assert sent(frame, update(lines))
    assert sent(frame, update(lines)) == ""
    frame.forget()
    assert sent(frame, update(lines))


def test_a_frame_is_taken_as_sent_once_it_was_asked_for() -> None:
    frame, console = SentFrame(), Console(color_system="truecolor")
    whole = update([Strip([Segment("a word".ljust(WIDTH))])] * HEIGHT)
    first, second = (ChangedCells(whole, frame, (WIDTH, HEIGHT)) for _ in range(2))
    assert not first.is_nothing(console)
    assert "a word" in first.render_segments(console)
    assert second.is_nothing(console)
    assert second.render_segments(console) == ""


def test_one_changed_word_is_sent_whole_and_alone() -> None:
    frame = SentFrame()
    sent(frame, update([Strip([Segment("one red word here      .")])]))
    changed = sent(frame, update([Strip([Segment("one rod word here      .")])]))
    assert changed == "\x1b[1;5Hrod"


def test_another_size_of_the_terminal_sends_everything() -> None:
    frame, lines = SentFrame(), [line(random.Random(1)) for _ in range(HEIGHT)]
    first = sent(frame, update(lines))
    assert frame.changes(update(lines), (WIDTH + 1, HEIGHT), ColorSystem.TRUECOLOR) == first


def test_a_list_that_scrolls_sends_the_new_line_alone() -> None:
    chance, frame, shown = random.Random(2), SentFrame(), Shown()
    words = tuple(word for word in WORDS if "\u200d" not in word)
    lines = [line(chance, words) for _ in range(HEIGHT + 1)]
    shown.read(sent(frame, update(lines[:HEIGHT])))
    for rows, new in ((lines[1:], lines[HEIGHT]), (lines[:HEIGHT], lines[0])):
        scrolled = sent(frame, update(rows))
        shown.read(scrolled)
        alone = sent(SentFrame(), update([new]))
        assert len(scrolled) < len(alone) + 40
        whole = Shown()
        whole.read(sent(SentFrame(), update(rows)))
        assert shown.cells == whole.cells


def test_a_list_beside_something_that_stays_is_sent_without_scrolling() -> None:
    frame = SentFrame()
    left = [line(random.Random(place)).crop(0, 12) for place in range(HEIGHT + 1)]
    right = [line(random.Random(100 + place)).crop(12, 24) for place in range(HEIGHT)]

    def beside(rows: list[Strip]) -> LayoutUpdate:
        pairs: list[Iterable[Strip]] = [list(pair) for pair in zip(rows, right, strict=False)]
        return LayoutUpdate(pairs, Region(0, 0, WIDTH, HEIGHT))

    sent(frame, beside(left))
    assert not re.search(r"\x1b\[\d+[LM]", sent(frame, beside(left[1:])))


def test_a_long_blank_is_erased_where_the_terminal_can() -> None:
    blank = update([Strip([Segment("a", STYLES[2]), Segment(" " * 20, STYLES[2]), Segment("b")])])
    assert " " * 12 not in sent(SentFrame(), blank)
    assert sent(SentFrame(), blank).endswith("a\x1b[20X\x1b[39;49m\x1b[20Cb")
    assert " " * 20 in sent(SentFrame(erases=False), blank)
    lined = update([Strip([Segment(" " * 21, Style(underline=True))])])
    assert " " * 21 in sent(SentFrame(), lined)


def test_a_blank_in_another_colour_is_the_same_blank() -> None:
    frame = SentFrame()
    sent(frame, update([Strip([Segment("word    ", Style.parse("red on blue"))])]))
    again = sent(frame, update([Strip([Segment("word    ", Style.parse("green on blue"))])]))
    assert again.count("m") == 2  # into green, and out of it
    assert again.endswith("word\x1b[0m")


@pytest.mark.parametrize(("begins", "ended"), [("bold", "22"), ("italic", "23")])
def test_what_is_no_longer_bold_keeps_its_ground(begins: str, ended: str) -> None:
    words = [Segment("title", Style.parse(f"{begins} red on blue"))]
    words += [Segment("text", Style.parse("green on blue"))]
    whole = sent(SentFrame(), update([Strip(words)]))
    assert f"title\x1b[{ended};32mtext" in whole


@pytest.mark.parametrize(
    ("environment", "erases"),
    [
        ({"TERM": "xterm-256color"}, True),
        ({"TERM": "screen"}, False),
        ({"TERM": "no such terminal"}, False),
        ({"TERM": "screen", "TMUX": "/tmp/tmux-0/default,1,0"}, True),
    ],
)
def test_terminals_that_erase_in_colour(environment: dict[str, str], erases: bool) -> None:
    # One process for each: terminfo is read once.
    asked = "from tui.terminal.erasing import erases_in_colour; print(erases_in_colour())"
    own = {name: value for name, value in os.environ.items() if name not in ("TERM", "TMUX")}
    done = subprocess.run(
        [sys.executable, "-c", asked], env=own | environment, capture_output=True, text=True
    )
    assert done.stdout.strip() == str(erases)
