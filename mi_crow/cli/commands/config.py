"""`mi-crow config`: the config file."""

import os
import shlex
import shutil
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TextIO

from mi_crow.cli.arguments import add_actions
from mi_crow.cli.formatting import print_json
from mi_crow.cli.tables import Column, print_facts, print_list, print_outcome
from mi_crow.errors import CorruptDataError, MiCrowError, UserError
from mi_crow.store.atomic import temporary_name
from mi_crow.store.settings import (
    GROUPS,
    SETTINGS,
    UserSettings,
    setting_named,
    typed_value,
)
from mi_crow.store.settings_file import (
    NEW_FILE,
    SettingsText,
    changed,
    read_settings,
    settings_path,
    write_settings,
)

_EDITORS = ("nano", "vim", "vi")  # where neither VISUAL nor EDITOR says one


def add_arguments(parser: ArgumentParser, command: str) -> None:
    names = ", ".join([*(setting.name for setting in SETTINGS), *(f"{one}.NAME" for one in GROUPS)])
    for name, action in add_actions(
        parser,
        {
            "list": "print all settings (default)",
            "get": "print one setting",
            "set": "change one setting; an empty value unsets it",
            "path": "print the path of the config file",
            "edit": "open the config file in your editor; a mistake is never kept",
            "keys": "list the actions of the app and their keys",
        },
    ):
        if name in ("get", "set"):
            action.add_argument("key", help=names)
        if name == "set":
            action.add_argument("value", help="several of a list have commas between them")


def run(options: Namespace) -> int:
    action = options.action or "list"
    if action == "path":
        _print(options, "path", str(settings_path()))
    elif action == "get":
        _print(options, options.key, _value(options.key))
    elif action == "set":
        _print(options, options.key, _set(options.key, options.value))
    elif action == "edit":
        changed_it = _edit(settings_path())
        print_outcome(
            options.json,
            {"path": str(settings_path()), "changed": changed_it},
            "the settings are changed" if changed_it else "nothing is changed",
        )
    elif action == "keys":
        _print_keys(options)
    else:
        _print_all(options)
    return 0


def _print(options: Namespace, name: str, value: str) -> None:
    print_outcome(options.json, {name: value}, value)


def _value(name: str) -> str:
    settings = UserSettings.load()
    if name in settings.troubles:
        raise CorruptDataError(settings.troubles[name], hint="mi-crow config edit")
    return settings.shown(name)


def _print_all(options: Namespace) -> None:
    settings = UserSettings.load()
    names = [*(one.name for one in SETTINGS), *(n for n in settings.values if _grouped(n))]
    shown = {name: settings.shown(name) for name in names}
    if options.json:
        print_json(shown)
    else:
        print_facts({name: value or "(unset)" for name, value in shown.items()})
    if wrong := _mistakes(settings):
        raise CorruptDataError(wrong[0], hint="correct it with `mi-crow config edit`")


def _grouped(name: str) -> bool:
    return name.partition(".")[0] in GROUPS


def _set(name: str, typed: str) -> str:
    value = typed_value(name, typed) if typed else None
    setting_named(name)
    source = read_settings()
    source.parsed()  # a damaged file is left as it is
    kept = None if value is None else value if isinstance(value, str) else list(value)
    text = changed(source.text or NEW_FILE, name, kept)
    settings = UserSettings.of(SettingsText(text, source.path))
    before = _mistakes(UserSettings.of(source))
    for sentence in _mistakes(settings):
        if sentence not in before:
            raise UserError(sentence.partition(": ")[2] or sentence)
    write_settings(settings_path(), text)
    return settings.shown(name)


def _mistakes(settings: UserSettings) -> list[str]:
    """Everything that is wrong in a config file, each in one sentence with its line."""
    of_the_app = any(_grouped(name) or name == "theme" for name in settings.values)
    if not of_the_app:  # importing the app takes a moment
        return list(settings.troubles.values())
    from mi_crow.cli.commands.app import app_mistakes

    return [*settings.troubles.values(), *app_mistakes(settings)]


def _print_keys(options: Namespace) -> None:
    from mi_crow.cli.commands.app import app_keys

    settings = UserSettings.load()
    rows = app_keys(settings)
    print_list(
        options.json,
        [
            {"action": one.id, "keys": one.keys, "changed": one.changed, "help": one.help}
            for one in rows
        ],
        [Column("action"), Column("keys"), Column(""), Column("what it does", shorten=True)],
        [
            [one.id, " ".join(one.labels) or "-", "changed" if one.changed else "", one.help]
            for one in rows
        ],
        "there are no actions",
    )
    if wrong := _mistakes(settings):
        raise CorruptDataError(wrong[0], hint="correct it with `mi-crow config edit`")


# Editing.


def _edit(path: Path) -> bool:
    """Has the user edit a copy until it is right, then puts it in place; whether it differs.

    Raises MiCrowError, and keeps the copy, when what was written cannot be taken.
    """
    before = _bytes(path)
    if before is None:
        read_settings()  # an earlier version's file is moved first
        before = _bytes(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    copy = temporary_name(path)
    copy.write_bytes(NEW_FILE.encode() if before is None else before)
    try:
        while True:
            _open_editor(copy)
            written = copy.read_bytes()
            if written == before or (before is None and written == NEW_FILE.encode()):
                return False
            wrong = _wrong(copy, path)
            if not wrong:
                break
            if not _again(wrong):
                kept = path.with_name("config.toml.rejected")
                os.replace(copy, kept)
                raise UserError(wrong, hint=f"nothing is changed; what you wrote is in {kept}")
        if _bytes(path) != before:
            kept = path.with_name("config.toml.rejected")
            os.replace(copy, kept)
            raise UserError(
                f"{path} was changed by another program meanwhile",
                hint=f"what you wrote is in {kept}",
            )
        write_settings(path, written.decode())
        return True
    finally:
        copy.unlink(missing_ok=True)


def _bytes(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _wrong(copy: Path, path: Path) -> str:
    """The first mistake in an edited copy; empty when it is right."""
    try:
        text = copy.read_bytes().decode("utf-8")
        found = _mistakes(UserSettings.of(SettingsText(text, path)))
    except UnicodeDecodeError:
        return f"{path} is not UTF-8"
    except MiCrowError as error:
        return str(error)
    return found[0] if found else ""


def _open_editor(file: Path) -> None:
    """Raises UserError when there is no editor, or it failed."""
    named = os.environ.get("VISUAL") or os.environ.get("EDITOR") or ""
    try:
        command = shlex.split(named)
    except ValueError as error:
        raise UserError(f"EDITOR {named!r} is not a command") from error
    if not command:
        command = [name for name in _EDITORS if shutil.which(name)][:1]
    if not command:
        raise UserError("there is no editor", hint="name one in the variable EDITOR")
    try:
        code = subprocess.run([*command, str(file)], check=False).returncode
    except OSError as error:
        raise UserError(
            f"the editor {command[0]!r} cannot be started ({error.strerror})",
            hint="name another in the variable EDITOR",
        ) from error
    if code != 0:
        raise UserError(f"{command[0]} ended with exit code {code}", hint="nothing is changed")


def _again(wrong: str) -> bool:
    """Whether the user wants to correct a mistake now; False where nobody can be asked."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    asked: TextIO = sys.stderr
    asked.write(f"{wrong}\nEdit again? [Y/n] ")
    asked.flush()
    answer = sys.stdin.readline()
    return bool(answer) and answer.strip().lower() in ("", "y", "yes")
