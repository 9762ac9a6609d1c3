"""The user's device in the forms of jobs."""

from collections.abc import Sequence
from dataclasses import replace

from tui.widgets.forms.fields import Default, FormField


def with_device(fields: Sequence[FormField], device: str) -> tuple[FormField, ...]:
    """`fields`, with the device of the settings where a form would take `auto`."""
    if device == "auto":
        return tuple(fields)
    return tuple(_of(one, device) if one.name == "device" else one for one in fields)


def _of(one: FormField, device: str) -> FormField:
    text = device if one.text == "auto" else one.text
    default = Default(device, "your settings") if one.default.text == "auto" else one.default
    return replace(one, text=text, default=default)
