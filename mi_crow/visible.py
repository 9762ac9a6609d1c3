"""Foreign text made safe for a terminal: control and invisible characters become symbols.

Text of datasets, models, files and other people's workspaces is stored unchanged and passes through
here when it is printed or copied.
"""

import re
import unicodedata

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
# Control, format (bidi overrides, zero-width), surrogate and separator characters.
_OBEYED = {"Cc", "Cf", "Cs", "Zl", "Zp"}
_JOINERS = "\u200c\u200d"
# Letters and marks without a shape of their own, which tell two names apart that look the same:
# joiners of graphemes, Hangul fillers, the empty Braille cell, Khmer and Mongolian marks and the
# supplementary variation selectors.
_BLANK = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\uffa0\U000e0100-\U000e01ef]"
)


def is_clean(text: str) -> bool:
    """True when `text` is safe as it is; fast for nearly all text."""
    return text.isprintable() and (text.isascii() or _BLANK.search(text) is None)


def is_blank(character: str) -> bool:
    """True for a letter or mark that has no shape."""
    return _BLANK.match(character) is not None


def visible(text: str, keep: str = "") -> str:
    """`text` with every control or invisible character replaced by a symbol, so that no terminal
    obeys it and no reader is deceived; the characters of `keep` stay.

    >>> visible("a\\tb\\x1b[1m")
    'a␉b␛[1m'
    """
    if is_clean(text):
        return text
    return "".join(
        character
        if character in keep or (character in _JOINERS and _joins(text, place))
        else _symbol(character)
        for place, character in enumerate(text)
    )


def quoted(name: str, most: int = 80) -> str:
    """A name within a sentence: in typographic quotes, without escapes, of at most so many
    characters.

    >>> print(quoted('his "harbour"'))
    “his "harbour"”
    """
    shown = visible(name if len(name) <= most else name[: most - 1] + "…")
    whole = len(shown) > 1 and (shown[0], shown[-1], shown.count("“")) == ("“", "”", 1)
    return shown if whole else f"“{shown}”"  # a proposed name is often a word in its quotes


def visible_lines(text: str) -> str:
    """`text` of several lines, made visible line by line; for the clipboard and for tracebacks."""
    return visible(text.replace("\r\n", "\n"), keep="\n\t")


def _joins(text: str, place: int) -> bool:
    """Several scripts and emoji cannot be written without joiners; between ASCII they only hide."""
    return place > 0 and not text[place - 1].isascii() and text[place - 1] not in _JOINERS


def _symbol(character: str) -> str:
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)  # the block of pictures for control characters
    if code == 0x7F:
        return "\u2421"
    hidden = unicodedata.category(character) in _OBEYED or is_blank(character)
    return REPLACEMENT if hidden else character
