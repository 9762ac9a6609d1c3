"""What the weights alone give: norms, encoder-decoder cosine, nearest features, a map."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module

import torch
from torch import Tensor

from mi_crow.mechanistic.features.config import check_umap

_CELLS = 1 << 24  # cosines in memory at once
_MAX_EXACT_WIDTH = 1024
_MIN_UMAP_POINTS = 5  # with fewer there is no neighbourhood to preserve
_UMAP_NEIGHBOURS = 15


@dataclass(frozen=True)
class Directions:
    """Values of each latent, [M] on the CPU."""

    decoder_norm: Tensor
    encoder_decoder_cosine: Tensor | None  # None where they are in different spaces


@dataclass(frozen=True)
class Neighbours:
    """The nearest of the features first .. first + n - 1."""

    first: int
    other: Tensor  # int64 [n, count]
    cosine: Tensor  # float32 [n, count], descending


@torch.inference_mode()
def directions(decoder: Tensor, encoder: Tensor | None) -> Directions:
    """Norms of decoder rows [M, d] and their cosine with encoder rows [M, d]."""
    norm = torch.linalg.vector_norm(decoder.float(), dim=1).cpu()
    if encoder is None:
        return Directions(norm, None)
    cosine = torch.nn.functional.cosine_similarity(decoder.float(), encoder.float(), dim=1)
    return Directions(norm, cosine.cpu())


def unit_rows(rows: Tensor) -> Tensor:
    """Rows [M, d] at unit length in fp32; rows of zeros stay zero."""
    return torch.nn.functional.normalize(rows.float(), dim=1)


@torch.inference_mode()
def plane(rows: Tensor) -> Tensor:
    """Rows [M, d] on their first two principal components: [M, 2] on the CPU.

    Works on a d x d matrix, or on a few random directions where d is large; never on M x M. Signs
    are fixed by the component's largest entry, so that a map looks the same every time.
    """
    centred = rows - rows.mean(0)
    width = rows.shape[1]
    if width <= _MAX_EXACT_WIDTH:
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


def umap_points(decoder: Tensor, seed: int) -> Tensor:
    """Rows [M, d] laid out by cosine with UMAP: [M, 2] on the CPU, the same for the same seed.

    McInnes et al. 2018, "UMAP: Uniform Manifold Approximation and Projection". Raises UserError
    when umap-learn is not installed.
    """
    check_umap()
    if len(decoder) < _MIN_UMAP_POINTS:
        return plane(unit_rows(decoder))
    umap = import_module("umap")
    rows = unit_rows(decoder.detach()).cpu().numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns that a seed means one thread
        layout = umap.UMAP(
            n_neighbors=min(_UMAP_NEIGHBOURS, len(rows) - 1),
            metric="cosine",
            random_state=seed,
            n_jobs=1,
        ).fit_transform(rows)
    return torch.from_numpy(layout).float()


@torch.inference_mode()
def neighbours(decoder: Tensor, count: int, turn: tuple[int, int] = (0, 1)) -> Iterator[Neighbours]:
    """The `count` features with the highest decoder cosine to each feature, a block of features at
    a time; ties by number. Never holds M x M cosines. `turn`: the first of the blocks to do, and
    how far it is to the next."""
    rows = unit_rows(decoder)
    total = rows.shape[0]
    count = min(count, total - 1)
    step = max(1, _CELLS // total)
    for first in range(turn[0] * step, total if count > 0 else 0, turn[1] * step):
        cosine = rows[first : first + step] @ rows.T
        own = torch.arange(cosine.shape[0], device=rows.device)
        cosine[own, own + first] = -2.0  # below any cosine: no feature is its own neighbour
        values, other = cosine.topk(count, dim=1)
        yield Neighbours(first, other.cpu(), values.clamp(-1, 1).cpu())
