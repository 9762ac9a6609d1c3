"""The condition `layer:` of the query language: `layer:2`, `layer:1,3-5`, `layer:resid_post.2`,
`layer>2`. Torch-free."""

import re
from collections.abc import Sequence

import numpy as np

from mi_crow.errors import NotFoundError, nearest
from mi_crow.language_model.hook_points.names import number_of
from mi_crow.mechanistic.sae.hook_names import point_of

_LISTED = 8  # layers that a refusal names
_NUMBERS = re.compile(r"(?P<first>[0-9]{1,6})(-(?P<last>[0-9]{1,6}))?")


def block_of(name: str) -> int | None:
    """The number of a layer's block by its name, with or without a model's: `tuned:mlp_in.3`."""
    point = name.rpartition(":")[2]
    return number_of(point_of(point) or point)


def layers_named(wanted: str, names: Sequence[str]) -> np.ndarray:
    """Which of the layers `names` the words of a condition mean, numbers of blocks, ranges and
    names with commas between them: bool [names]. Raises NotFoundError for one that is not there."""
    found = np.zeros(len(names), dtype=bool)
    for part in (one.strip() for one in wanted.split(",")):
        own = np.array([_is_meant(part, name) for name in names], dtype=bool)
        if not own.any():
            raise NotFoundError(
                f"{part!r} is none of the layers of this SAE",
                hint=f"there is {nearest(part, names, _LISTED)}",
            )
        found |= own
    return found


def layers_compared(sign: str, number: float, names: Sequence[str]) -> np.ndarray:
    """The layers whose blocks' numbers are so: bool [names]."""
    blocks = np.array([np.nan if (at := block_of(one)) is None else at for one in names])
    compare = {"<": np.less, "<=": np.less_equal, ">": np.greater, ">=": np.greater_equal}
    return compare[sign](blocks, number)


def layer_words(names: Sequence[str]) -> list[str]:
    """What completes the condition: the numbers of the blocks, then the names."""
    blocks = (block_of(name) for name in names)
    return [*dict.fromkeys(str(one) for one in blocks if one is not None), *names]


def _is_meant(part: str, name: str) -> bool:
    numbers, block = _NUMBERS.fullmatch(part), block_of(name)
    if numbers is not None:
        first = int(numbers["first"])
        return block is not None and first <= block <= int(numbers["last"] or first)
    model, _, point = name.rpartition(":")
    part = part.casefold()
    known = {name.casefold(), model.casefold(), point.casefold()} - {""}
    return part in known or (point_of(part) or part) == (point_of(point) or point)
