"""Editing the config file without leaving the app, which takes up what was changed."""

from textual.app import App

from mi_crow.cli.editing import edit_settings
from mi_crow.errors import MiCrowError
from mi_crow.store.settings import UserSettings
from mi_crow.store.settings_file import settings_path
from tui.preferences.preferences import Preferences


def edited(app: App[None]) -> Preferences | None:
    """Gives the terminal to the user's editor; the new preferences, None when nothing was changed.

    Raises MiCrowError, SuspendNotSupported and OSError.
    """
    failed: MiCrowError | OSError | None = None
    changed = False
    with app.suspend():  # which takes the terminal back only when nothing is raised inside it
        try:
            changed = edit_settings(settings_path(), _mistakes)
        except (MiCrowError, OSError) as error:
            failed = error
    if failed is not None:
        raise failed
    return Preferences.of(UserSettings.load()) if changed else None


def _mistakes(settings: UserSettings) -> list[str]:
    return [*settings.troubles.values(), *Preferences.of(settings).mistakes]
