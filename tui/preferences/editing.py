"""Editing the config file without leaving the app, which takes up what was changed."""

from textual.app import App

from mi_crow.cli.editing import edit_settings
from mi_crow.store.settings import UserSettings
from mi_crow.store.settings_file import settings_path
from tui.preferences.preferences import Preferences


def edited(app: App[None]) -> Preferences | None:
    """Gives the terminal to the user's editor; the new preferences, None when nothing was changed.

    Raises MiCrowError, SuspendNotSupported and OSError.
    """
    with app.suspend():
        if not edit_settings(settings_path(), _mistakes):
            return None
    return Preferences.of(UserSettings.load())


def _mistakes(settings: UserSettings) -> list[str]:
    return [*settings.troubles.values(), *Preferences.of(settings).mistakes]
