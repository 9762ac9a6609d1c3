"""The command line that does what a form does; pure."""

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import MISSING
from typing import Any

from tui.screens.runs.forms.parameters import default_at, text_of
from tui.widgets.forms.fields import FormField, Values

_REPEATED = ("--slurm-arg", "--also")  # given once for each value, not with commas between them
_SWITCHES = {"--family": {"crosscoder": "--crosscoder", "clt": "--clt"}}  # one for each value


def arguments(
    kind: str, config: type, fields: Iterable[FormField], values: Values, device: str
) -> list[str]:
    """The words after `mi-crow`. What it takes anyway is left out; `device` is the one that it
    takes where none is named."""
    words = [kind]
    for one in fields:
        value = values.get(one.name)
        if not one.flag or value in (None, "", ()) or _is_taken(one, value, config, device):
            continue
        if one.flag in _SWITCHES:
            words.append(_SWITCHES[one.flag][value])
        elif one.switch:
            words += [one.flag] if value else []
        elif isinstance(value, tuple) and (one.flag in _REPEATED or kind == "capture"):
            for part in value:
                words += _given(one.flag, text_of(part))
        elif isinstance(value, tuple):
            words += _given(one.flag, ",".join(text_of(part) for part in value))
        else:
            words += _given(one.flag, text_of(value))
    return words


def command_line(words: Sequence[str], workspace: str) -> str:
    """The words as a shell takes them, for a workspace."""
    return shlex.join(["mi-crow", *words, *_given("--workspace", workspace)])


def _is_taken(one: FormField, value: Any, config: type, device: str) -> bool:
    if one.flag == "--device":
        return value == device
    if one.name.startswith("job."):
        return text_of(value) == one.default.text
    taken = default_at(config, one.name)
    return taken is not MISSING and value in (taken, (taken,))


def _given(flag: str, text: str) -> list[str]:
    return [f"{flag}={text}"] if text.startswith("-") else [flag, text]
