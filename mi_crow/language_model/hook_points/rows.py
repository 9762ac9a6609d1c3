"""One row per token: the layout of a module's tensor, proved by changing tokens of a pass."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

# [batch, length, d]; [batch * length, d]; [batch, length, heads, d_head];
# [batch, heads, length, d_head]
Layout = Literal["rows", "flat", "heads", "heads_first"]

_ORDER: tuple[Layout, ...] = ("flat", "heads", "heads_first")


def to_rows(tensor: Tensor, layout: Layout, batch: int, length: int) -> Tensor:
    """`tensor` as [batch, length, d]: a view if possible."""
    if layout == "rows":
        return tensor
    if layout == "heads_first":
        tensor = tensor.transpose(1, 2)
    return tensor.reshape(batch, length, -1)


def from_rows(rows: Tensor, layout: Layout, like: Tensor) -> Tensor:
    """Rows [batch, length, d] in the shape of `like`, which they came from."""
    if layout == "heads_first":
        return rows.reshape(like.transpose(1, 2).shape).transpose(1, 2)
    return rows.reshape(like.shape)


def fits(shape: Sequence[int], layout: Layout, batch: int, length: int) -> bool:
    """Whether the sizes allow a layout."""
    if layout == "rows":
        return len(shape) == 3 and tuple(shape[:2]) == (batch, length)
    if layout == "flat":
        return len(shape) == 2 and shape[0] == batch * length
    if len(shape) != 4 or shape[0] != batch:
        return False
    return shape[1 if layout == "heads" else 2] == length


def proved_layout(read: Callable[[Tensor], Tensor], ids: Tensor, other: int) -> Layout | None:
    """The layout of the tensor that `read` returns for token ids [batch, length]; None if there is
    no row per token.

    For [batch, length, d] the sizes decide. Any other shape must prove to have one row per token in
    order: in a causal model a changed token changes its own row and none before it, and no row of
    another text. `other` is a token id to change to.
    """
    batch, length = ids.shape
    before = read(ids)
    if fits(before.shape, "rows", batch, length):
        return "rows"
    possible: list[Layout] = [one for one in _ORDER if fits(before.shape, one, batch, length)]
    for text, position in ((0, length - 1), (0, length - 2), (batch - 1, length // 2)):
        if not possible:
            return None
        changed = ids.clone()
        changed[text, position] = other
        after = read(changed)
        if after.shape != before.shape:
            return None
        possible = [
            one for one in possible if _moved(before, after, one, batch, length) == (text, position)
        ]
    return possible[0] if len(possible) == 1 else None


def _moved(
    before: Tensor, after: Tensor, layout: Layout, batch: int, length: int
) -> tuple[int, int] | None:
    """The text and the first position whose rows differ; None if several texts do."""
    difference = to_rows(after, layout, batch, length) - to_rows(before, layout, batch, length)
    size = to_rows(before, layout, batch, length).float().abs().amax().clamp_min(1e-6)
    # A batch's products may round differently when one row of it changes.
    moved = difference.float().abs().amax(-1) > 1e-4 * size
    texts, positions = torch.nonzero(moved, as_tuple=True)
    if not len(texts) or len(texts.unique()) > 1:
        return None
    return int(texts[0]), int(positions.min())
