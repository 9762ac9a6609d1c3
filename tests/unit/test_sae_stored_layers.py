"""A run's layer by all names of its tensor, and what an SAE of it says of where it reads."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mi_crow.errors import NotFoundError
from mi_crow.mechanistic.sae import TopKSae
from mi_crow.mechanistic.sae.formats.exporting import export_sae
from mi_crow.mechanistic.sae.formats.load import load_sae
from mi_crow.mechanistic.sae.metadata import SaeMetadata
from mi_crow.mechanistic.sae.run_tokens import RunTokens
from mi_crow.mechanistic.sae.stored_layers import stored_layer
from mi_crow.store.runs.manifest import LayerSpec, RunManifest
from mi_crow.store.workspace import Workspace
from tests.helpers.index_runs import save_sae
from tests.helpers.stored_runs import manifest_of

MLP = "model.layers.3.mlp"


def run_of(folder: Path, *layers: tuple[str, str], version: int = 3) -> RunManifest:
    specs = [LayerSpec(name, point, 3) for name, point in layers]
    return replace(manifest_of(folder), layers=specs, format_version=version)


@pytest.mark.parametrize(
    ("layer", "names"),
    [
        ((MLP, "mlp_out.3"), ("mlp_raw.3", "blocks.3.hook_mlp_out", f"{MLP}.output")),
        ((MLP, "mlp_raw.3"), ("mlp_raw.3", "blocks.3.mlp", "layers.3.mlp")),
        (("model.layers.3", "resid_post.3"), ("3", "blocks.3.hook_resid_post", "layers.3.output")),
        (("model.layers.3", "resid_pre.3"), ("blocks.3.hook_resid_pre", "layers.3.input")),
        (("resid_mid.3", "resid_mid.3"), ("blocks.3.hook_resid_mid", "blocks.3.hook_mlp_in")),
        ((f"{MLP}.input", "mlp_in.3"), ("blocks.3.mlp.hook_in", "layers.3.mlp.input")),
    ],
)
def test_a_layer_is_found_by_every_name_of_its_tensor(
    tmp_path: Path, layer: tuple[str, str], names: tuple[str, ...]
) -> None:
    manifest = run_of(tmp_path, ("model.layers.1", "resid_post.1"), layer)
    for name in (*layer, *names):
        assert stored_layer(manifest, name).name == layer[0], name


@pytest.mark.parametrize(
    ("layer", "name", "version"),
    [
        (("model.layers.3", "resid_pre.3"), "blocks.3.hook_resid_post", 3),
        (("model.layers.3", "resid_pre.3"), "3", 3),
        ((MLP, "mlp_raw.3"), "blocks.3.hook_mlp_out", 3),
        # An older run kept what the MLP gives under the short name of what is added.
        ((MLP, "mlp_out.3"), "blocks.3.hook_mlp_out", 2),
    ],
)
def test_a_name_of_another_tensor_is_not_in_the_run(
    tmp_path: Path, layer: tuple[str, str], name: str, version: int
) -> None:
    with pytest.raises(NotFoundError, match="is not in run"):
        stored_layer(run_of(tmp_path, layer, version=version), name)


@pytest.mark.parametrize(
    ("version", "hook_name", "point"),
    [(2, MLP, "mlp_raw.3"), (3, "blocks.3.hook_mlp_out", "mlp_out.3")],
)
def test_an_sae_of_a_run_names_the_tensor_that_was_stored(
    workspace: Workspace, tmp_path: Path, version: int, hook_name: str, point: str
) -> None:
    """Trained now, and trained before and exported now."""
    manifest = run_of(tmp_path, (MLP, "mlp_out.3"), version=version)
    no_rows: Any = None
    said = RunTokens(manifest, stored_layer(manifest, MLP), None, no_rows).metadata()
    assert (said.hook_name, said.point, said.layer) == (hook_name, point, MLP)

    former = SaeMetadata(hook_name="blocks.3.hook_mlp_out", layer=MLP, point="mlp_out.3")
    sae = TopKSae(3, 6, 2)
    sae.metadata = former
    save_sae(workspace, sae, "sae")
    for form in ("saelens", "sparsify"):
        out = export_sae(workspace.sae_dir("sae"), tmp_path / form, form, manifest)
        again = load_sae(out).metadata
        assert again.point in (point, "mlp_raw.3")
        assert form == "sparsify" or again.hook_name == hook_name
    assert torch.equal(load_sae(tmp_path / "saelens").W_dec, sae.W_dec)
