"""One line that names a feature: `name #tag #tag ~0.8 -- note`. Torch-free."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from mi_crow.errors import UserError

_NOTE = re.compile(r"(?:^|\s)--(?:\s+|$)")
_LAST_WORD = re.compile(r"(?:^|\s)(?P<word>[#~]\S+)\s*$")
_STANDS_IN = "name"  # for one that was offered


@dataclass(frozen=True)
class NamingLine:
    """What the line says; None where it says nothing about it."""

    name: str
    tags: tuple[str, ...] = ()
    confidence: float | None = None
    note: str | None = None
    beside: bool = False  # a further name, beside those that the feature has


def parse_naming(text: str, offered: str = "") -> NamingLine:
    """The line, read from its end: a `#` or `~` inside a name stays where it is. One that begins
    with `+` is a further name. A name that was `offered`, and stands at its beginning, is a name
    whatever is in it: what a language model wrote sets no tags and no confidence.

    Raises UserError for a confidence that is none.

    >>> parse_naming("rain #weather ~0.8 -- also hail").note
    'also hail'
    >>> parse_naming("words -- ~2 #wet", offered="words -- ~2").name
    'words -- ~2'
    """
    if offered and text.startswith(offered):
        more = parse_naming(_STANDS_IN + text[len(offered) :])
        if more.name == _STANDS_IN:
            return replace(more, name=offered.strip())
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
    name = head.strip()
    beside = name.startswith("+") and bool(name[1:].strip())
    if beside:
        name = name[1:].strip()
    return NamingLine(name, tuple(dict.fromkeys(tags)), confidence, said, beside)


def as_line(name: str, tags: Sequence[str], confidence: float, note: str) -> str | None:
    """The line that says this, for somebody to edit, the confidence with three digits; None where
    it would be read as another.

    >>> as_line("rain", ["wet"], 0.8, "also hail")
    'rain #wet ~0.8 -- also hail'
    """
    parts = [name, *(f"#{tag}" for tag in tags)]
    rounded = float(f"{confidence:.3g}")
    parts += [f"~{rounded:g}"] if rounded != 1 else []
    line = " ".join(parts) + (f" -- {note}" if note else "")
    try:
        said = parse_naming(line)
    except UserError:
        return None
    found = said.name, said.tags, said.note or "", said.beside
    same = found == (name, tuple(tags), note, False)
    return line if same and "\n" not in note else None


def complete_naming(text: str, names: Iterable[str], tags: Iterable[str]) -> list[str]:
    """Whole lines that continue `text`: its last word, when that begins a known tag, or all of it,
    when it begins a known name.

    >>> complete_naming("rain #we", ["rain"], ["weather"])
    ['rain #weather']
    """
    head, mark, word = text.rpartition("#")
    if mark and not word.startswith(" ") and (not head or head[-1].isspace()):
        begun = word.casefold()
        return [f"{head}#{tag}" for tag in tags if tag.casefold().startswith(begun) and word]
    prefix = "+" if text.startswith("+") else ""
    begun = text[len(prefix) :].lstrip().casefold()
    lead = text[: len(text) - len(begun)]
    if not begun:
        return []
    return [f"{lead}{name}" for name in names if name.casefold().startswith(begun)]


def complete_tags(text: str, tags: Iterable[str]) -> list[str]:
    """Whole lists of tags, commas between them, whose last one is a known tag that `text` begins;
    one that begins with - is taken away.

    >>> complete_tags("wet, -we", ["weather"])
    ['wet, -weather']
    """
    head, comma, last = text.rpartition(",")
    word = last.lstrip()
    sign = "-" if word.startswith("-") else ""
    begun = word[len(sign) :]
    lead = f"{head}{comma}{last[: len(last) - len(word)]}{sign}"
    found = [tag for tag in tags if begun and tag.casefold().startswith(begun.casefold())]
    return [f"{lead}{tag}" for tag in found]


def _confidence(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise UserError(f"~{text} is not a confidence", hint="write ~0 to ~1, for example ~0.8")
    return value
