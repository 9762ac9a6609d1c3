"""A job's parameters as flat paths (`training.batch_size`), as fields and as their texts; pure."""

from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import lru_cache
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

from mi_crow.bounds import Bounds
from tui.widgets.forms.fields import Default, FormField

USUAL = "default"
# Parameters that the command line calls by other names.
_FLAGS = {
    "dataset.source": "--dataset",
    "layers": "--layer",
    "model.dtype": "--model-dtype",
    "model.model": "--model",
    "input_scale": "--scale",
    "run_id": "--run",
    "sae_id": "--sae",
    "shares": "--share",
}


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
def parameter_at(config: type, path: str) -> tuple[Any, Any]:
    """The type and the default of a config's parameter; MISSING where there is none."""
    name, _, rest = path.partition(".")
    found = next((one for one in fields(config) if one.name == name), None)
    if found is None:
        return MISSING, MISSING
    kind = get_type_hints(config)[name]
    if not rest:
        return kind, found.default
    inner = next((one for one in (kind, *get_args(kind)) if is_dataclass(one)), None)
    return parameter_at(inner, rest) if isinstance(inner, type) else (MISSING, MISSING)


def default_at(config: type, path: str) -> Any:
    """The default of a config's parameter; MISSING where it has none."""
    return parameter_at(config, path)[1]


@dataclass(frozen=True)
class FieldsOf:
    """Makes the fields of a job's parameters below `prefix`, for one section of its form. What the
    `config` says of a parameter, its type and its default, is not said again."""

    config: type
    prefix: str = ""
    section: str = ""

    def __call__(
        self,
        name: str,
        label: str,
        hint: str = "",
        bounds: Bounds | None = None,
        why: str = "",
        **more: Any,
    ) -> FormField:
        """The field of one parameter. `why` says where its default comes from; `more` is what a
        FormField has besides, or has differently."""
        kind, value = parameter_at(self.config, self.prefix + name)
        text = "" if value in (MISSING, None, ()) else text_of(value)
        known: dict[str, Any] = {
            "switch": kind is bool,
            "several": get_origin(kind) is tuple,
            "empty": None if NoneType in get_args(kind) else "",
            "default": Default(text, why or (USUAL if text and kind is not bool else "")),
            "closed": "choices" in more,
            "section": self.section,
            "flag": flag_of(name),
        }
        path = self.prefix + name
        return FormField(path, label, hint=hint, bounds=bounds, **known | more)


def flag_of(name: str) -> str:
    """What the command line calls a parameter."""
    *folders, last = name.split(".")
    for known in (name, ".".join([*folders[-1:], last]), last):
        if known in _FLAGS:
            return _FLAGS[known]
    return f"--{last.replace('_', '-')}"


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


BETWEEN = " | "  # of texts in one field: they have commas


def parts_of(text: str) -> tuple[str, ...]:
    """The texts that are in one field."""
    return tuple(part.strip() for part in text.split("|") if part.strip())


def texts_of(asked: Iterable[FormField], values: Mapping[str, Any], config: type) -> dict[str, str]:
    """The texts that give these values; a field whose default gives its value stays empty."""
    texts: dict[str, str] = {}
    for one in asked:
        value = values.get(one.name)
        text = text_of(value)
        plain = value == default_at(config, one.name) and one.default.text in ("", text)
        texts[one.name] = "" if plain or text == one.default.text else text
    return texts
