"""What was typed into forms that have not started anything: kept while the app runs, and for its
next start."""

from collections.abc import Callable, Iterable, Iterator, MutableMapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from textual.app import App

from mi_crow.errors import MiCrowError
from mi_crow.store.json_object import JsonObject
from tui.actions import BY_ID
from tui.preferences.key_words import key

if TYPE_CHECKING:
    from tui.widgets.forms.fields import Texts

MOST: Final = 20  # the latest of them come back at the next start

DraftKey = tuple[str, tuple[tuple[str, str], ...]]


@dataclass(frozen=True)
class Draft:
    """The texts of one form; `is_open` while it is on the screen."""

    texts: dict[str, str]
    is_open: bool = False
    way: tuple[str, ...] = ()  # the actions whose keys open it, one after the other


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
        {
            "form": title,
            "began": dict(began),
            "texts": dict(draft.texts),
            "open": draft.is_open,
            "way": list(draft.way),
        }
        for (title, began), draft in list(drafts_of(app).items())[-MOST:]
    ]


def take_up_drafts(
    app: App[Any], saved: Iterable[Any], damaged: Callable[[Exception], object]
) -> Sequence[str]:
    """Takes up those of the last start, and tells what is no draft to `damaged`; gives a sentence
    about each form that was open when it ended."""
    told = list[str]()
    for number, one in enumerate(saved, 1):
        try:
            found, draft = _draft(JsonObject.of(one, f"saved form {number}"))
        except MiCrowError as error:
            damaged(error)
            continue
        drafts_of(app)[found] = replace(draft, is_open=False)
        told += _told(found[0], draft)
    return told


def _draft(saved: JsonObject) -> tuple[DraftKey, Draft]:
    way = saved.texts("way", ())
    known = way if all(one in BY_ID for one in way) else ()
    texts = _texts(saved.object("texts"))
    where = draft_key(saved.text("form"), _texts(saved.object("began")))
    return where, Draft(texts, saved.flag("open", False), known)


def _told(title: str, draft: Draft) -> Iterator[str]:
    if draft.is_open and draft.way:
        yield f"{title}: {key(*draft.way)} opens the form as it was left"
    elif draft.is_open:
        yield f"{title}: the form opens as it was left"


def _texts(saved: JsonObject) -> dict[str, str]:
    return {name: saved.text(name) for name in saved}
