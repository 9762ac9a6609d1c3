"""An index whose encoder multiplies in bf16: for rules that compare latents, and nothing else."""

from pathlib import Path

import pytest
import torch

from mi_crow.arithmetic import settle_arithmetic
from mi_crow.errors import UserError
from mi_crow.mechanistic.features import IndexConfig, build_index
from mi_crow.mechanistic.sae import JumpReluSae, SaeMetadata, SparseAutoencoder, TopKSae
from mi_crow.mechanistic.sae.kernels import product
from mi_crow.mechanistic.sae.rules.rounding import (
    round_product,
    rounding_fact,
    share_of_other_sets,
)
from mi_crow.store import Workspace


def test_a_rule_with_thresholds_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path / "ws")
    sae = JumpReluSae(64, 192)
    sae.metadata = SaeMetadata(model_name="sample", layer="model.layers.1")
    folder = sae.save(workspace.saes_dir / "one")
    with pytest.raises(UserError, match="jumprelu cannot be indexed in bf16") as caught:
        build_index(workspace, IndexConfig("one", precision="bf16", device="cpu"))
    assert "fp32" in caught.value.hint
    assert sorted(entry.name for entry in folder.iterdir()) == [
        "cfg.json",
        "sae_weights.safetensors",
    ]


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(UserError, match="precision 'int3' is not known"):
        IndexConfig("one", precision="int3")


def test_what_rounding_changes_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    sae = TopKSae(600, 48, 16)
    x = torch.randn(512, 48, generator=torch.Generator().manual_seed(1))
    assert share_of_other_sets(sae, x) is None
    round_product(sae, "one", "bf16", "evaluated")
    few = share_of_other_sets(sae, x)
    assert few is not None
    assert few <= 0.001
    assert sae.rounded_to is torch.bfloat16
    # Without candidates to spare, a bf16 product chooses others.
    monkeypatch.setattr(product, "_CANDIDATES", 0)
    sae.k = 3
    many = share_of_other_sets(sae, x)
    assert many is not None
    assert many > 0.001
    with pytest.raises(UserError, match="jumprelu cannot be evaluated in bf16"):
        round_product(JumpReluSae(64, 48), "one", "bf16", "evaluated")


@pytest.mark.parametrize(
    ("sae", "device", "rounded"),
    [
        (TopKSae(64, 48, 8), "cuda", torch.bfloat16),
        (TopKSae(64, 48, 8), "cpu", None),
        (JumpReluSae(64, 48), "cuda", None),
    ],
)
def test_auto_rounds_where_that_is_fast_and_changes_nothing(
    sae: SparseAutoencoder,
    device: str,
    rounded: torch.dtype | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(SparseAutoencoder, "device", property(lambda _: torch.device(device)))
    round_product(sae, "one", "auto", "indexed")
    assert getattr(sae, "rounded_to", None) is rounded
    assert rounding_fact(sae) == ({} if rounded is None else {"precision": "bf16"})


def test_fp32_is_fp32_in_every_process() -> None:
    torch.set_float32_matmul_precision("high")
    flushed = bool(torch.tensor(1e-40) * 1.0 == 0)
    try:
        settle_arithmetic(exact=not flushed)
        assert torch.get_float32_matmul_precision() == "highest"
    finally:
        torch.set_float32_matmul_precision("highest")
