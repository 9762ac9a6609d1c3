"""`mi-crow config`: the config file."""

from argparse import ArgumentParser, Namespace
from dataclasses import asdict

from mi_crow.cli.arguments import add_actions
from mi_crow.cli.formatting import print_json
from mi_crow.cli.tables import print_facts, print_outcome
from mi_crow.store.settings import UserSettings, settings_path


def add_arguments(parser: ArgumentParser, command: str) -> None:
    for name, action in add_actions(
        parser,
        {
            "list": "print all settings (default)",
            "get": "print one setting",
            "set": "change one setting; an empty value unsets it",
            "path": "print the path of the config file",
        },
    ):
        if name in ("get", "set"):
            action.add_argument("key", help="workspace or device")
        if name == "set":
            action.add_argument("value")


def run(options: Namespace) -> int:
    action = options.action or "list"
    if action == "path":
        _print(options, {"path": str(settings_path())})
    elif action == "get":
        _print(options, {options.key: UserSettings.load().get(options.key)})
    elif action == "set":
        settings = UserSettings.load().with_value(options.key, options.value)
        settings.save()
        _print(options, {options.key: settings.get(options.key)})
    elif options.json:
        print_json(asdict(UserSettings.load()))
    else:
        print_facts({key: value or "(unset)" for key, value in asdict(UserSettings.load()).items()})
    return 0


def _print(options: Namespace, value: dict[str, str]) -> None:
    print_outcome(options.json, value, next(iter(value.values())))
