"""Comparing SAEs whose shared features are known."""

import json
from pathlib import Path

import pytest
import torch

from mi_crow.cli import main
from mi_crow.errors import UserError
from mi_crow.mechanistic.sae import TopKSae, Transcoder, compare_saes
from mi_crow.store import Workspace


def sae_with(rows: torch.Tensor) -> TopKSae:
    sae = TopKSae(rows.shape[0], rows.shape[1], k=1)
    with torch.no_grad():
        sae.W_dec.copy_(rows)
    return sae


def at_angle(first: int, second: int, cosine: float) -> torch.Tensor:
    """A unit vector in the plane of two axes of eight."""
    row = torch.zeros(8)
    row[first], row[second] = cosine, (1 - cosine**2) ** 0.5
    return row


def test_shares_count_features_by_their_nearest_neighbour() -> None:
    a = sae_with(torch.eye(8)[:4] * torch.tensor([[1.0], [5.0], [0.2], [1.0]]))
    b = sae_with(torch.stack([at_angle(0, 4, 0.95), at_angle(1, 5, 0.8), at_angle(2, 6, 0.3)]))
    found = compare_saes(a, b)
    assert (found.features, found.others) == (4, 3)
    assert found.mean_max_cosine == pytest.approx((0.95 + 0.8 + 0.3 + 0) / 4)
    assert (found.share_close, found.share_same) == (0.5, 0.25)
    assert found.stability == pytest.approx(2 / 3)


def test_a_feature_is_matched_once() -> None:
    a = sae_with(torch.stack([at_angle(0, 1, c) for c in (1.0, 0.99, 0.98)]))
    b = sae_with(torch.stack([at_angle(0, 2, 0.97), torch.eye(8)[3], torch.eye(8)[4]]))
    assert compare_saes(a, b).share_same == 1.0
    assert compare_saes(a, b).stability == pytest.approx(1 / 3)
    assert compare_saes(b, a).stability == pytest.approx(1 / 3)
    assert compare_saes(b, a).share_same == pytest.approx(1 / 3)


def test_an_sae_is_itself_and_random_ones_share_nothing() -> None:
    a, b = TopKSae(300, 64, 4, seed=1), TopKSae(200, 64, 4, seed=2)
    same = compare_saes(a, a)
    assert same.mean_max_cosine == pytest.approx(1)
    assert (same.share_close, same.share_same, same.stability) == (1, 1, 1)
    other = compare_saes(a, b)
    assert (other.share_close, other.stability) == (0, 0)
    assert 0.2 < other.mean_max_cosine < 0.5


def test_directions_without_length_are_left_out() -> None:
    rows = torch.eye(8)
    rows[3] = 0
    assert compare_saes(sae_with(rows), sae_with(torch.eye(8))).features == 7
    with pytest.raises(UserError, match="decoder rows are all zero"):
        compare_saes(sae_with(torch.zeros(3, 8)), sae_with(rows))


def test_saes_of_different_widths_cannot_be_compared() -> None:
    with pytest.raises(UserError, match="widths 8 and 5"):
        compare_saes(sae_with(torch.eye(8)), Transcoder(16, 8, 5, k=2))


def test_the_command_takes_ids_and_paths(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = Workspace.open(tmp_path / "ws")
    sae_with(torch.eye(8)).save(workspace.make_sae_dir("one", "one"))
    outside = tmp_path / "elsewhere"
    sae_with(torch.eye(8)[:4]).save(outside)
    root = str(workspace.root)
    assert main(["compare", "one", str(outside), "--workspace", root, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["features"], found["others"], found["share_same"]) == (8, 4, 0.5)
    assert found["stability"] == 1.0
    assert main(["compare", "one", "one", "--workspace", root]) == 0
    assert "match one to one" in capsys.readouterr().out
    assert main(["compare", "one", "two", "--workspace", root]) == 2
    assert "SAE 'two' not found" in capsys.readouterr().err
