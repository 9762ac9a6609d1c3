"""The settings as the app uses them; what is wrong in them falls back and is told."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mi_crow.errors import UserError, nearest
from mi_crow.mechanistic.features.catalogue import DEFAULT, column_named
from mi_crow.store.settings import UserSettings
from tui.preferences.keymap import KeyMap, read_keymap
from tui.preferences.list_columns import LISTS, chosen_columns, usual_columns
from tui.themes.named import KNOWN

_WITH_COLUMNS = ("features", *LISTS)  # what has columns that can be chosen


@dataclass(frozen=True)
class Preferences:
    """What a user wants of the app; the defaults are those of a user without a config file."""

    theme: str = ""
    device: str = "auto"
    keymap: KeyMap = field(default_factory=lambda: KeyMap({}, {}))
    columns: tuple[str, ...] = DEFAULT
    lists: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # their columns
    heat_dark: tuple[str, ...] = ()
    heat_light: tuple[str, ...] = ()
    mistakes: tuple[str, ...] = ()  # one sentence each

    @classmethod
    def of(cls, settings: UserSettings) -> "Preferences":
        """What the settings mean. Their own troubles are not among the mistakes."""
        mistakes: dict[str, str] = {}
        keymap = read_keymap(settings.group("keys"))
        mistakes |= {f"keys.{name}": sentence for name, sentence in keymap.mistakes.items()}
        theme = _text(settings, "theme")
        if theme and theme not in KNOWN:
            known = nearest(theme, KNOWN, len(KNOWN))
            mistakes["theme"] = f"theme {theme!r} is not known; there is {known}"
            theme = ""
        columns, lists = _columns(settings.group("columns"), mistakes)
        return cls(
            theme,
            _text(settings, "device") or "auto",
            keymap,
            columns,
            lists,
            settings.texts("heat.dark"),
            settings.texts("heat.light"),
            tuple(f"{settings.source.place(name)}: {words}" for name, words in mistakes.items()),
        )

    def columns_of(self, listed: str) -> tuple[str, ...]:
        """The columns of a new list of runs, SAEs, jobs or concepts."""
        return self.lists.get(listed, usual_columns(listed))

    def heat(self, dark: bool) -> tuple[str, ...]:
        """The colours of the ramp in dark or light themes; empty: those of the theme."""
        return self.heat_dark if dark else self.heat_light


def all_mistakes(settings: UserSettings, preferences: Preferences) -> tuple[str, ...]:
    """What is wrong in the settings, one sentence each. They begin with the name of the file: where
    it is would take the room of what is wrong."""
    path = settings.source.path
    folder = f"{path.parent}/" if path else ""
    both = (*settings.troubles.values(), *preferences.mistakes)
    return tuple(sentence.removeprefix(folder) for sentence in both)


def _text(settings: UserSettings, name: str) -> str:
    return "" if name in settings.troubles else settings.text(name)


def _columns(
    asked: Mapping[str, Sequence[str]], mistakes: dict[str, str]
) -> tuple[tuple[str, ...], dict[str, tuple[str, ...]]]:
    """The columns of the table of features, and those of the lists. A feature's number always is
    among them, as the first column of a list is: marks and rows go by it."""
    columns, lists = DEFAULT, {}
    for screen, names in asked.items():
        if screen not in _WITH_COLUMNS:
            mistakes[f"columns.{screen}"] = (
                f"the columns of {screen!r} cannot be chosen; there is {', '.join(_WITH_COLUMNS)}"
            )
            continue
        try:
            if screen in LISTS:
                lists[screen] = chosen_columns(screen, names)
                continue
            found = tuple(dict.fromkeys(column_named(name).name for name in names))
            columns = found if "feature" in found else ("feature", *found)
        except UserError as error:
            mistakes[f"columns.{screen}"] = error.sentence
    return columns, lists
