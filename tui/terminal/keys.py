"""Keys that are typed into a field are no keys of actions."""

from textual.keys import REPLACED_KEYS, key_to_character
from textual.widget import Widget


def takes_key(focused: Widget | None, key: str) -> bool:
    """Whether the focused widget is a field that would take the key as a character."""
    return focused is not None and focused.check_consume_key(
        key, key_to_character(REPLACED_KEYS.get(key, key))
    )


def is_field(widget: Widget | None) -> bool:
    """Whether a widget takes what is typed."""
    return takes_key(widget, "a")
