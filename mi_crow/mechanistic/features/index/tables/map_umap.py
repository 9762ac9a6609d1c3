"""The map of features by UMAP, which the extra `map` brings."""

import warnings
from importlib import import_module

import torch
from torch import Tensor

from mi_crow.mechanistic.features.index.tables.directions import plane, unit_rows
from mi_crow.mechanistic.features.index.tables.extras import check_umap

_LEAST_POINTS = 5  # with fewer there is no neighbourhood to keep
_NEIGHBOURS = 15


def umap_points(decoder: Tensor, seed: int) -> Tensor:
    """Rows [M, d] laid out by cosine: [M, 2] on the CPU, the same for the same seed.

    McInnes et al. 2018, "UMAP: Uniform Manifold Approximation and Projection". Raises UserError
    when umap-learn is not installed.
    """
    check_umap()
    if len(decoder) < _LEAST_POINTS:
        return plane(unit_rows(decoder))
    umap = import_module("umap")
    rows = unit_rows(decoder.detach()).cpu().numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a seed leaves one thread is what we ask for
        layout = umap.UMAP(
            n_neighbors=min(_NEIGHBOURS, len(rows) - 1),
            metric="cosine",
            random_state=seed,
            n_jobs=1,
        ).fit_transform(rows)
    return torch.from_numpy(layout).float()
