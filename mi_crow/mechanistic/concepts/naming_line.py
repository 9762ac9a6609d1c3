"""One line that names a feature: `name #tag #tag ~0.8 -- note`. Torch-free."""

import re
from dataclasses import dataclass

from mi_crow.errors import UserError

_NOTE = re.compile(r"(?:^|\s)--(?:\s+|$)")
_LAST_WORD = re.compile(r"(?:^|\s)(?P<word>[#~]\S+)\s*$")


@dataclass(frozen=True)
class NamingLine:
    """What the line says; None where it says nothing about it."""

    name: str
    tags: tuple[str, ...] = ()
    confidence: float | None = None
    note: str | None = None


def parse_naming(text: str) -> NamingLine:
    """The line, read from its end: a `#` or `~` inside a name stays where it is.

    Raises UserError for a confidence that is none.

    >>> parse_naming("rain #weather ~0.8 -- also hail")
    NamingLine(name='rain', tags=('weather',), confidence=0.8, note='also hail')
    """
    head, *note = _NOTE.split(text, maxsplit=1)
    tags: list[str] = []
    confidence = None
    while (last := _LAST_WORD.search(head)) is not None:
        word = last["word"]
        if word.startswith("#"):
            tags.insert(0, word[1:])
        elif confidence is None:
            confidence = _confidence(word[1:])
        else:
            raise UserError("two confidences are given", hint="keep one, for example ~0.8")
        head = head[: last.start()]
    said = note[0].strip() if note else None
    return NamingLine(head.strip(), tuple(dict.fromkeys(tags)), confidence, said)


def _confidence(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise UserError(f"~{text} is not a confidence", hint="write ~0 to ~1, for example ~0.8")
    return value
