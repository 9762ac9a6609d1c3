"""The hidden states in a module's inputs or output: a tensor, a tuple or an output object."""

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mi_crow.errors import UserError

_HIDDEN = ("hidden_states", "hidden_state", "hidden", "inputs_embeds", "x")


def first_tensor(value: Any) -> Tensor:
    """The first tensor in a module's input or output.

    Raises UserError if there is none.
    """
    if isinstance(value, Tensor):
        return value
    for item in _items(value):
        if isinstance(item, Tensor):
            return item
    raise UserError(
        f"a {type(value).__name__} contains no tensor",
        hint="hook a module that gives activations",
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


def input_key(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int | str:
    """Where the hidden states are among a module's inputs: an index into `args` or a keyword.

    The first tensor of `args`, else the keyword with a usual name, else the first of floating
    point: masks and positions may come before. Raises UserError if there is no tensor.
    """
    for index, item in enumerate(args):
        if isinstance(item, Tensor):
            return index
    for name in _HIDDEN:
        if isinstance(kwargs.get(name), Tensor):
            return name
    tensors = [name for name, item in kwargs.items() if isinstance(item, Tensor)]
    floating = [name for name in tensors if kwargs[name].is_floating_point()]
    if "input_ids" in tensors:
        return "input_ids"
    if not tensors:
        raise UserError(
            "the module has no tensor input", hint="hook a module that reads activations"
        )
    return (floating or tensors)[0]


def input_tensor(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    """The hidden states among a module's inputs. Raises UserError if none is a tensor."""
    place = input_key(args, kwargs)
    return args[place] if isinstance(place, int) else kwargs[place]


def replace_input(
    args: tuple[Any, ...], kwargs: Mapping[str, Any], tensor: Tensor
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The inputs with other hidden states: new objects, nothing in place."""
    place = input_key(args, kwargs)
    if isinstance(place, int):
        return (*args[:place], tensor, *args[place + 1 :]), dict(kwargs)
    return args, {**kwargs, place: tensor}
