"""Dataclasses of which some fields are said elsewhere under the same names."""

from dataclasses import fields
from typing import Any, TypeVar, cast

Made = TypeVar("Made")


def same_fields(kind: type[Made], source: Any, /, **others: Any) -> Made:
    """A dataclass whose fields are the attributes of `source` of the same names, except for
    `others`; what neither has is left to its default."""
    names = [one.name for one in fields(cast(Any, kind)) if one.name not in others]
    taken = {name: getattr(source, name) for name in names if hasattr(source, name)}
    return kind(**taken, **others)
