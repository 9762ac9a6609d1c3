"""Published families as their other repositories have them: cut files, fewer keys, other names."""

import json
from collections.abc import Callable
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from mi_crow.errors import CorruptDataError, MiCrowError
from mi_crow.mechanistic.sae import load_sae
from tests.unit.test_sae_families import ACROSS, FIXTURES, READ, SETS

CUT = sorted(
    name
    for name in {**READ, **ACROSS, **dict.fromkeys(SETS)}
    if any(path.name != "expected.safetensors" for path in (FIXTURES / name).rglob("*.safetensors"))
)
SUFFIX = ".safetensors"
Tensors = dict[str, torch.Tensor]
FAST = ("gemma_scope_2_transcoder_affine", "mntss_clt_jumprelu", "saelens_abstopk")


def copied(name: str, folder: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    """A copy of a case without its expected figures, and these."""
    copytree(FIXTURES / name, folder)
    expected = folder / "expected.safetensors"
    figures = load_file(expected)
    expected.unlink()
    return folder, figures


def cut(path: Path) -> None:
    """Writes a file of tensors as two."""
    tensors = load_file(path)
    names = sorted(tensors)
    for number, part in ((1, names[:1]), (2, names[1:])):
        at = path.with_name(f"{path.stem}-0000{number}-of-00002.safetensors")
        save_file({name: tensors[name] for name in part}, at)
    path.unlink()


def change(folder: Path, ending: str, **changes: object) -> None:
    """Sets keys of a configuration; None takes one away."""
    [path] = folder.rglob(f"*{ending}")
    values = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: one for key, one in values.items() if one is not None}))


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name in FAST else [pytest.mark.slow]) for name in CUT],
)
def test_weights_cut_into_several_files_are_read(name: str, tmp_path: Path) -> None:
    folder, expected = copied(name, tmp_path / name)
    files = sorted(folder.rglob("*.safetensors"))
    for path in files:
        if len(load_file(path)) > 1:
            cut(path)
    options = {**READ.get(name, {}), **({"layer": "1"} if name in SETS else {})}
    sae, whole = load_sae(folder, **options), load_sae(FIXTURES / name, **options)
    x = expected.get("x", expected.get("x.1", torch.zeros(0))).float()
    if name in ACROSS:
        x = torch.randn(3, sae.n_inputs, generator=torch.Generator().manual_seed(0))
    assert torch.equal(sae(x).reconstruction, whole(x).reconstruction)
    assert sae.metadata == whole.metadata
    [*parts] = folder.rglob("*-00002-of-00002.safetensors")
    if parts and name not in SETS:
        parts[0].unlink()
        with pytest.raises(CorruptDataError, match=parts[0].name):
            load_sae(folder, **options)(x)


def test_a_transcoder_that_names_only_its_input_predicts_what_comes_of_it(tmp_path: Path) -> None:
    folder, expected = copied("gemma_scope_2_transcoder", tmp_path / "gemma-scope-2-4b-it")
    change(folder, "config.json", hf_hook_point_out=None, model_name=None)
    sae = load_sae(folder)
    assert sae.transcodes
    assert sae.metadata.other["target_layer"] == "mlp_out.9"
    assert sae.metadata.model_name == "google/gemma-3-4b-it"  # by the repository's name
    torch.testing.assert_close(
        sae(expected["x"]).reconstruction, expected["reconstruction"], atol=1e-5, rtol=1e-5
    )
    change(folder, "config.json", hf_hook_point_in="model.layers.9.output")
    with pytest.raises(CorruptDataError, match="does not say which hook point its transcoder"):
        load_sae(folder)


@pytest.mark.parametrize("name", ["gemma_scope_2_clt_affine", "gemma_scope_2_crosscoder"])
def test_the_folder_says_what_a_set_of_layers_is(name: str, tmp_path: Path) -> None:
    folder, _ = copied(name, tmp_path / name)
    change(folder, "config.json", type=None, hf_hook_point_out=None)
    bare, whole = load_sae(folder), load_sae(FIXTURES / name)
    assert bare.target_layers == whole.target_layers  # type: ignore[attr-defined]
    assert bare.architecture == whole.architecture


def test_a_decoder_without_a_bias(tmp_path: Path) -> None:
    folder, expected = copied("llamascopium_sae_jumprelu", tmp_path / "L8R")
    [path] = folder.rglob("sae_weights.safetensors")
    weights = load_file(path)
    scale = expected["input_scale"]
    wanted = expected["reconstruction"] - weights.pop("b_D") / scale
    save_file(weights, path)
    change(folder, "config.json", use_decoder_bias=False, hook_point_out=None)
    torch.testing.assert_close(
        load_sae(folder)(expected["x"]).reconstruction, wanted, atol=1e-5, rtol=1e-5
    )


def test_a_number_chooses_among_the_hook_points_of_one_file(tmp_path: Path) -> None:
    folder, _ = copied("apollo_e2e", tmp_path / "run")
    [path] = folder.rglob("samples_*.pt")
    one = torch.load(path, weights_only=True)
    torch.save(one | {name.replace("s-6-", "s-10-"): 2 * one[name] for name in one}, path)
    sae = load_sae(folder, layer="10")
    assert sae.metadata.point == "resid_pre.10"  # not the block's output, as for other files
    assert torch.equal(sae.b_enc, 2 * one["blocks-6-hook_resid_pre.encoder.0.bias"])


@pytest.mark.parametrize(
    ("module", "io", "point"),
    [
        ("attention_out_layer_7", "out", "attn_out.7"),
        ("mlp_layer_7", "in", "mlp_in.7"),
        ("resid_post_layer_7", "in", "resid_pre.7"),
        ("resid_post_layer_7", "in_and_out", ""),
    ],
)
def test_which_side_of_a_module_dictionary_learning_read(
    module: str, io: str, point: str, tmp_path: Path
) -> None:
    folder, _ = copied("dictionary_learning_gpt_oss_batchtopk", tmp_path / "run")
    [path] = folder.rglob("config.json")
    values = json.loads(path.read_text())
    values["trainer"]["submodule_name"], values["buffer"]["io"] = module, io
    path.write_text(json.dumps(values))
    if point:
        assert load_sae(folder).metadata.point == point
    else:
        with pytest.raises(MiCrowError, match="a transcoder of dictionary_learning"):
            load_sae(folder)


@pytest.mark.parametrize(
    ("name", "gone", "said"),
    [
        ("mwhanna_transcoders", "config.yaml", "without the config.yaml that names"),
        ("mwhanna_transcoders", "layer_*.safetensors", "holds config.yaml but no layer_0"),
        ("qwen_scope", "config.json", "no file beside it says what they compute"),
        ("ckkissane_hook_z", "*_cfg.json", "no file beside it says what they compute"),
    ],
)
def test_what_is_missing_beside_the_weights_is_named(
    name: str, gone: str, said: str, tmp_path: Path
) -> None:
    folder, _ = copied(name, tmp_path / name)
    for path in list(folder.rglob(gone)):
        path.unlink()
    with pytest.raises(MiCrowError, match=said) as caught:
        load_sae(folder)
    assert caught.value.exit_code == 2


def test_a_published_temporal_sae_is_refused_with_its_reason(tmp_path: Path) -> None:
    folder = tmp_path / "gemma-2-2b" / "layer_12" / "temporal"
    folder.mkdir(parents=True)
    save_file({"D": torch.ones(4, 2)}, folder / "latest_ckpt.safetensors")
    (folder / "conf.yaml").write_text("llm: {dimin: 2}\n")
    for place in (tmp_path, folder / "latest_ckpt.safetensors"):
        with pytest.raises(MiCrowError, match=r"a temporal SAE.*token by token"):
            load_sae(place)


def rewritten(folder: Path, ending: str, change: Callable[[Tensors], Any]) -> None:
    """Writes each file of tensors again with what `change` makes of them."""
    for path in sorted(folder.rglob(f"*{ending}")):
        if path.suffix == ".safetensors":
            save_file(change(load_file(path)), path)
        else:
            torch.save(change(torch.load(path, weights_only=True)), path)


def prefixed(prefix: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {prefix + name: one for name, one in tensors.items()}


def equals_whole(folder: Path, name: str, **options: Any) -> None:
    """What is read from `folder` computes what the family's own files do, at the same place."""
    sae, whole = load_sae(folder, **options), load_sae(FIXTURES / name, **options)
    x = torch.randn(3, sae.n_inputs, generator=torch.Generator().manual_seed(0))
    assert torch.equal(sae(x).reconstruction, whole(x).reconstruction)
    assert (sae.metadata.point, sae.metadata.model_name) == (
        whole.metadata.point,
        whole.metadata.model_name,
    )


@pytest.mark.parametrize(
    ("name", "ending", "prefix"),
    [
        ("goodfire_8b", ".pth", "_orig_mod."),
        ("dictionary_learning_jumprelu_full", ".pt", "_orig_mod.module."),
        ("llama_scope_threshold", ".safetensors", "module."),
        ("saelens_transcoder", ".safetensors", "sae."),
        ("mntss_clt_jumprelu", ".safetensors", "model."),
    ],
)
def test_what_a_wrapper_put_before_all_names(
    name: str, ending: str, prefix: str, tmp_path: Path
) -> None:
    folder, _ = copied(name, tmp_path / name)
    rewritten(folder, ending, prefixed(prefix))
    equals_whole(folder, name, **READ.get(name, {}))


def test_a_prefix_of_some_names_is_none(tmp_path: Path) -> None:
    folder, _ = copied("goodfire_8b", tmp_path / "run")
    rewritten(folder, ".pth", lambda found: found | {"module.extra": torch.ones(1)})
    with pytest.raises(MiCrowError, match=r"holds module\.extra, which is not known"):
        load_sae(folder)


def test_tensors_beside_the_progress_of_a_training(tmp_path: Path) -> None:
    folder, _ = copied("qwen_scope", tmp_path / "qwen")
    rewritten(folder, ".pt", lambda found: {"state_dict": found, "step": 5, "optimizer": {}})
    equals_whole(folder, "qwen_scope")
    rewritten(folder, ".pt", lambda found: found | {"k": 3})  # it may change what they compute
    with pytest.raises(MiCrowError, match="holds k, optimizer, state_dict, step, which no known"):
        load_sae(folder)


@pytest.mark.parametrize("name", ["goodfire_8b", "deepseek_r1_qresearch", "qwen_scope"])
def test_a_torch_file_written_again_as_safetensors(name: str, tmp_path: Path) -> None:
    folder, _ = copied(name, tmp_path / name)
    [path] = folder.rglob("*.pt*")
    found = torch.load(path, weights_only=True)
    save_file({key: one.contiguous() for key, one in found.items()}, path.with_suffix(SUFFIX))
    path.unlink()
    equals_whole(folder, name)
    equals_whole(next(folder.rglob(f"*{SUFFIX}")), name)


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("qwen_scope", "layer5.sae.pt", "layer_05.sae.pt"),
        ("dictionary_learning_gpt_oss_batchtopk", "ae.pt", "checkpoints/ae_50000.pt"),
    ],
)
def test_weights_by_another_name(name: str, old: str, new: str, tmp_path: Path) -> None:
    folder, _ = copied(name, tmp_path / name)
    [path] = folder.rglob(old)
    (path.parent / new).parent.mkdir(exist_ok=True)
    path.rename(path.parent / new)
    equals_whole(folder, name)


def test_tensors_of_gemma_scope_in_capitals(tmp_path: Path) -> None:
    upper = {"w_enc": "W_enc", "w_dec": "W_dec"}
    folder, _ = copied("gemma_scope_2_resid", tmp_path / "two")
    rewritten(
        folder, ".safetensors", lambda found: {upper.get(n, n): one for n, one in found.items()}
    )
    equals_whole(folder, "gemma_scope_2_resid")
    folder, _ = copied("gemma_scope_transcoder", tmp_path / "one")
    [path] = folder.rglob("params.npz")
    arrays = {key: torch.from_numpy(one) for key, one in np.load(path).items()}
    save_file(arrays, path.with_suffix(SUFFIX))
    path.unlink()
    assert load_sae(folder).transcodes  # as the folder's name says
    equals_whole(folder, "gemma_scope_transcoder")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "sae_weights.safetensors",
            "sae.safetensors",
            "weights are called sae_weights.safetensors",
        ),
        ("cfg.json", "config.json", "is called cfg.json there"),
    ],
)
def test_files_of_saelens_under_names_of_others(
    old: str, new: str, said: str, tmp_path: Path
) -> None:
    folder, _ = copied("saelens_abstopk", tmp_path / "run")
    (folder / old).rename(folder / new)
    with pytest.raises(MiCrowError, match=said) as caught:
        load_sae(folder)
    assert caught.value.hint == f"call {'them' if 'weights' in old else 'it'} {old}"
