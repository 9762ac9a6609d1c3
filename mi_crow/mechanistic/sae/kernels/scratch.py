"""Blocks of CPU memory that a thread uses again and again: touching fresh pages costs more than the
arithmetic that fills them."""

import math
import threading

import torch
from torch import Tensor

_held = threading.local()


def scratch(name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """This thread's block of that name; contents are undefined. It is valid until the next one of
    its name and type."""
    size, key = math.prod(shape), f"{name} {dtype}"
    held: Tensor | None = getattr(_held, key, None)
    if held is None or held.numel() < size:
        with torch.inference_mode(False):  # else the block could never be written outside it
            held = torch.empty(size, dtype=dtype)
        setattr(_held, key, held)
    return held[:size].view(shape)
