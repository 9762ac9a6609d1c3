"""The themes: every colour of the app is named here and used as a theme variable.

`crow` is ink with a petrol and amber sheen; `paper` is the same by day; `contrast` is black and
white. Textual's own themes are offered as well. Each is completed with the variables of the app
and made readable (`tui/themes/readable.py`) when it is first used.
"""

from functools import lru_cache

from textual.theme import BUILTIN_THEMES, Theme

from tui.themes.readable import completed
from tui.themes.sixteen_colours import DARK, LIGHT

CROW = Theme(
    name="crow",
    dark=True,
    primary="#6fa8bf",
    secondary="#8d9fc4",
    accent="#e2b363",
    success="#8fbf8a",
    warning="#e2b363",
    error="#e07a78",
    foreground="#d3d8de",
    background="#0f1317",
    surface="#151a20",
    panel="#1a2128",
    variables={"rule": "#2a323b", "cursor": "#24404c", "cursor-text": "#eef3f6"},
)
CROW_HEAT = ("#1d2a30", "#24404a", "#2d5a66", "#3d7a82", "#6c9c86", "#b5ae68", "#f0c05e")

PAPER = Theme(
    name="paper",
    dark=False,
    primary="#1f6580",
    secondary="#4a5b8a",
    accent="#96590a",
    success="#3c7a3a",
    warning="#96590a",
    error="#b03a38",
    foreground="#23292f",
    background="#faf8f4",
    surface="#f3f0e9",
    panel="#eae6dc",
    variables={"rule": "#d9d4c8", "cursor": "#cfe0e5", "cursor-text": "#10181d"},
)
PAPER_HEAT = ("#eef1ea", "#dde9df", "#c0dbd2", "#94c3bf", "#5c9fa6", "#2f7386", "#124a60")

CONTRAST = Theme(
    name="contrast",
    dark=True,
    primary="#7fdcff",
    secondary="#b9c8ff",
    accent="#ffd84d",
    success="#7dff8a",
    warning="#ffd84d",
    error="#ff9d9d",
    foreground="#ffffff",
    background="#000000",
    surface="#000000",
    panel="#101418",
    variables={
        "muted": "#e4e4e4",
        "faint": "#c4c4c4",
        "rule": "#8a8a8a",
        "cursor": "#ffe14a",
        "cursor-text": "#000000",
    },
)
CONTRAST_HEAT = ("#262626", "#404040", "#5e5e5e", "#8c7a3a", "#bfa23a", "#e8c83c", "#ffffff")

OWN = {theme.name: theme for theme in (CROW, PAPER, CONTRAST)}
_OWN_HEAT = {"crow": CROW_HEAT, "paper": PAPER_HEAT, "contrast": CONTRAST_HEAT}
_ANSI = {"ansi-dark": DARK, "ansi-light": LIGHT}

KNOWN: dict[str, Theme] = {**OWN, **BUILTIN_THEMES}  # as they are written; `theme` completes them
DEFAULT = CROW.name


@lru_cache(maxsize=64)
def theme(name: str, heat: tuple[str, ...] = ()) -> Theme:
    """The theme called `name`, with all variables of the app; `heat` are colours for its ramp.

    Raises KeyError.
    """
    known = KNOWN[name]
    if known.ansi:
        return _ANSI[name]
    return completed(known, heat or _OWN_HEAT.get(name, ()))


def in_sixteen_colours(name: str) -> Theme:
    """What stands for the theme on a terminal with the sixteen colours that its user chose."""
    return DARK if KNOWN[name].dark else LIGHT
