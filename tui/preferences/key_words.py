"""The keys of actions in sentences, as this user has them: no sentence names a key of its own.

The app says which key map holds. There is one app in a process, and sentences are made in many
places, also by pure functions and in threads.
"""

from collections.abc import Mapping

from tui.actions import BY_ID, NO_KEY, key_label
from tui.key_meanings import ANSWERS

_live: dict[str, str] = {}


def speak_of(keymap: Mapping[str, str]) -> None:
    """From now on sentences name the keys of `keymap` where they are not those of the table."""
    _live.clear()
    _live.update(keymap)


def key(*ids: str) -> str:
    """The key of an action as people read it; of several, one to be pressed after the other.

    An action that was left without a key is named as the palette finds it: `:tag`.
    """
    return " ".join(map(_one, ids))


def _one(name: str) -> str:
    action = BY_ID[name]
    first = _live.get(name, action.keys).partition(",")[0].strip()
    if first and first != NO_KEY:
        return key_label(first)
    if action.scope in ANSWERS or name == "app.palette":  # not in the palette: it is on the screen
        return action.label
    palette = _one("app.palette")
    return f"{palette}{'' if len(palette) == 1 else ' '}{action.label}"
