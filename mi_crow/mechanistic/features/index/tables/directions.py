"""What the weights alone say: norms, encoder against decoder, nearest features, a map."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

_CELLS = 1 << 24  # cosines that are held at once
_MOST_EXACT_WIDTH = 1024


@dataclass(frozen=True)
class Directions:
    """Facts of each latent, [M] on the CPU."""

    decoder_norm: Tensor
    encoder_decoder_cosine: Tensor | None  # None where the two read and write different things


@dataclass(frozen=True)
class Neighbours:
    """The nearest of the features first .. first + n - 1."""

    first: int
    other: Tensor  # int64 [n, count]
    cosine: Tensor  # float32 [n, count], descending


@torch.inference_mode()
def directions(decoder: Tensor, encoder: Tensor | None) -> Directions:
    """Lengths of decoder rows [M, d], and where they point beside encoder rows [M, d]."""
    norm = torch.linalg.vector_norm(decoder.float(), dim=1).cpu()
    if encoder is None:
        return Directions(norm, None)
    cosine = torch.nn.functional.cosine_similarity(decoder.float(), encoder.float(), dim=1)
    return Directions(norm, cosine.cpu())


def unit_rows(rows: Tensor) -> Tensor:
    """Rows [M, d] at length 1 in fp32; rows of zeros stay."""
    return torch.nn.functional.normalize(rows.float(), dim=1)


@torch.inference_mode()
def plane(rows: Tensor) -> Tensor:
    """The first two principal components of rows [M, d]: [M, 2] on the CPU.

    Works on d x d, or on a few random directions where d is large; never on M x M.

    Signs are fixed by the component's largest entry, so that a map looks the same every time.
    """
    centred = rows - rows.mean(0)
    width = rows.shape[1]
    if width <= _MOST_EXACT_WIDTH:
        _, vectors = torch.linalg.eigh(centred.T @ centred)
        axes = vectors[:, -2:].flip(1)  # [d, <= 2], greatest variance first
    else:
        with torch.random.fork_rng(devices=[rows.device] if rows.is_cuda else []):
            torch.manual_seed(0)
            _, _, axes = torch.svd_lowrank(centred, q=8, niter=4)
            axes = axes[:, :2]
    largest = axes.gather(0, axes.abs().argmax(0, keepdim=True))
    points = centred @ (axes * torch.where(largest < 0, -1.0, 1.0))
    return torch.nn.functional.pad(points, (0, 2 - points.shape[1])).cpu()


@torch.inference_mode()
def neighbours(decoder: Tensor, count: int) -> Iterator[Neighbours]:
    """The `count` features with the highest cosine to each feature, some features at a time.

    Never holds M x M cosines. Ties go by number.
    """
    rows = unit_rows(decoder)
    total = rows.shape[0]
    count = min(count, total - 1)
    step = max(1, _CELLS // total)
    for first in range(0, total if count > 0 else 0, step):
        cosine = rows[first : first + step] @ rows.T
        own = torch.arange(cosine.shape[0], device=rows.device)
        cosine[own, own + first] = -2.0  # below any cosine: nobody is their own neighbour
        values, other = cosine.topk(count, dim=1)
        yield Neighbours(first, other.cpu(), values.clamp(-1, 1).cpu())
