"""Named values in two aligned columns: what detail panes are made of."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from textwrap import wrap

from textual.content import Content


@dataclass(frozen=True)
class Fact:
    """One named value. Both are plain text; `style` is the value's."""

    name: str
    value: str
    style: str = "$foreground"


def facts_content(facts: Sequence[Fact], name_width: int, width: int) -> Content:
    """The facts in `width` cells: names `name_width` wide, long values wrapped under themselves."""
    return Content("\n").join([_fact(fact, name_width, width) for fact in facts])


def _fact(fact: Fact, name_width: int, width: int) -> Content:
    name = f"{fact.name:<{name_width - 1}} "  # a long name pushes its value to the right
    begin, below = " " * len(name), " " * name_width
    most = max(width, len(name) + 8)
    lines = wrap(fact.value.strip(), most, initial_indent=begin, subsequent_indent=below) or [begin]
    return Content.assemble(
        (name, "$muted"), ("\n".join([lines[0][len(name) :], *lines[1:]]), fact.style)
    )


def beside(left: Content, right: Content, width: int) -> Content:
    """Two blocks next to each other, each in half of `width` cells; what is longer at the right is
    cut, as it would go on below the left one."""
    half = width // 2
    lines = zip_longest(
        left.split("\n", allow_blank=True),
        right.split("\n", allow_blank=True),
        fillvalue=Content(""),
    )
    joined = []
    for one, two in lines:
        head = one.pad_right(max(half - one.cell_length, 1))
        joined.append(Content.assemble(head, two.truncate(width - head.cell_length, ellipsis=True)))
    return Content("\n").join(joined)


def section(title: str, body: Content) -> Content:
    """A titled block."""
    return Content.assemble((title, "bold $primary"), "\n", body)


def blocks(*parts: Content | None) -> Content:
    """The parts that are there, a blank line between them."""
    return Content("\n\n").join([part for part in parts if part is not None and part.plain])
