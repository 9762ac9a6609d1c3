"""Text from datasets and models as data: nothing in it can move the cursor or style the screen."""

import re
import unicodedata
from time import localtime, strftime
from typing import Final

from mi_crow.visible import REPLACEMENT, is_blank, is_clean

_SYMBOLS = {"\n": "⏎", "\t": "⇥", "\r": "␍", "\x7f": "␡"}
_MOST: Final = 400  # characters of a sentence: five lines of 80 columns
OF_A_LINE: Final = 200  # of one above or below a field
_QUOTED = re.compile("(['\"“])(.{80,})(['\"”])", re.DOTALL)
# Control, format (bidi overrides, zero-width), surrogate, private-use and separator characters.
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def printable(text: str, *, keep_newlines: bool = False) -> str:
    """`text` with every control or invisible character shown as one visible symbol.

    A character stays one character, so that positions into the text stay right. With
    `keep_newlines` a line feed still ends the line.
    """
    if is_clean(text):
        return text
    return "".join(
        character if keep_newlines and character == "\n" else _visible(character)
        for character in text
    )


def _visible(character: str) -> str:
    if character in _SYMBOLS:
        return _SYMBOLS[character]
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)  # the block of pictures for control characters
    hidden = unicodedata.category(character) in _HIDDEN or is_blank(character)
    return REPLACEMENT if hidden else character


def brief(sentence: str, most: int = _MOST) -> str:
    """A sentence that a screen has room for: of a long one what it quotes is cut, so that the
    words behind it, which say what is wrong, are seen; then its end."""
    if len(sentence) > most:
        sentence = _QUOTED.sub(lambda found: f"{found[1]}{found[2][:79]}…{found[3]}", sentence)
    return sentence if len(sentence) <= most else f"{sentence[: most - 1]}…"


def count(value: float) -> str:
    """A count in at most five characters: 950, 9,501, 21.4k, 1.25M."""
    if value < 10_000:
        return f"{value:,.0f}"
    for size, suffix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size * 0.9995:
            scaled = value / size
            return f"{scaled:.{2 if scaled < 9.995 else 1 if scaled < 99.95 else 0}f}{suffix}"
    return f"{value:.0f}"


def size(n_bytes: float) -> str:
    """Bytes for people: 812 B, 4.1 MB, 23 GB."""
    value = float(n_bytes)
    for suffix in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return (
                f"{value:.0f} {suffix}"
                if suffix == "B" or value >= 99.5
                else f"{value:.1f} {suffix}"
            )
        value /= 1000
    return f"{value:.1f} TB"


def duration(seconds: float) -> str:
    """Seconds for people: 8s, 3m, 2h 05m, 1d 4h."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m" if whole >= 600 else f"{whole // 60}m {whole % 60:02d}s"
    if whole < 86_400:
        return f"{whole // 3600}h {whole % 3600 // 60:02d}m"
    return f"{whole // 86_400}d {whole % 86_400 // 3600}h"


def moment(seconds: float) -> str:
    """Unix seconds as a date and a time of this place."""
    return strftime("%Y-%m-%d %H:%M", localtime(seconds))


def short_moment(seconds: float) -> str:
    """The time of day (14:05) of a moment of today, else its month and day (11-29)."""
    then, now = localtime(seconds), localtime()
    today = (then.tm_year, then.tm_yday) == (now.tm_year, now.tm_yday)
    return strftime("%H:%M" if today else "%m-%d", then)


def number(value: float | None, digits: int = 3) -> str:
    """A value with `digits` decimals; a dash where there is none."""
    if value is None or value != value:
        return "–"
    if abs(value) >= 1000:
        return count(value)
    return f"{value:.{digits}f}"


def progress_bar(share: float, width: int) -> tuple[str, str]:
    """The done and the open part of a bar of `width` cells."""
    done = round(max(0.0, min(share, 1.0)) * width)
    return "━" * done, "─" * (width - done)
