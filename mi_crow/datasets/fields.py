"""Which fields of a record hold its text and its label."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

from mi_crow.clean_text import clean_text
from mi_crow.datasets.conversations import as_messages
from mi_crow.errors import UserError

RawRow = tuple[Any, Any]  # the values of the text field and of the label field

TEXT = "text"
# Columns of token ids, as the usual libraries name them.
TOKEN_IDS = ("input_ids", "token_ids", "tokens")
CONVERSATIONS = ("messages", "conversations", "conversation")
_LABEL = "label"
_NAMED_AT_MOST = 8


@dataclass(frozen=True)
class Fields:
    """Names of the two fields. Without a label field `label` is used if there is one."""

    text: str = TEXT
    label: str | None = None

    @property
    def label_name(self) -> str:
        return self.label or _LABEL

    def found(
        self, source: str, known: Iterable[str], texts: Collection[str] | None = None
    ) -> "Fields":
        """These fields in data whose fields are `known`; token ids are used if no text field was
        named. `texts` are those that may have text in them, if that is known.

        Raises UserError, naming fields that would work, when `known` lacks one of these.
        """
        names = [str(name) for name in known]
        ids = next((name for name in TOKEN_IDS if name in names), None)
        here = replace(self, text=ids) if ids and self.text == TEXT not in names else self
        if here.text not in names:
            raise _no_field(source, here.text, "--text-field", names, texts)
        if here.label is not None and here.label not in names:
            raise _no_field(source, here.label, "--label-field", names, None)
        return here

    def of(self, record: Mapping[str, Any]) -> RawRow:
        return record.get(self.text), record.get(self.label_name)


def _no_field(
    source: str, field: str, flag: str, names: list[str], texts: Collection[str] | None
) -> UserError:
    usable = names if texts is None else [name for name in names if name in texts]
    if usable:
        hint = f"choose one with {flag}: {_choices(field, usable)}"
    else:
        hint = f"none of its fields has text: {', '.join(names[:_NAMED_AT_MOST]) or 'it has none'}"
    return UserError(f"dataset {source!r} has no field {field!r}", hint=hint)


def is_token_ids(value: Any) -> bool:
    """True for the ids of a tokenized text: a list of whole numbers that is not empty."""
    return (
        isinstance(value, list | tuple)
        and bool(value)
        and all(isinstance(one, int) and not isinstance(one, bool) for one in value)
    )


def may_hold_text(value: Any) -> bool:
    """True for what a document can be made of: a text, a conversation, token ids; also for a gap,
    since later records may have one."""
    text = isinstance(value, str) and bool(value.strip())
    return value is None or text or is_token_ids(value) or as_messages(value) is not None


def _choices(field: str, names: list[str]) -> str:
    """The fields to choose from: conversations if no field was named, else the most similar names
    first."""
    if field == TEXT and (talks := [name for name in CONVERSATIONS if name in names]):
        return ", ".join(talks)
    like = get_close_matches(field, names, n=_NAMED_AT_MOST, cutoff=0.3)
    return ", ".join([*like, *(name for name in names if name not in like)][:_NAMED_AT_MOST])


def label_text(value: Any, names: list[str] | None = None) -> str | None:
    """A label as text; a class number by its name in `names`."""
    if value is None or value != value:  # not a number: a gap in a table of numbers
        return None
    if names is not None and isinstance(value, int) and not isinstance(value, bool):
        return clean_text(names[value]) if 0 <= value < len(names) else None
    return clean_text(str(value))
