"""The two themes: every colour of the app is named here and used as a theme variable.

`crow` is ink with a petrol and amber sheen; `paper` is the same by day. `$heat-1` .. `$heat-7` with
`$heat-1-text` .. are the luminance ramp for token heat: dim to bright, the text colour explicit.
"""

from textual.theme import Theme

HEAT_STEPS = 7


def _heat(backgrounds: list[str], texts: list[str]) -> dict[str, str]:
    variables = {}
    for step, (background, text) in enumerate(zip(backgrounds, texts, strict=True), start=1):
        variables[f"heat-{step}"] = background
        variables[f"heat-{step}-text"] = text
    return variables


def _common(
    background: str, muted: str, faint: str, rule: str, cursor: str, cursor_text: str
) -> dict[str, str]:
    return {
        "muted": muted,  # second-rank text: labels, units, hints
        "faint": faint,  # third-rank text: rarely read
        "rule": rule,  # thin lines and borders
        "cursor": cursor,  # the highlighted row of the list that has the focus
        "cursor-text": cursor_text,
        "block-cursor-background": cursor,
        "block-cursor-foreground": cursor_text,
        "block-cursor-text-style": "none",
        "block-cursor-blurred-background": rule,
        "border": rule,
        "border-blurred": rule,
        "scrollbar": rule,
        "scrollbar-hover": faint,
        "scrollbar-active": muted,
        "scrollbar-background": background,
        "scrollbar-background-hover": background,
        "scrollbar-background-active": background,
        "scrollbar-corner-color": background,
        "input-cursor-text-style": "reverse",
        "button-focus-text-style": "bold",
    }


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
    panel="#1c232b",
    variables=_common("#0f1317", "#8b97a3", "#5a6570", "#2a323b", "#24404c", "#eef3f6")
    | {"chart": "#426a7b"}
    | _heat(
        ["#1d2a30", "#24404a", "#2d5a66", "#3d7a82", "#6c9c86", "#b5ae68", "#f0c05e"],
        ["#d3d8de", "#dfe6ea", "#f0f5f7", "#ffffff", "#0f1317", "#0f1317", "#0f1317"],
    ),
)

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
    variables=_common("#faf8f4", "#5f6972", "#949a9e", "#d9d4c8", "#cfe0e5", "#10181d")
    | {"chart": "#8fb3c0"}
    | _heat(
        ["#eef1ea", "#dde9df", "#c0dbd2", "#94c3bf", "#5c9fa6", "#2f7386", "#124a60"],
        ["#23292f", "#23292f", "#23292f", "#10181d", "#0b1216", "#ffffff", "#ffffff"],
    ),
)

THEMES = (CROW, PAPER)
