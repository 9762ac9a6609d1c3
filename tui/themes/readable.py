"""Completes a theme with the variables of the app, and makes its texts readable; pure.

Readable is a contrast of 4.5:1 (WCAG 2), on every ground that the text is on, in colour and as
greys, for those who tell few colours apart. A colour that is too close to a ground keeps its hue
and changes its lightness. Text has three ranks, `$foreground`, `$muted` and `$faint`; the row under
the cursor has a ground of its own and with it its own version of each, `$faint-on-cursor`.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from textual.color import Color
from textual.theme import Theme

HEAT_STEPS = 7
READABLE = 4.5
_MARGIN = 0.1  # colours are rounded to whole steps, and drawn ones once more
_RANKS = {"foreground": 7.0, "muted": 5.7, "faint": READABLE + _MARGIN}
COLOURED = ("primary", "secondary", "accent", "success", "warning", "error")
ROLES = ("foreground", "muted", "faint", *COLOURED)
GROUNDS = ("background", "surface", "panel")
_MOST_RAISED = {"surface": 1.16, "panel": 1.34}  # contrast of these grounds to the background
_BLACK, _WHITE = Color(0, 0, 0), Color(255, 255, 255)


def luminance(colour: Color) -> float:
    """The relative luminance of WCAG 2, 0 for black to 1 for white."""
    channels = [value / 255 for value in colour.rgb]
    red, green, blue = (
        value / 12.92 if value <= 0.03928 else ((value + 0.055) / 1.055) ** 2.4
        for value in channels
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: Color, other: Color) -> float:
    """The contrast of two colours, 1 to 21; the lesser one of as they are and as greys."""
    return min(_ratio(one, other), _ratio(one.monochrome, other.monochrome))


def _ratio(one: Color, other: Color) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def least_contrast(colour: Color, grounds: Sequence[Color]) -> float:
    """The contrast to that of the `grounds` on which `colour` reads worst."""
    return min(contrast(colour, ground) for ground in grounds)


def readable(colour: Color, grounds: Sequence[Color], ratio: float = READABLE + _MARGIN) -> Color:
    """`colour`, as much lighter or darker as it takes to have `ratio` on each of the `grounds`;
    black or white where not even these reach it."""
    if least_contrast(colour, grounds) >= ratio:
        return colour
    end = _opposite(grounds)
    hue, saturation, _ = colour.hsl
    toward = 1.0 if end == _WHITE else 0.0
    start = colour.hsl[2]

    def at(share: float) -> Color:
        return Color.from_hsl(hue, saturation, start + (toward - start) * share)

    return _first(at, lambda found: least_contrast(found, grounds) >= ratio) or end


def dimmest(colour: Color, grounds: Sequence[Color], ratio: float) -> Color:
    """`colour` mixed with the first of the `grounds` as far as it keeps `ratio` on all of them."""
    return (
        _first(
            lambda share: grounds[0].blend(colour, share),
            lambda found: least_contrast(found, grounds) >= ratio,
        )
        or colour
    )


def _first(at: Callable[[float], Color], passes: Callable[[Color], bool]) -> Color | None:
    """The first colour on the way from 0 to 1 that passes; all behind it do."""
    if not passes(at(1.0)):
        return None
    low, high = 0.0, 1.0
    for _ in range(9):
        middle = (low + high) / 2
        low, high = (low, middle) if passes(at(middle)) else (middle, high)
    return at(high)


def _opposite(grounds: Sequence[Color]) -> Color:
    """Black or white, whichever reads better on these grounds."""
    black, white = (least_contrast(end, grounds) for end in (_BLACK, _WHITE))
    return _WHITE if white >= black else _BLACK


def completed(theme: Theme, heat: Sequence[str] = ()) -> Theme:
    """`theme` with readable texts and all variables of the app. What it says of them itself stays
    where that is readable. `heat`: the colours of the ramp, from cold to hot."""
    asked = theme.variables
    given = theme.to_color_system().generate()
    background = Color.parse(given["background"])
    grounds = [background, *(_ground(given, name, background) for name in ("surface", "panel"))]
    ranked = _texts(given, asked, grounds, background)
    primary = Color.parse(ranked["primary"])
    cursor = _cursor(asked, background, primary)
    on_cursor = _texts(
        ranked | {"foreground": asked.get("cursor-text", ranked["foreground"])},
        {},
        [cursor],
        cursor,
    )
    steps = ramp([Color.parse(one) for one in heat] or _own_ramp(grounds[2], ranked), HEAT_STEPS)
    raised = {name: ground.hex for name, ground in zip(GROUNDS, grounds, strict=True)}
    variables = {
        **asked,
        **{name: ranked[name] for name in ("muted", "faint")},
        **{f"{name}-on-cursor": value for name, value in on_cursor.items()},
        "rule": asked.get("rule") or background.blend(Color.parse(ranked["foreground"]), 0.2).hex,
        "cursor": cursor.hex,
        "cursor-text": on_cursor["foreground"],
        "chart": _chart(primary, background).hex,
        **_heat(steps),
    }
    return replace(
        theme,
        **{name: ranked[name] for name in ("foreground", *COLOURED)},
        **raised,
        variables=variables | _of_textual(variables, ranked, raised),
    )


def _ground(given: dict[str, str], name: str, background: Color) -> Color:
    """A raised ground, so near to the background that one colour reads on both."""
    ground = background + Color.parse(given[name])
    most = _MOST_RAISED[name]
    share = 1.0
    while _ratio(background.blend(ground, share), background) > most:
        share -= 0.05
    return background.blend(ground, share)


def _texts(
    given: dict[str, str], asked: dict[str, str], grounds: Sequence[Color], behind: Color
) -> dict[str, str]:
    """The roles of text, readable on all `grounds`."""
    foreground = readable(Color.parse(given["foreground"]), grounds, _RANKS["foreground"])
    texts = {"foreground": foreground.hex}
    for name in ("muted", "faint"):
        if name in asked:
            texts[name] = readable(Color.parse(asked[name]), grounds, _RANKS[name]).hex
        else:
            texts[name] = dimmest(foreground, [behind, *grounds], _RANKS[name]).hex
    for name in COLOURED:
        texts[name] = readable(Color.parse(given[name]), grounds).hex
    return texts


def _cursor(asked: dict[str, str], background: Color, primary: Color) -> Color:
    """The ground of the row under the cursor: seen at once, yet with room for three ranks."""
    if "cursor" in asked:
        return Color.parse(asked["cursor"])
    return (
        _first(
            lambda share: background.blend(primary, 0.36 * (1 - share)),
            lambda found: contrast(found, _opposite([found])) >= 9,
        )
        or background
    )


def _chart(primary: Color, background: Color) -> Color:
    """The colour of plots: calmer than text, yet with the contrast that graphics need."""
    return dimmest(primary, [background], 3.1)


def _own_ramp(panel: Color, ranked: dict[str, str]) -> list[Color]:
    primary, accent = Color.parse(ranked["primary"]), Color.parse(ranked["accent"])
    end = _opposite([panel])
    return [panel.blend(primary, 0.12), panel.blend(primary, 0.6), accent.blend(end, 0.15)]


def ramp(stops: Sequence[Color], steps: int) -> list[Color]:
    """`steps` colours along the `stops`, from cold to hot."""
    if len(stops) == 1:
        stops = [*stops, *stops]
    colours = []
    for step in range(steps):
        place = step * (len(stops) - 1) / (steps - 1)
        at = min(int(place), len(stops) - 2)
        colours.append(stops[at].blend(stops[at + 1], place - at))
    return colours


def _heat(steps: Sequence[Color]) -> dict[str, str]:
    """`$heat-1` .. `$heat-7` with `$heat-1-text` ..: dim to bright, the text colour explicit."""
    variables = {}
    for number, step in enumerate(steps, start=1):
        text = _opposite([step])
        ground = readable(step, [text], READABLE)  # a user's ramp may have any colour
        variables[f"heat-{number}"] = ground.hex
        variables[f"heat-{number}-text"] = text.hex
    return variables


def _of_textual(
    ours: dict[str, str], ranked: dict[str, str], raised: dict[str, str]
) -> dict[str, str]:
    """The variables of Textual's own widgets, in the colours of the app."""
    background, rule, cursor = raised["background"], ours["rule"], ours["cursor"]
    return {
        "text": ranked["foreground"],
        "text-muted": ranked["muted"],
        "text-disabled": ranked["faint"],
        **{f"text-{name}": ranked[name] for name in COLOURED},
        "foreground-muted": ranked["muted"],
        "block-cursor-background": cursor,
        "block-cursor-foreground": ours["cursor-text"],
        "block-cursor-text-style": "none",
        "block-cursor-blurred-background": raised["panel"],
        "block-cursor-blurred-foreground": ranked["foreground"],
        "border": rule,
        "border-blurred": rule,
        "scrollbar": rule,
        "scrollbar-hover": ranked["faint"],
        "scrollbar-active": ranked["muted"],
        "scrollbar-background": background,
        "scrollbar-background-hover": background,
        "scrollbar-background-active": background,
        "scrollbar-corner-color": background,
        "input-cursor-background": ours["cursor-text"],
        "input-cursor-foreground": cursor,
        "input-cursor-text-style": "none",
        "input-selection-background": ranked["primary"],
        "input-selection-foreground": background,
        "screen-selection-background": ranked["primary"],
        "screen-selection-foreground": background,
        "button-focus-text-style": "bold",
        "link-color": ranked["primary"],
    }
