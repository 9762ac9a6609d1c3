"""What was typed into forms that were closed before they started anything, while the app runs."""

from collections.abc import Hashable, MutableMapping
from weakref import WeakKeyDictionary

from textual.app import App

from tui.widgets.forms.fields import Texts

Drafts = MutableMapping[Hashable, dict[str, str]]

_OF_APPS: WeakKeyDictionary[App[object], Drafts] = WeakKeyDictionary()


def drafts_of(app: App[object]) -> Drafts:
    """By `draft_key`."""
    return _OF_APPS.setdefault(app, {})


def draft_key(title: str, at_first: Texts) -> Hashable:
    """The same for a form that asks for the same and begins with the same texts."""
    return title, tuple(sorted(at_first.items()))
