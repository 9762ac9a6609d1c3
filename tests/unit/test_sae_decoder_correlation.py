"""c_dec: how alike two decoder rows are, on average."""

import math

import pytest
import torch

from mi_crow.mechanistic.sae import TopKSae
from mi_crow.mechanistic.sae.evaluation import decoder_correlation as module
from mi_crow.mechanistic.sae.evaluation.decoder_correlation import decoder_correlation


def with_rows(rows: torch.Tensor) -> TopKSae:
    sae = TopKSae(len(rows), rows.shape[1], 1)
    with torch.no_grad():
        sae.W_dec.copy_(rows)
    return sae


def test_it_is_the_mean_over_all_pairs() -> None:
    rows = torch.randn(40, 8, generator=torch.Generator().manual_seed(0)) * 3
    unit = rows / rows.norm(dim=1, keepdim=True)
    plain = [abs(float(unit[i] @ unit[j])) for i in range(40) for j in range(i)]
    assert decoder_correlation(with_rows(rows)) == pytest.approx(sum(plain) / len(plain), rel=1e-5)


def test_orthogonal_rows_have_none_and_dead_ones_do_not_count() -> None:
    assert decoder_correlation(with_rows(torch.eye(8))) == pytest.approx(0, abs=1e-6)
    rows = torch.cat([torch.ones(2, 8), torch.zeros(5, 8)])
    assert decoder_correlation(with_rows(rows)) == pytest.approx(1, abs=1e-6)
    assert math.isnan(decoder_correlation(with_rows(torch.zeros(4, 8))))


def test_of_a_large_sae_a_sample_of_the_rows_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = torch.randn(3000, 16, generator=torch.Generator().manual_seed(0))
    exact = decoder_correlation(with_rows(rows))
    monkeypatch.setattr(module, "_ALL", 100)
    monkeypatch.setattr(module, "_DRAWN", 1000)
    drawn = decoder_correlation(with_rows(rows))
    assert drawn != exact
    assert drawn == pytest.approx(exact, rel=0.01)
