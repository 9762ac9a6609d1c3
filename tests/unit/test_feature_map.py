"""The map of features: PCA always, UMAP where its package is installed."""

import importlib.util

import pytest
import torch
from torch import Tensor

from mi_crow.errors import UserError
from mi_crow.jobs.checks import check_index
from mi_crow.mechanistic.features.config import IndexConfig
from mi_crow.mechanistic.features.index.tables.directions import umap_points
from mi_crow.store.workspace import Workspace


def clusters() -> Tensor:
    """Directions in three bundles of 30."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.eye(16)[:3].repeat_interleave(30, 0)
    return centres + 0.05 * torch.randn(90, 16, generator=generator)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("umap") is None, reason="umap-learn is not installed")
def test_umap_keeps_bundles_together_and_repeats_itself() -> None:
    points = umap_points(clusters(), seed=1)
    assert points.shape == (90, 2)
    assert torch.equal(points, umap_points(clusters(), seed=1))
    nearest = torch.cdist(points, points).fill_diagonal_(torch.inf).argmin(1)
    assert bool((nearest // 30 == torch.arange(90) // 30).all())


def test_without_the_package_the_job_is_refused_in_one_sentence(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "umap" else real(name)
    )
    with pytest.raises(UserError, match="umap-learn") as refused:
        check_index(workspace, IndexConfig("sae", map="umap"))
    assert "pca" in (refused.value.hint or "")
    with pytest.raises(UserError, match="umap-learn"):
        umap_points(clusters(), seed=0)


def test_an_unknown_map_is_refused() -> None:
    with pytest.raises(UserError, match="'tsne' is not known"):
        IndexConfig("sae", map="tsne")
