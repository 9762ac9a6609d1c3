"""Cross-layer transcoders and crosscoders: read to their tools' figures, a layer at a time."""

import json
from pathlib import Path
from shutil import copytree

import pytest
import torch
from safetensors.torch import load_file, save_file

from mi_crow.errors import CorruptDataError, MiCrowError, NotFoundError, UserError
from mi_crow.mechanistic.sae import CrossLayerSae, load_sae
from mi_crow.mechanistic.sae.formats.config import ImportConfig
from mi_crow.mechanistic.sae.formats.exchange import import_sae
from mi_crow.mechanistic.sae.formats.exporting import export_sae
from mi_crow.store import Workspace
from tests.unit.test_sae_families import ACROSS, FIXTURES

every = pytest.mark.parametrize("name", ACROSS)


def cross_layer(path: Path, **options: object) -> CrossLayerSae:
    sae = load_sae(path, **options)  # type: ignore[arg-type]
    assert isinstance(sae, CrossLayerSae)
    return sae


def expected(name: str) -> dict[str, dict[int, torch.Tensor]]:
    """x, latents and reconstruction, each by layer, ascending."""
    found: dict[str, dict[int, torch.Tensor]] = {}
    tensors = load_file(FIXTURES / name / "expected.safetensors")
    for key in sorted(tensors, key=lambda key: int(key.rpartition(".")[2])):
        kind, _, number = key.rpartition(".")
        found.setdefault(kind, {})[int(number)] = tensors[key]
    return found


def close(found: dict[int, torch.Tensor], wanted: dict[int, torch.Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for number, tensor in wanted.items():
        torch.testing.assert_close(found[number], tensor, atol=1e-5, rtol=1e-5)


@every
def test_all_layers_give_the_figures_of_its_own_tool(name: str) -> None:
    sae, wanted = cross_layer(FIXTURES / name), expected(name)
    close(sae.encode(wanted["x"]), wanted["latents"])
    close(sae(wanted["x"]).reconstruction, wanted["reconstruction"])
    read, written, model = ACROSS[name]
    assert sae.layers == tuple(read.format(number) for number in wanted["x"])
    assert sae.target_layers == tuple(written.format(number) for number in wanted["x"])
    assert sae.layer_numbers == tuple(wanted["x"])
    assert sae.metadata.model_name == model


@every
def test_side_by_side_it_is_an_sae_like_others(name: str) -> None:
    """One number for each latent among those of all layers."""
    sae, wanted = cross_layer(FIXTURES / name), expected(name)
    x, z, y = (torch.cat([*wanted[kind].values()], dim=-1) for kind in wanted_kinds(wanted))
    torch.testing.assert_close(sae.encode(x), z, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(sae(x).reconstruction, y, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(sae.decode(z, x), y, atol=1e-5, rtol=1e-5)
    with torch.inference_mode():
        values, entries = sae.encode_entries(x)
    assert bool((entries.rows.diff() >= 0).all())
    assert torch.equal(
        torch.zeros_like(z).index_put((entries.rows, entries.columns), values), sae.encode(x)
    )
    first, last = sae.layer_numbers[0], sae.layer_numbers[-1]
    assert sae.layer_of(0) == (first, 0)
    assert sae.layer_of(sae.n_latents - 1)[0] == last
    with pytest.raises(UserError, match="not a feature of this SAE"):
        sae.layer_of(sae.n_latents)


def wanted_kinds(wanted: dict[str, dict[int, torch.Tensor]]) -> list[str]:
    assert wanted.keys() == {"x", "latents", "reconstruction"}
    return ["x", "latents", "reconstruction"]


@every
def test_one_layer_is_read_alone(name: str) -> None:
    sae, wanted = cross_layer(FIXTURES / name), expected(name)
    first, second = sae.layer_numbers[:2]
    assert sae.in_memory == ()
    close(sae.encode({second: wanted["x"][second]}), {second: wanted["latents"][second]})
    assert {one.rpartition(".")[2] for one in sae.in_memory} == {str(second)}
    assert not any(one.startswith("W_dec") for one in sae.in_memory)
    close(
        sae({first: wanted["x"][first]}).reconstruction,
        {first: wanted["reconstruction"][first]},
    )
    with pytest.raises(
        UserError, match=f"layer {second} also needs the activations of layer {first}"
    ):
        sae({second: wanted["x"][second]})
    sae.release(second)
    assert not any(f".{second}" in one for one in sae.in_memory)
    sae.release()
    assert sae.in_memory == ()
    with pytest.raises(NotFoundError, match="does not read layer 99"):
        sae.encode({99: wanted["x"][first]})
    with pytest.raises(UserError, match=f"layer {first} have width 3"):
        sae.encode({first: torch.zeros(2, 3)})


@every
def test_what_a_feature_writes_is_the_change_of_every_layer_it_decodes_to(name: str) -> None:
    sae = cross_layer(FIXTURES / name)
    first = sae.layer_numbers[0]
    feature = sae.first_latents[sae.layer_numbers[1]] + 3
    z = torch.zeros(2, sae.n_latents)
    z[1, feature] = 2.0
    x = torch.zeros(2, sae.n_inputs)
    decoded = dict(
        zip(
            sae.layer_numbers,
            sae.decode(z, x).split(sae.n_outputs // len(sae.layers), dim=-1),
            strict=True,
        )
    )
    writes = sae.writes([feature, 0])
    for number, rows in decoded.items():
        difference = rows[1] - rows[0]
        wanted = 2 * writes[number][0] if number in writes else torch.zeros_like(difference)
        torch.testing.assert_close(difference, wanted, atol=1e-5, rtol=1e-5)
    assert not writes[first][0].any()  # nothing is written to an earlier layer
    total = sum(rows[0] for rows in writes.values())
    wanted = writes[sae.layer_numbers[-1]][0] if sae.architecture == "crosscoder" else total
    torch.testing.assert_close(sae.decoder_rows[feature], wanted)


@every
def test_it_is_written_and_read_again(name: str, tmp_path: Path) -> None:
    sae, x = cross_layer(FIXTURES / name), expected(name)["x"]
    back = cross_layer(sae.save(tmp_path / "own"))
    close(back(x).reconstruction, sae(x).reconstruction)
    assert (back.metadata, back.layers, back.target_layers) == (
        sae.metadata,
        sae.layers,
        sae.target_layers,
    )
    half = cross_layer(tmp_path / "own", dtype=torch.bfloat16)
    assert (
        half.encode({sae.layer_numbers[0]: x[sae.layer_numbers[0]]})[sae.layer_numbers[0]].dtype
        == torch.bfloat16
    )
    config = json.loads((tmp_path / "own/cfg.json").read_text())
    assert config["d_sae"] == sae.n_latents
    config["layers"] = config["layers"][1:]
    (tmp_path / "own/cfg.json").write_text(json.dumps(config))
    with pytest.raises(CorruptDataError, match=r"which belongs to no layer|which should be"):
        load_sae(tmp_path / "own")


def test_relu_without_a_threshold(tmp_path: Path) -> None:
    copytree(FIXTURES / "mntss_clt_jumprelu", tmp_path / "clt")
    for path in (tmp_path / "clt").glob("W_enc_*.safetensors"):
        kept = {name: tensor for name, tensor in load_file(path).items() if "threshold" not in name}
        save_file(kept, path)
    sae, wanted = cross_layer(tmp_path / "clt"), expected("mntss_clt_jumprelu")
    weights = load_file(tmp_path / "clt/W_enc_1.safetensors")
    x = wanted["x"][1]
    plain = (x @ weights["W_enc_1"].float().T + weights["b_enc_1"].float()).relu()
    torch.testing.assert_close(sae.encode({1: x})[1], plain, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["gemma_scope_2_clt_affine", "gemma_scope_2_crosscoder"])
def test_gemma_scope_2_without_its_configuration(name: str, tmp_path: Path) -> None:
    root = tmp_path / "gemma-scope-2-1b-pt"
    copytree(FIXTURES / name, root)
    [config] = root.rglob("config.json")
    config.unlink()
    bare, whole = cross_layer(root), cross_layer(FIXTURES / name)
    assert (bare.layers, bare.target_layers) == (whole.layers, whole.target_layers)
    assert bare.metadata.model_name == "google/gemma-3-1b-pt"
    close(bare(expected(name)["x"]).reconstruction, expected(name)["reconstruction"])


def test_thresholds_by_decoder_norm_look_at_all_that_a_latent_writes(tmp_path: Path) -> None:
    name = "llamascopium_clt"
    copytree(FIXTURES / name, tmp_path / name)
    [path] = (tmp_path / name).rglob("config.json")
    config = json.loads(path.read_text()) | {"sparsity_include_decoder_norm": True}
    path.write_text(json.dumps(config))
    sae, x = cross_layer(tmp_path / name), expected(name)["x"][1]
    weights = load_file(path.parent / "sae_weights.safetensors")
    norm = weights["dataset_average_activation_norm.blocks.1.ln2.hook_normalized"]
    h = 4 / norm * x @ weights["W_E"][1] + weights["b_E"][1]  # 4 = sqrt(d)
    size = torch.cat([weights["W_D.1"][1], weights["W_D.2"][1]], dim=1).norm(dim=1)
    gate = h * size > weights["activation_function.log_jumprelu_threshold"][1].exp()
    torch.testing.assert_close(sae.encode({1: x})[1], (h * gate).relu(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "file", "said"),
    [
        ("gemma_scope_2_crosscoder", "params_layer_1.safetensors", "has no params_layer_"),
        ("gemma_scope_2_clt_affine", "params_layer_2.safetensors", "for 2 files|must be"),
        ("mntss_clt_jumprelu", "W_dec_1.safetensors", "has no W_dec_1.safetensors"),
        ("mntss_clt_jumprelu", "W_enc_2.safetensors", "must be|has no"),
        ("mntss_clt_jumprelu", "config.yaml", "config.yaml"),
    ],
)
def test_a_missing_file_is_named(name: str, file: str, said: str, tmp_path: Path) -> None:
    copytree(FIXTURES / name, tmp_path / name)
    [path] = (tmp_path / name).rglob(file)
    path.unlink()
    with pytest.raises(MiCrowError, match=said) as caught:
        load_sae(tmp_path / name)
    assert "\n" not in caught.value.sentence


@pytest.mark.parametrize(
    ("name", "file", "bias", "matrix"),
    [
        ("gemma_scope_2_crosscoder", "params_layer_1.safetensors", "b_enc", "w_enc"),
        ("mntss_clt_jumprelu", "W_enc_1.safetensors", "b_enc_1", "W_enc_1"),
    ],
)
def test_weights_that_are_not_finite_are_refused_with_their_file(
    name: str, file: str, bias: str, matrix: str, tmp_path: Path
) -> None:
    copytree(FIXTURES / name, tmp_path / name)
    [path] = (tmp_path / name).rglob(file)
    good = load_file(path)

    def spoil(tensor: str) -> None:
        bad = good[tensor].clone()
        bad.view(-1)[3] = torch.nan
        save_file({**good, tensor: bad}, path)

    spoil(bias)
    with pytest.raises(CorruptDataError, match=file):
        load_sae(tmp_path / name)
    spoil(matrix)
    sae = cross_layer(tmp_path / name)
    with pytest.raises(CorruptDataError, match=file):
        sae.encode({(number := sae.layer_numbers[1]): expected(name)["x"][number]})
    with pytest.raises(CorruptDataError, match=file):
        sae.save(tmp_path / "own")
    assert not (tmp_path / "own/cfg.json").exists()


def test_options_of_one_layer_are_refused(tmp_path: Path) -> None:
    place = FIXTURES / "gemma_scope_2_crosscoder"
    with pytest.raises(UserError, match="takes --layer KIND of hook point, not"):
        load_sae(place, layer="resid_post.7")
    with pytest.raises(UserError, match="which takes no --scale"):
        load_sae(place, input_scale=2.0)
    with pytest.raises(UserError, match="takes --target-layer KIND"):
        import_sae(Workspace(tmp_path), ImportConfig(str(place), target_layer="mlp_out.1"))


def test_it_is_imported_whole(tmp_path: Path) -> None:
    name = "gemma_scope_2_crosscoder"
    workspace = Workspace.open(tmp_path)
    result = import_sae(workspace, ImportConfig(str(FIXTURES / name), name="cross"))
    assert (result.architecture, result.layer) == ("crosscoder", "resid_post.7,13,17,22")
    assert result.n_latents == 120
    [summary] = workspace.list_saes()
    assert (summary.layer, summary.n_latents) == ("resid_post.7,13,17,22", 120)
    sae = cross_layer(workspace.sae_dir("cross"))
    close(sae(expected(name)["x"]).reconstruction, expected(name)["reconstruction"])
    with pytest.raises(UserError, match="saelens has no SAEs over several layers"):
        export_sae(workspace.sae_dir("cross"), tmp_path / "out")
