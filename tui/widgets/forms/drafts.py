"""What was typed into forms that have not started anything: kept while the app runs, and for its
next start."""

from collections.abc import Iterable, MutableMapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from textual.app import App

if TYPE_CHECKING:
    from mi_crow.store.json_object import JsonObject
    from tui.widgets.forms.fields import Texts

MOST: Final = 20  # the latest of them come back at the next start

DraftKey = tuple[str, tuple[tuple[str, str], ...]]


@dataclass(frozen=True)
class Draft:
    """The texts of one form; `is_open` while it is on the screen."""

    texts: dict[str, str]
    is_open: bool = False


Drafts = MutableMapping[DraftKey, Draft]

_OF_APPS: WeakKeyDictionary[App[Any], Drafts] = WeakKeyDictionary()


def drafts_of(app: App[Any]) -> Drafts:
    """By `draft_key`, those that changed last at the end."""
    return _OF_APPS.setdefault(app, {})


def draft_key(title: str, at_first: "Texts") -> DraftKey:
    """The same for a form that asks for the same and begins with the same texts."""
    return title, tuple(sorted(at_first.items()))


def keep_draft(app: App[Any], key: DraftKey, draft: Draft | None) -> None:
    """Keeps what is in a form now, as the latest; without a draft, nothing of it."""
    drafts = drafts_of(app)
    drafts.pop(key, None)
    if draft is not None:
        drafts[key] = draft


def drafts_as_json(app: App[Any]) -> list[dict[str, Any]]:
    """The latest of them, for the next start."""
    return [
        {"form": title, "began": dict(began), "texts": dict(draft.texts), "open": draft.is_open}
        for (title, began), draft in list(drafts_of(app).items())[-MOST:]
    ]


def take_up_drafts(app: App[Any], saved: "Iterable[JsonObject]") -> Sequence[str]:
    """Takes up those of the last start; gives the titles of the forms that were open when it ended.
    Raises CorruptDataError for what is no draft."""
    read = [
        (
            draft_key(one.text("form"), _texts(one.object("began"))),
            Draft(_texts(one.object("texts")), one.flag("open", False)),
        )
        for one in saved
    ]
    drafts_of(app).update({key: replace(draft, is_open=False) for key, draft in read})
    return [title for (title, _), draft in read if draft.is_open]


def _texts(saved: "JsonObject") -> dict[str, str]:
    return {name: saved.text(name) for name in saved}
