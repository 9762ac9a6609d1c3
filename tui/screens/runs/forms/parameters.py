"""A job's parameters as flat paths (`training.batch_size`) and as the texts of fields; pure."""

from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import lru_cache
from typing import Any, get_args, get_type_hints

from tui.widgets.forms.fields import FormField


def flat(params: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested parameters by their paths."""
    found: dict[str, Any] = {}
    for key, value in params.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found


def nested(paths: Mapping[str, Any]) -> dict[str, Any]:
    """What `flat` took apart, as JSON has it."""
    found: dict[str, Any] = {}
    for path, value in paths.items():
        *folders, name = path.split(".")
        inner = found
        for folder in folders:
            inner = inner.setdefault(folder, {})
        inner[name] = list(value) if isinstance(value, tuple) else value
    return found


@lru_cache(maxsize=512)
def default_at(config: type, path: str) -> Any:
    """The default of a config's parameter; MISSING where it has none."""
    name, _, rest = path.partition(".")
    hints = get_type_hints(config)
    found = next((one for one in fields(config) if one.name == name), None)
    if found is None:
        return MISSING
    if rest:
        options = (hints[name], *get_args(hints[name]))
        inner = next((one for one in options if is_dataclass(one)), None)
        return default_at(inner, rest) if isinstance(inner, type) else MISSING
    return found.default


def text_of(value: Any) -> str:
    """A value as one would type it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return str(int(value)) if abs(value) < 1e15 and value == int(value) else repr(value)
    if isinstance(value, list | tuple):
        return ", ".join(text_of(one) for one in value)
    return str(value)


def texts_of(asked: Iterable[FormField], values: Mapping[str, Any], config: type) -> dict[str, str]:
    """The texts that give these values; a field whose default gives its value stays empty."""
    texts: dict[str, str] = {}
    for one in asked:
        value = values.get(one.name)
        text = text_of(value)
        plain = value == default_at(config, one.name) and one.default.text in ("", text)
        texts[one.name] = "" if plain or text == one.default.text else text
    return texts
