"""Which fields of a record hold its text and its label."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from mi_crow.clean_text import clean_text
from mi_crow.errors import UserError

RawRow = tuple[Any, Any]  # what stands in the text field, and in the label field

TEXT = "text"
CONVERSATIONS = ("messages", "conversations", "conversation")
_LABEL = "label"
_NAMED_AT_MOST = 8


@dataclass(frozen=True)
class Fields:
    """Names of the two fields. Without a label field `label` is taken where there is one."""

    text: str = TEXT
    label: str | None = None

    @property
    def label_name(self) -> str:
        return self.label or _LABEL

    def check(self, source: str, known: Iterable[str]) -> None:
        """Raises UserError, naming the fields there are, when `known` lacks one of these."""
        names = [str(name) for name in known]
        for field, flag in ((self.text, "--text-field"), (self.label, "--label-field")):
            if field is not None and field not in names:
                raise UserError(
                    f"dataset {source!r} has no field {field!r}",
                    hint=f"choose one with {flag}: {_choices(field, names)}",
                )

    def of(self, record: Mapping[str, Any]) -> RawRow:
        return record.get(self.text), record.get(self.label_name)


def _choices(field: str, names: list[str]) -> str:
    """The fields to choose from: conversations where nobody named a field, else the most like
    it first."""
    if field == TEXT and (talks := [name for name in CONVERSATIONS if name in names]):
        return ", ".join(talks)
    like = get_close_matches(field, names, n=_NAMED_AT_MOST, cutoff=0.3)
    return ", ".join([*like, *(name for name in names if name not in like)][:_NAMED_AT_MOST])


def label_text(value: Any, names: list[str] | None = None) -> str | None:
    """A label as text; numbers of a class by its name, which stands in `names`."""
    if value is None or value != value:  # not a number: a gap in a table of numbers
        return None
    if names is not None and isinstance(value, int) and not isinstance(value, bool):
        return clean_text(names[value]) if 0 <= value < len(names) else None
    return clean_text(str(value))
