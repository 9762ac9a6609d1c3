"""The settings of a user: what is known, what a value may be, and what the file says.

A mistake in one setting costs this setting only: `load` keeps the others and says which line is
wrong. What the app alone understands (keys, columns, themes) is checked by the app.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from mi_crow.errors import CorruptDataError, UserError, nearest
from mi_crow.paths import expanded
from mi_crow.store.settings_file import SettingsText, read_settings

Value = str | tuple[str, ...]
LLM_KEY_NAME: Final = "MI_CROW_LLM_KEY"  # the environment variable with the endpoint's key
NO_KEYS: Final = "none"  # typed for an action without a key
_SECRET = re.compile(r"llm\.\w*(key|token|secret|password)")
_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")
_MOST_COLOURS = 16


@dataclass(frozen=True)
class Setting:
    """What can be set. A `listed` one is a list of texts; typed, they have commas between them."""

    name: str
    help: str
    listed: bool = False


SETTINGS: Final = (
    Setting("workspace", "folder used when neither --workspace nor MI_CROW_WORKSPACE is given"),
    Setting("device", "device used where none is given: auto, cpu, cuda, cuda:N, mps or spread"),
    Setting("theme", "theme of the app"),
    Setting("heat.dark", "colours of the activations in dark themes, from low to high", True),
    Setting("heat.light", "colours of the activations in light themes, from low to high", True),
    Setting("llm.url", "address of the LLM endpoint"),
    Setting("llm.model", "name of the model at the LLM endpoint"),
    Setting("llm.price", "what a million tokens in and out cost there: IN,OUT"),
    Setting("semantic.model", "model2vec folder whose near words `like:` looks for too"),
)
_BY_NAME = {setting.name: setting for setting in SETTINGS}
GROUPS: Final = {
    "columns": "columns of features, runs, saes, jobs or concepts at first",
    "keys": "keys of an action",
}


def setting_named(name: str) -> Setting:
    """The setting called `name`. Raises UserError."""
    if name in _BY_NAME:
        return _BY_NAME[name]
    group, _, rest = name.partition(".")
    if rest and group in GROUPS:
        return Setting(name, GROUPS[group], True)
    if _SECRET.fullmatch(name):
        raise UserError(
            f"{name} is not read from a file", hint=f"put it into the variable {LLM_KEY_NAME}"
        )
    known = (*_BY_NAME, "columns.LIST", "keys.ACTION")
    raise UserError(f"setting {name!r} is not known", hint=f"there is {nearest(name, known, 9)}")


def typed_value(name: str, text: str) -> Value:
    """What was typed for a setting, as its value; checked. Raises UserError."""
    setting = setting_named(name)
    if not setting.listed:
        value = str(expanded(text).absolute()) if name == "workspace" and text else text
        return _checked(setting, value)
    if name.startswith("keys.") and text.strip() == NO_KEYS:
        return ()
    return _checked(setting, text)


def _checked(setting: Setting, value: Any) -> Value:
    """The value of a setting in a file, by its type and as far as it is known here. Raises
    UserError."""
    if setting.listed:
        if isinstance(value, str):
            value = [part.strip() for part in value.split(",") if part.strip()]
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise UserError(f"{setting.name} must be a list of texts")
        if setting.name.startswith("heat."):
            _check_colours(setting.name, value)
        return tuple(value)
    if not isinstance(value, str):
        raise UserError(f"{setting.name} must be a text")
    if value and setting.name == "device":
        validate_device(value)
    if value and setting.name == "llm.url":
        check_address(value, "llm.url")
    if value and setting.name == "llm.price":
        read_prices(value)
    return value


def _check_colours(name: str, colours: list[str]) -> None:
    for colour in colours:
        if not _COLOUR.fullmatch(colour):
            raise UserError(f"{name}: {colour!r} is not a colour", hint="write it as #rrggbb")
    if not 2 <= len(colours) <= _MOST_COLOURS:
        raise UserError(f"{name} needs 2 to {_MOST_COLOURS} colours")


def check_address(url: str, named: str = "") -> None:
    """Raises UserError for an address of an LLM endpoint that is none, or that holds a key. `named`
    is before it in the sentence."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        parts = urlsplit("")
    plain = url.isascii() and url.isprintable() and " " not in url
    if parts.scheme not in ("http", "https") or not parts.hostname or not plain:
        hint = "e.g. http://localhost:8000/v1"
        raise UserError(f"{named} {url!r} is not a web address".strip(), hint=hint)
    if parts.username or parts.password or parts.query:
        raise UserError(
            f"{named or 'a web address'} must not contain a password or a key",
            hint=f"put it into the variable {LLM_KEY_NAME}",
        )


def read_prices(text: str) -> tuple[float, float]:
    """What a million tokens of questions and of answers cost. Raises UserError."""
    try:
        asked, answered = (float(part) for part in text.split(","))
    except ValueError:
        asked = answered = -1.0
    if not (0 <= asked < math.inf and 0 <= answered < math.inf):
        hint = "write IN,OUT for a million tokens, such as 0.15,0.6"
        raise UserError(f"{text!r:.80} is not a price of tokens", hint=hint)
    return asked, answered


# The device of a model that is spread over all GPUs and host memory.
SPREAD = "spread"


def validate_device(device: str) -> str:
    """`device` itself if it is spelt like one; it need not exist.

    Raises UserError otherwise.
    """
    kind, colon, index = device.partition(":")
    plain = not colon and kind in ("auto", "cpu", "cuda", "mps", SPREAD)
    if not plain and not (kind == "cuda" and index.isdigit()):
        raise UserError(
            f"device {device!r} is not known", hint=f"use auto, cpu, cuda, cuda:N, mps or {SPREAD}"
        )
    return device


@dataclass(frozen=True)
class UserSettings:
    """What a user set. `troubles` says, by setting, what is wrong with those left out."""

    values: Mapping[str, Value] = field(default_factory=dict)
    troubles: Mapping[str, str] = field(default_factory=dict)
    source: SettingsText = field(default_factory=SettingsText)

    @classmethod
    def load(cls) -> "UserSettings":
        """The settings of this user; none when there is no file.

        Raises CorruptDataError when the file cannot be read as TOML.
        """
        return cls.of(read_settings())

    @classmethod
    def of(cls, source: SettingsText) -> "UserSettings":
        """The settings that a file contains. Raises CorruptDataError as `load`."""
        values: dict[str, Value] = {}
        troubles: dict[str, str] = {}
        for name, value in _named(source.parsed()):
            try:
                values[name] = _checked(setting_named(name), value)
            except UserError as error:
                troubles[name] = f"{source.place(name)}: {error.sentence}"
        return cls(values, troubles, source)

    def text(self, name: str) -> str:
        """The value of a setting that is a text; empty when it is unset.

        Raises CorruptDataError when the file says something wrong for it.
        """
        if name in self.troubles:
            raise CorruptDataError(self.troubles[name], hint="mi-crow config edit")
        value = self.values.get(name, "")
        return value if isinstance(value, str) else ""

    def texts(self, name: str) -> tuple[str, ...]:
        """The value of a setting that is a list; empty when it is unset or wrong."""
        value = self.values.get(name, ())
        return value if isinstance(value, tuple) else ()

    def group(self, group: str) -> dict[str, tuple[str, ...]]:
        """The lists of a group, `keys` or `columns`, by what is behind the dot."""
        prefix = f"{group}."
        names = [name for name in self.values if name.startswith(prefix)]
        return {name.removeprefix(prefix): self.texts(name) for name in names}

    def shown(self, name: str) -> str:
        """The value of a setting as it is typed. Raises UserError for an unknown one."""
        setting = setting_named(name)
        value = self.values.get(name, "")
        if setting.name.startswith("keys.") and value == ():
            return NO_KEYS
        return value if isinstance(value, str) else ",".join(value)


def _named(data: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Each value under its whole name: tables in tables and dotted keys are the same."""
    found: list[tuple[str, Any]] = []
    for key, value in data.items():
        name = f"{prefix}{key}"
        found += _named(value, f"{name}.") if isinstance(value, dict) else [(name, value)]
    return found
