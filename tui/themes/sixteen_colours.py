"""The dark and the light theme in the names of the sixteen colours that every terminal has.

Which red a terminal shows is up to its user, so only names with a good contrast in the usual
palettes are taken, on a ground that is painted: xterm is black on white, most others are the
reverse. Ranks of text and the ramp of heat need more colours; texts are told apart by place and
words, and heat is shown by attributes (`tui/widgets/token_heat.py`).
"""

from collections.abc import Mapping

from textual.theme import Theme

from tui.themes.readable import COLOURED, GROUNDS, HEAT_STEPS, ROLES


def _theme(name: str, dark: bool, ground: str, text: str, roles: Mapping[str, str]) -> Theme:
    cursor, cursor_text = text, ground
    names = {role: f"ansi_{colour}" for role, colour in roles.items()}
    variables = {
        **dict.fromkeys(GROUNDS, ground),
        "ansi-background": ground,
        "ansi-foreground": text,
        "boost": ground,
        "muted": text,
        "faint": text,
        "rule": text,
        "chart": names["primary"],
        "cursor": cursor,
        "cursor-text": cursor_text,
        **{f"{role}-on-cursor": cursor_text for role in ROLES},
        **{f"text-{role}": names[role] for role in COLOURED},
        **dict.fromkeys(("text", "text-muted", "text-disabled", "foreground-muted"), text),
        **_heat(ground, text),
        **_of_textual(ground, text),
    }
    return Theme(
        name=name,
        ansi=True,
        dark=dark,
        foreground=text,
        background=ground,
        surface=ground,
        panel=ground,
        primary=names["primary"],
        secondary=names["secondary"],
        accent=names["accent"],
        success=names["success"],
        warning=names["warning"],
        error=names["error"],
        variables=variables,
    )


def _heat(ground: str, text: str) -> dict[str, str]:
    variables = {}
    for step in range(1, HEAT_STEPS + 1):
        hot = step > HEAT_STEPS // 2
        variables[f"heat-{step}"] = text if hot else ground
        variables[f"heat-{step}-text"] = ground if hot else text
    return variables


def _of_textual(ground: str, text: str) -> dict[str, str]:
    plain = ("scrollbar-background", "scrollbar-background-hover", "scrollbar-background-active")
    return {
        **dict.fromkeys(("border", "border-blurred", "scrollbar", "scrollbar-hover"), text),
        **dict.fromkeys((*plain, "scrollbar-corner-color"), ground),
        "scrollbar-active": text,
        "block-cursor-background": text,
        "block-cursor-foreground": ground,
        "block-cursor-text-style": "none",
        "block-cursor-blurred-background": ground,
        "block-cursor-blurred-foreground": text,
        "input-cursor-background": ground,
        "input-cursor-foreground": text,
        "input-cursor-text-style": "none",
        "input-selection-background": text,
        "input-selection-foreground": ground,
        "screen-selection-background": text,
        "screen-selection-foreground": ground,
        "button-focus-text-style": "bold",
    }


DARK = _theme(
    "ansi-dark",
    True,
    "ansi_black",
    "ansi_bright_white",
    {
        "primary": "bright_cyan",
        "secondary": "bright_cyan",
        "accent": "bright_yellow",
        "success": "bright_green",
        "warning": "bright_yellow",
        "error": "bright_red",
    },
)
LIGHT = _theme(
    "ansi-light",
    False,
    "ansi_bright_white",
    "ansi_black",
    {
        "primary": "blue",
        "secondary": "blue",
        "accent": "blue",
        "success": "blue",
        "warning": "red",
        "error": "red",
    },
)
