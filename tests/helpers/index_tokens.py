"""Tokens of the index pass from rows of equal length, which are easy to write down."""

import numpy as np
import torch

from mi_crow.mechanistic.features.index.codes import CodedTokens


def tokens_of(
    document: np.ndarray, position: np.ndarray, values: np.ndarray, latents: np.ndarray
) -> CodedTokens:
    """document and position [n]; values and latents [n, k], of which those above 0 fire."""
    rows, columns = np.nonzero(values > 0)
    return CodedTokens(
        torch.from_numpy(document.astype(np.int32)),
        torch.from_numpy(position.astype(np.int32)),
        torch.from_numpy(rows.astype(np.int32)),
        torch.from_numpy(latents[rows, columns].astype(np.int16)),
        torch.from_numpy(values[rows, columns].astype(np.float32)),
    )
