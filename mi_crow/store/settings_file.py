"""The file of the settings, `config.toml`: reading it, and changing it without losing comments."""

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from mi_crow.errors import CorruptDataError, NotFoundError, UserError
from mi_crow.store.atomic import write_bytes
from mi_crow.store.json_file import read_json
from mi_crow.store.plain_file import read_plain

NEW_FILE: Final = """\
# The settings of mi-crow. A line that begins with # is off.

# workspace = "/path/of/a/workspace"   # unless --workspace or MI_CROW_WORKSPACE says another
# device = "auto"                      # auto, cpu, cuda, cuda:N, mps or spread; a flag says another
# theme = "crow"                       # crow, paper, contrast, or one of Textual's

[keys]
# The keys of actions, by their names (`mi-crow config keys` lists them); [] removes the key.
# "runs.log" = ["l", "f5"]

[columns]
# The columns of a new table (`mi-crow features --help` lists them).
# features = ["feature", "density", "max", "meaning", "auroc"]

[heat]
# The colours of activations from low to high, in dark and in light themes.
# dark = ["#1d2a30", "#3d7a82", "#f0c05e"]
# light = ["#eef1ea", "#94c3bf", "#124a60"]

[llm]
# An endpoint that speaks OpenAI's protocol. Its key is read from MI_CROW_LLM_KEY, never from here.
# url = "http://localhost:8000/v1"
# model = "name"
"""
MOST_BYTES: Final = 1 << 20
_LINE = re.compile(r"\bline (\d+)")
_PART = r"""(?:[\w-]+|"(?:[^"\\]|\\.)*"|'[^']*')"""
_KEY = rf"{_PART}(?:\s*\.\s*{_PART})*"
_TABLE = re.compile(rf"\s*\[\s*({_KEY})\s*\]")
_ASSIGNED = re.compile(rf"\s*({_KEY})\s*=")
_OLD_NAME = "config.json"


def settings_path() -> Path:
    """The path of the config file."""
    import platformdirs

    return Path(platformdirs.user_config_dir("mi-crow")) / "config.toml"


@dataclass(frozen=True)
class SettingsText:
    """What a config file contains, and how to name its lines."""

    text: str = ""
    path: Path | None = None

    def parsed(self) -> dict[str, Any]:
        """The values. Raises CorruptDataError, naming the line, when they are not TOML."""
        if not self.text.strip():
            return {}
        import tomllib  # 10 ms, for those who have set something

        try:
            return tomllib.loads(self.text)
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            words = str(error) or "it is nested too deeply"
            found = _LINE.search(words)
            line = found[1] if found else len(self.text.splitlines())  # it ends too early
            place = f"{self.path}, line {line}"
            reason = re.sub(r" \(at .*\)$", "", words)
            raise CorruptDataError(
                f"{place} is not TOML ({reason[:1].lower()}{reason[1:]})",
                hint="correct it with `mi-crow config edit`",
            ) from error

    def place(self, name: str) -> str:
        """Where `name` is set: file and line."""
        while name not in self._lines and "." in name:
            name = name.rpartition(".")[0]
        line = self._lines.get(name)
        return f"{self.path}, line {line}" if line else str(self.path)

    @cached_property
    def _lines(self) -> dict[str, int]:
        """The line of each setting; good enough for a message, tomllib has the last word."""
        lines: dict[str, int] = {}
        table = ""
        for number, line in enumerate(self.text.splitlines(), 1):
            if found := _TABLE.match(line):
                table = f"{_plain(found[1])}."
                lines.setdefault(table[:-1], number)
            elif found := _ASSIGNED.match(line):
                lines.setdefault(table + _plain(found[1]), number)
        return lines


def _plain(key: str) -> str:
    """A TOML key, dotted or not, without quotes and spaces."""
    return ".".join(part.strip("\"'") for part in re.findall(_PART, key))


def read_settings() -> SettingsText:
    """The config file as it is; empty when there is none. A `config.json` of an earlier version is
    read once and moved.

    Raises CorruptDataError when the file cannot be read.
    """
    path = settings_path()
    try:
        return SettingsText(_read(path), path)
    except FileNotFoundError:
        return SettingsText(_moved(path), path)


def _read(path: Path) -> str:
    """Raises FileNotFoundError and CorruptDataError."""
    data = b""
    try:
        with read_plain(path) as file:
            data = file.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise CorruptDataError(f"{path} is too large for a config file")
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise CorruptDataError(
            f"{path}, line {line} is not UTF-8", hint="correct it with `mi-crow config edit`"
        ) from error
    except FileNotFoundError:
        raise
    except OSError as error:
        raise CorruptDataError(f"{path} cannot be read ({error.strerror})") from error


def _moved(path: Path) -> str:
    """The settings of the `config.json` beside `path`, written to `path`."""
    old = path.with_name(_OLD_NAME)
    try:
        data = read_json(old)
    except NotFoundError:
        return ""
    except (CorruptDataError, OSError) as error:
        raise CorruptDataError(
            f"{old} is not a config file ({error})", hint="correct or delete it"
        ) from error
    text = NEW_FILE
    for name in ("workspace", "device"):
        value = data.get(name) if isinstance(data, dict) else None
        if isinstance(value, str) and value:
            text = changed(text, name, value)
    with contextlib.suppress(OSError):  # a folder that cannot be written: read anew each time
        write_settings(path, text)
        old.rename(old.with_name(f"{_OLD_NAME}.old"))
    return text


def write_settings(path: Path, text: str) -> None:
    """Replaces the file atomically; a link keeps pointing to it. Raises OSError."""
    write_bytes(path.resolve(), text.encode())


def changed(text: str, name: str, value: str | list[str] | None) -> str:
    """The file's text with one setting changed, or removed with None; the rest stays as it is.

    Raises UserError where that would change something else as well.
    """
    import tomllib

    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    wanted = _nested(tomllib.loads(text))
    path = tuple(name.split("."))
    if value is None:
        wanted.pop(path, None)
    else:
        wanted[path] = value
    try:
        document = tomlkit.parse(text)
        _set(document, name, value)
        found = tomlkit.dumps(document)
        if _nested(tomllib.loads(found)) == wanted:
            return found
    except (TOMLKitError, tomllib.TOMLDecodeError, KeyError, TypeError, AttributeError):
        pass  # the file is written in a way that this cannot change
    raise UserError(f"{name} cannot be changed here", hint="change it with `mi-crow config edit`")


def _set(document: Any, name: str, value: str | list[str] | None) -> None:
    """Changes the setting where it is, else in the table of its group."""
    for table, key in _places(document, name):
        if value is None:
            del table[key]
        else:
            table[key] = value
        return
    if value is None:
        return
    import tomlkit

    group, _, rest = name.partition(".")
    if not rest:
        document[group] = value
        return
    if group not in document:
        document[group] = tomlkit.table()
    document[group][rest] = value


def _places(table: Any, name: str) -> Iterator[tuple[Any, str]]:
    """Where the setting is: in tables of its parts, under a quoted name, or both mixed."""
    if name in table:
        yield table, name
    for key in list(table):
        if name.startswith(f"{key}.") and isinstance(table[key], dict):
            yield from _places(table[key], name.removeprefix(f"{key}."))


def _nested(data: dict[str, Any], path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """All values by the parts of their names."""
    found: dict[tuple[str, ...], Any] = {}
    for key, value in data.items():
        whole = (*path, *key.split("."))
        found |= _nested(value, whole) if isinstance(value, dict) else {whole: value}
    return found
