"""How some SAEs of other tools rescale each token on the way in, undone on the way out."""

from typing import NamedTuple

import torch
from torch import Tensor

from mi_crow.errors import UserError

INPUT_NORMS = ("none", "constant_norm_rescale", "layer_norm")

_LAYER_NORM_EPS = 1e-5


class TokenUnits(NamedTuple):
    """What one unit of a normalised token was: x = normalised * size + shift."""

    size: Tensor  # [..., 1]
    shift: Tensor | None  # [..., 1]; None for zero


def check_input_norm(kind: str) -> str:
    """`kind` if it is one of INPUT_NORMS. Raises UserError otherwise."""
    if kind not in INPUT_NORMS:
        raise UserError(
            f"input normalisation {kind!r} is not known", hint=f"there is {', '.join(INPUT_NORMS)}"
        )
    return kind


def normalised(x: Tensor, kind: str, centred: bool = False) -> tuple[Tensor, TokenUnits | None]:
    """Tokens x [..., d] as the SAE takes them, and what is needed to undo it.

    constant_norm_rescale: x sqrt(d) / |x|. layer_norm: (x - mean) / (std + 1e-5) with the sample
    standard deviation; undone as z std + mean, as SAELens and OpenAI's sparse_autoencoder do.
    `centred` subtracts the token's mean before that.
    """
    if centred:
        token_mean = x.mean(dim=-1, keepdim=True)
        rows, units = normalised(x - token_mean, kind)
        size = torch.ones_like(token_mean) if units is None else units.size
        shift = token_mean if units is None or units.shift is None else token_mean + units.shift
        return rows, TokenUnits(size, shift)
    if kind == "none":
        return x, None
    if kind == "constant_norm_rescale":
        norms = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        size = norms.clamp_min(torch.finfo(x.dtype).tiny) / x.shape[-1] ** 0.5
        return x / size, TokenUnits(size, None)
    mean = x.mean(dim=-1, keepdim=True)
    deviation = x - mean
    std = deviation.std(dim=-1, keepdim=True)
    return deviation / (std + _LAYER_NORM_EPS), TokenUnits(std, mean)


def restored(x: Tensor, units: TokenUnits | None) -> Tensor:
    """Undoes `normalised`."""
    if units is None:
        return x
    scaled = x * units.size
    return scaled if units.shift is None else scaled + units.shift
