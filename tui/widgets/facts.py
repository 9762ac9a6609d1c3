"""Named values in two aligned columns: what detail panes are made of."""

from collections.abc import Sequence
from dataclasses import dataclass

from textual.content import Content


@dataclass(frozen=True)
class Fact:
    """One named value. Both are plain text; `style` is the value's."""

    name: str
    value: str
    style: str = "$foreground"


def facts_content(facts: Sequence[Fact], name_width: int = 0) -> Content:
    """The facts one a line; a value that is too long wraps under itself by the widget."""
    width = name_width or max((len(fact.name) for fact in facts), default=0) + 2
    return Content("\n").join(
        [
            Content.assemble((f"{fact.name:<{width}}", "$muted"), (fact.value, fact.style))
            for fact in facts
        ]
    )


def section(title: str, body: Content) -> Content:
    """A titled block."""
    return Content.assemble((title, "bold $primary"), "\n", body)


def blocks(*parts: Content | None) -> Content:
    """The parts that are there, a blank line between them."""
    return Content("\n\n").join([part for part in parts if part is not None and part.plain])
