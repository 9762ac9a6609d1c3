"""What the command line takes from the app: the app itself, and what its settings may be. Nothing
else imports it."""

import gc
import sys
from argparse import Namespace
from typing import TYPE_CHECKING

from mi_crow.cli.arguments import workspace_named
from mi_crow.errors import CorruptDataError, UserError
from mi_crow.store.settings import UserSettings
from mi_crow.store.workspace import Workspace

if TYPE_CHECKING:
    from tui.preferences.keymap import KeysOf


def run(options: Namespace) -> int:
    if options.json:
        raise UserError("--json needs a command", hint="mi-crow --help lists them")
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UserError("the app needs a terminal", hint="give a command: mi-crow --help")
    settings, damage = _settings()
    path = workspace_named(options) or str(settings.values.get("workspace", ""))
    return _open(Workspace.plan(path), None, options.fresh, settings, damage)


def open_app(workspace: Workspace, sae_id: str) -> int:
    """Opens the app on an SAE of a workspace, and gives its exit code. Raises the error that ended
    it."""
    return _open(workspace, sae_id, False, *_settings())


def _settings() -> tuple[UserSettings, str]:
    """The user's settings; the defaults and a sentence where the file is damaged: whoever opens
    the app wants to work."""
    try:
        return UserSettings.load(), ""
    except CorruptDataError as error:
        return UserSettings(), f"your settings are not used: {error.sentence}"


def _open(
    workspace: Workspace, sae_id: str | None, fresh: bool, settings: UserSettings, damage: str
) -> int:
    gc.disable()  # nothing of what is imported is garbage; the app goes on when it has started
    from tui.app import run as run_app

    workspace.ensure()
    return run_app(workspace, sae_id, fresh=fresh, settings=settings, damage=damage)


def app_mistakes(settings: UserSettings) -> list[str]:
    """What the app would not understand in the settings, each in one sentence."""
    from tui.preferences.preferences import Preferences

    return list(Preferences.of(settings).mistakes)


def app_keys(settings: UserSettings) -> "list[KeysOf]":
    """Every action of the app with its keys."""
    from tui.preferences.keymap import keys_of_all

    return keys_of_all(settings.group("keys"))


def app_key(action: str) -> str:
    """The key of an action of the app, as this user has it."""
    from tui.preferences.key_words import key, speak_of
    from tui.preferences.preferences import Preferences

    speak_of(Preferences.of(_settings()[0]).keymap.as_textual())
    return key(action)
