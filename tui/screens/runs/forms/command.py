"""The command line that does what a form does; pure."""

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING
from typing import Any

from tui.screens.runs.forms.parameters import default_at, text_of
from tui.widgets.forms.fields import FormField, Values

_FLAG = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")
_REPEATED = ("--slurm-arg", "--also")  # given once for each value, not with commas between them
_SWITCHES = {"--family": {"crosscoder": "--crosscoder", "clt": "--clt"}}  # one for each value
# Words of the command line that no label stands for.
_OTHER_WORDS = {
    " (--after JOB)": "",
    ": mi-crow jobs": " from the list of jobs",
    "add --launcher torchrun or slurm": "choose the launcher torchrun or slurm",
    "leave out --launcher and --nproc": "choose the launcher local and one process",
    "--launcher slurm": "the launcher slurm",
    "--map umap": "the map umap",
    "--map pca": "the map pca",
    "--partition, --time and --slurm-arg need": "partition, time limit and other options need",
    ", e.g. --layer resid_post.2": ", e.g. resid_post.2",
    "n_latents = ": "latents = ",
    "use --arch transcoder": "choose a transcoder as the architecture",
}


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


def flags_in(sentence: str) -> list[str]:
    """The flags of the command line that a sentence names, in its order."""
    return _FLAG.findall(sentence)


def in_words(sentence: str, fields: Iterable[FormField]) -> str:
    """A sentence in which the flags of the command line have the names of the form's fields."""
    for words, instead in _OTHER_WORDS.items():
        sentence = sentence.replace(words, instead)
    labels: Mapping[str, str] = {one.flag: one.label for one in fields if one.flag}

    def label(match: re.Match[str]) -> str:
        return labels.get(match[0], match[0][2:].replace("-", " "))

    return _FLAG.sub(label, sentence)
