"""The config file in the user's editor: a copy is edited, and taken when it is right."""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from mi_crow.errors import MiCrowError, UserError
from mi_crow.store.atomic import temporary_name
from mi_crow.store.settings import UserSettings
from mi_crow.store.settings_file import NEW_FILE, SettingsText, read_settings, write_settings

_EDITORS = ("nano", "vim", "vi")  # where neither VISUAL nor EDITOR says one


def edit_settings(path: Path, mistakes: Callable[[UserSettings], Sequence[str]]) -> bool:
    """Has the user edit a copy of the config file until it is right, then puts it in place; whether
    that changed it. `mistakes` are the sentences about what the settings must not be.

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
            wrong = _wrong(copy, path, mistakes)
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


def _wrong(copy: Path, path: Path, mistakes: Callable[[UserSettings], Sequence[str]]) -> str:
    """The first mistake in an edited copy; empty when it is right."""
    try:
        text = copy.read_bytes().decode("utf-8")
        found = mistakes(UserSettings.of(SettingsText(text, path)))
    except UnicodeDecodeError:
        return f"{path} is not UTF-8"
    except MiCrowError as error:
        return str(error)
    return found[0] if found else ""


def _open_editor(file: Path) -> None:
    """Raises UserError if no editor is found or the editor fails."""
    named = os.environ.get("VISUAL") or os.environ.get("EDITOR") or ""
    try:
        command = shlex.split(named)
    except ValueError as error:
        raise UserError(f"EDITOR {named!r} is not a command") from error
    if not command:
        command = [name for name in _EDITORS if shutil.which(name)][:1]
    if not command:
        raise UserError("no editor found", hint="set the EDITOR environment variable")
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
    """Whether the user wants to fix the mistake now; False without a terminal."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    sys.stderr.write(f"{wrong}\nEdit again? [Y/n] ")
    sys.stderr.flush()
    answer = sys.stdin.readline()
    return bool(answer) and answer.strip().lower() in ("", "y", "yes")
