"""`mi-crow config`: the config file."""

from argparse import ArgumentParser, Namespace

from mi_crow.cli.arguments import add_actions
from mi_crow.cli.editing import edit_settings
from mi_crow.cli.formatting import print_json
from mi_crow.cli.tables import print_facts, print_list, print_outcome
from mi_crow.errors import CorruptDataError, UserError
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
        changed_it = edit_settings(settings_path(), _mistakes)
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
        ["action", "keys", "", "what it does…"],
        [
            [one.id, " ".join(one.labels) or "-", "changed" if one.changed else "", one.help]
            for one in rows
        ],
        "there are no actions",
    )
    if wrong := _mistakes(settings):
        raise CorruptDataError(wrong[0], hint="correct it with `mi-crow config edit`")
