"""Numbers, sizes, times and foreign text as people read them; pure functions."""

import json
import time
from typing import Any

from mi_crow.cli.streams import out
from mi_crow.memory import READINGS
from mi_crow.store.json_object import all_finite
from mi_crow.visible import is_clean, visible

_NAMES = {
    "fvu": "FVU",
    "heldout_fvu": "held-out FVU",
    "l0": "L0",
    "dead_share": "dead",
    "gpu_memory": "GPU memory",
    "gpu_memory_peak": "peak GPU memory",
    "memory_peak": "peak memory",
}


def size(count: float) -> str:
    """Bytes with a unit: `512 B`, `3.4 MB`."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def count(number: int | float | None) -> str:
    """A whole number with thousands apart; a dash for None."""
    return "-" if number is None else f"{number:,.0f}"


def hook_point(point: str, module: str) -> str:
    """`resid_post.2 (model.layers.2)`; one name where both are the same."""
    return point if point == module else f"{point} ({module})"


def features_counted(features: int) -> str:
    """`1 feature`, `2 features`."""
    return "1 feature" if features == 1 else f"{features:,} features"


def number(value: float | None, digits: int = 4) -> str:
    """A reading in `digits` significant digits, or whole where it has more; a dash for None."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 10 ** (digits - 1) else f"{value:.{digits}g}"


def reading(name: str, value: float, digits: int = 3) -> str:
    """A metric of a job with its name: `FVU 0.118`, `21,400 tokens/s`, `GPU memory 1.2 GB`."""
    if name.endswith("_s"):
        return f"{count(value)} {name.removesuffix('_s')}/s"
    words = _NAMES.get(name, name.replace("_", " "))
    if name in READINGS:
        return f"{words} {size(value)}"
    return f"{words} {share(value) if name.endswith('_share') else number(value, digits)}"


def share(value: float | None) -> str:
    """A share as a percentage: `0.0123` is `1.23%`."""
    return "-" if value is None else f"{100 * value:.3g}%"


def duration(seconds: float | None) -> str:
    """`4.2 s`, `3 min 20 s`, `2 h 5 min`; a dash for None."""
    if seconds is None:
        return "-"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def time_left(seconds: float) -> str:
    """A duration in whole seconds: an estimate has no tenths."""
    return f"{round(seconds)} s" if seconds < 59.5 else duration(seconds)


def moment(t: float | None) -> str:
    """A time of unix seconds in local time, to the minute; a dash for None."""
    return "-" if t is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(t))


def as_json(value: Any) -> str:
    """One object for `--json`, valid for every reader: what is not finite becomes null.

    Readable on a terminal, which also obeys some characters that JSON leaves as they are.
    """
    text = json.dumps(all_finite(value), ensure_ascii=False, default=str)
    if is_clean(text):
        return text
    return "".join(char if visible(char) == char else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    """As JSON writes it in ASCII."""
    return json.dumps(char)[1:-1]


def print_json(value: Any) -> None:
    """Prints one JSON value as one line on stdout."""
    target = out()
    target.write(encodable(as_json(value), target.encoding) + "\n")


def encodable(text: str, encoding: str | None) -> str:
    """JSON in which what an encoding lacks is escaped, so that no reader loses anything."""
    try:
        text.encode(encoding or "utf-8")
    except UnicodeEncodeError:
        return "".join(char if char.isascii() else _escaped(char) for char in text)
    return text
