"""Rows of length one in random directions: what a fresh SAE starts from."""

import torch
from torch import Tensor


def random_unit_rows(n: int, width: int, generator: torch.Generator, device: str) -> Tensor:
    """[n, width] fp32, rows of length one in random directions."""
    rows = torch.randn(n, width, generator=generator, dtype=torch.float32, device=device)
    return rows / rows.norm(dim=1, keepdim=True)
