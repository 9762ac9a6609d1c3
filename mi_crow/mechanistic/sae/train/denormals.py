"""Denormal floats taken for zero while training runs, and only then."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Inside the block denormals count as zero; afterwards they count as they did before.

    On CPU they slow the tails of an optimizer a hundredfold, but the setting is the whole
    process's, and a library must not leave it changed.
    """
    before = bool(torch.full((1,), 1e-40) * torch.ones(1) == 0)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)
