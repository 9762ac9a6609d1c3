"""The user's keys for actions: read, checked against the table of actions, and shown; pure.

A key keeps one meaning in all of the app, whoever gives it: an action may take the key of another
only when that has moved to another key, or means the same.
"""

import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from textual.keys import Keys, _character_to_key

from mi_crow.errors import UserError, nearest
from tui.actions import ACTIONS, BY_ID, NO_KEY, Action, key_label, key_names
from tui.key_meanings import ANSWERS, MEANINGS

_MODIFIERS = ("ctrl", "alt", "shift", "super", "hyper", "meta")
# How to get out of anything must not depend on the config file.
_FIXED = ("app.escape", "popup.close", "form.close")
_OF_TEXTUAL = {"tab": "goes to the next pane", "shift+tab": "goes to the pane before"}
# Scopes of popups and what is in them: these keys are active together.
_TOGETHER = {
    "popup": ("popup",),
    "columns": ("popup", "list"),
    "new": ("popup", "list"),
    "map": ("popup",),
    "section": ("popup", "form"),
    "form": ("popup",),
}


@dataclass(frozen=True)
class KeysOf:
    """An action with the keys that it has for this user."""

    id: str
    keys: tuple[str, ...]
    help: str
    changed: bool

    @property
    def labels(self) -> tuple[str, ...]:
        """The keys as people read them."""
        return tuple(key_label(key) for key in self.keys)


@dataclass(frozen=True)
class KeyMap:
    """The keys that differ from the table of actions, and what is wrong with those refused."""

    keys: dict[str, tuple[str, ...]]
    mistakes: dict[str, str]  # by action

    def of(self, action: Action) -> tuple[str, ...]:
        found = self.keys.get(action.id)
        return key_names(action) if found is None else found

    def as_textual(self) -> dict[str, str]:
        """Keys with commas between them, by the ids of bindings."""
        return {name: ",".join(keys) or NO_KEY for name, keys in self.keys.items()}


def read_keymap(asked: Mapping[str, Sequence[str]]) -> KeyMap:
    """The key map that a user wrote. What is wrong in it is left out, with a sentence."""
    keys: dict[str, tuple[str, ...]] = {}
    mistakes: dict[str, str] = {}
    for name, words in asked.items():
        try:
            _check_action(name)
            keys[name] = tuple(dict.fromkeys(key_named(word) for word in words))
        except UserError as error:
            mistakes[name] = error.sentence
    # One that is refused has its old keys again, which another may have been given meanwhile.
    while clashing := _first_conflict(KeyMap(keys, {})):
        name, sentence = clashing
        mistakes[name] = sentence
        del keys[name]
    return KeyMap(keys, mistakes)


def keys_of_all(asked: Mapping[str, Sequence[str]]) -> list[KeysOf]:
    """Every action with its keys under a user's key map."""
    keymap = read_keymap(asked)
    return [
        KeysOf(action.id, keymap.of(action), action.help, action.id in keymap.keys)
        for action in ACTIONS
    ]


def _check_action(name: str) -> None:
    if name not in BY_ID:
        hint = f"there is {nearest(name, BY_ID)}; mi-crow config keys lists all"
        raise UserError(f"action {name!r} is not known", hint=hint)
    if name in _FIXED:
        raise UserError(f"{name} keeps its key: esc always leads out")


def key_named(word: str) -> str:
    """A key as Textual calls it: `?` is `question_mark`. Raises UserError for one there is not."""
    *modifiers, key = word.split("+") if len(word) > 1 else [word]
    if word.endswith("++"):  # plus with a modifier
        modifiers, key = [one for one in word[:-2].split("+") if one], "+"
    if len(key) == 1:
        key = _character_to_key(key)
    known = len(key) == 1 or key in _known_keys()
    unknown = [one for one in modifiers if one not in _MODIFIERS]
    if not key or unknown or not known:
        hint = f"there is {nearest(key, _known_keys())}"
        if unknown:
            hint = f"before + use one of {', '.join(_MODIFIERS)}"
        raise UserError(f"key {word!r} is not known", hint=hint)
    return "+".join((*modifiers, key))


@lru_cache(1)
def _known_keys() -> frozenset[str]:
    """The names of keys with more than one letter, without modifiers."""
    named = {key.value for key in Keys if "+" not in key.value and "<" not in key.value}
    signs = {_character_to_key(sign) for sign in string.punctuation + " "}
    return frozenset(name for name in named | signs if len(name) > 1)


def _first_conflict(keymap: KeyMap) -> tuple[str, str] | None:
    """An action of a user's key map whose key is taken, the last one, and the sentence about it."""
    for name, keys in reversed(keymap.keys.items()):
        for key in keys:
            if key in _OF_TEXTUAL and BY_ID[name].scope not in ANSWERS:
                return name, f"{name} cannot be {key}, which {_OF_TEXTUAL[key]}"
            for other in _taken_by(keymap, name, key):
                label = key_label(key)
                return name, f"{name} cannot be {label}, the key of {other.id} ({other.help})"
    return None


def _taken_by(keymap: KeyMap, name: str, key: str) -> Iterator[Action]:
    """The other actions that have the key, where it would have two meanings."""
    action = BY_ID[name]
    for other in ACTIONS:
        if other.id != name and key in keymap.of(other) and _clash(action, other, key):
            yield other


def _clash(one: Action, other: Action, key: str) -> bool:
    scopes = (one.scope, other.scope)
    if one.priority or other.priority:  # comes before what is on the screen, also in popups
        return True
    if any(scope in ANSWERS for scope in scopes):
        return one.scope == other.scope or any(
            second in _TOGETHER.get(first, ()) for first, second in (scopes, scopes[::-1])
        )
    names = [action.id.partition(".")[2] for action in (one, other)]
    meaning = MEANINGS.get(key)
    same = names[0] == names[1] or (meaning is not None and set(names) <= set(meaning.names))
    return not same or one.scope == other.scope
