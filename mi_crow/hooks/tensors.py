"""The hidden-state tensor inside whatever a module takes or gives: tensor, tuple, output object."""

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mi_crow.errors import UserError


def first_tensor(value: Any) -> Tensor:
    """The first tensor in a module's input or output.

    Raises UserError when there is none.
    """
    if isinstance(value, Tensor):
        return value
    for item in _items(value):
        if isinstance(item, Tensor):
            return item
    raise UserError(
        f"a {type(value).__name__} holds no tensor", hint="hook a module that gives activations"
    )


def replace_tensor(value: Any, tensor: Tensor) -> Any:
    """`value` with its first tensor replaced: a new object of the same type, nothing in place."""
    if isinstance(value, Tensor):
        return tensor
    if isinstance(value, Mapping):
        # Output objects of transformers are mappings and dataclasses at once.
        changed: Any = copy.copy(value)
        key = next(key for key, item in value.items() if isinstance(item, Tensor))
        changed.__setitem__(key, tensor)
        return changed
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        name = next(
            field.name
            for field in dataclasses.fields(value)
            if isinstance(getattr(value, field.name), Tensor)
        )
        return dataclasses.replace(value, **{name: tensor})
    before = _items(value)
    place = next(i for i, item in enumerate(before) if isinstance(item, Tensor))
    items = [*before[:place], tensor, *before[place + 1 :]]
    kind: Any = type(value)
    return kind(*items) if hasattr(value, "_fields") else kind(items)


def _items(value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        return list(value.values())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [getattr(value, field.name) for field in dataclasses.fields(value)]
    if isinstance(value, list | tuple):
        return list(value)
    return []
