"""An index whose encoder multiplies in bf16: for rules that compare latents, and nothing else."""

from pathlib import Path

import pytest

from mi_crow.errors import UserError
from mi_crow.mechanistic.features import IndexConfig, build_index
from mi_crow.mechanistic.sae import JumpReluSae, SaeMetadata
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
