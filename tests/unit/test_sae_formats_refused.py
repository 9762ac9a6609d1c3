"""What is not known is refused by its name, what could run code is never run."""

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from mi_crow.errors import CorruptDataError, MiCrowError, NotFoundError, UserError
from mi_crow.mechanistic.sae import load_sae
from mi_crow.mechanistic.sae.formats.config import ImportConfig
from tests.helpers.sae_files import (
    MAKERS,
    D,
    Draw,
    M,
    old_cfg,
    saelens_cfg,
    write_dictionary,
    write_json,
    write_saelens,
    write_sparsify,
)


def refused(path: Path, *said: str, kind: type[MiCrowError] = UserError, **options: Any) -> None:
    """Loading raises one sentence that says all of `said`."""
    with pytest.raises(kind) as caught:
        load_sae(path, **options)
    for words in said:
        assert words in caught.value.sentence
    assert "\n" not in caught.value.sentence


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("architecture", ["temporal", "crosscoder"])
def test_an_unknown_architecture(tmp_path: Path, architecture: str) -> None:
    write_saelens(tmp_path, saelens_cfg(architecture), Draw().weights())
    refused(tmp_path, architecture, "supported: topk, batchtopk")


@pytest.mark.parametrize(
    ("cfg", "says"),
    [
        (saelens_cfg("standard", whitened=True), "whitened"),
        (saelens_cfg("standard", normalize_activations="covariance_whitening"), "covariance_whit"),
        (saelens_cfg("standard", reshape_activations="heads"), "'heads'"),
        (old_cfg(activation_fn_str="tanh-relu"), "tanh-relu"),
        (
            old_cfg(activation_fn_str="topk", activation_fn_kwargs={"k": 3, "signed": True}),
            "signed",
        ),
        (old_cfg(finetuning_scaling_factor=True), "finetuning_scaling_factor"),
    ],
)
def test_an_unknown_key_or_value_of_saelens(tmp_path: Path, cfg: dict[str, Any], says: str) -> None:
    write_saelens(tmp_path, cfg, Draw().weights())
    refused(tmp_path, says, "cfg.json" if "covariance" not in says else "supported: none")


def test_a_normalising_transcoder(tmp_path: Path) -> None:
    cfg = saelens_cfg("transcoder", d_out=D, normalize_activations="layer_norm")
    write_saelens(tmp_path, cfg, Draw().weights())
    refused(tmp_path, "'transcoder'", "layer_norm")


def test_an_unknown_or_missing_tensor(tmp_path: Path) -> None:
    w = Draw().weights()
    write_saelens(tmp_path, saelens_cfg("standard"), {**w, "W_gate": torch.ones(2)})
    refused(tmp_path, "W_gate", "not known")
    del w["b_enc"]
    write_saelens(tmp_path, saelens_cfg("standard"), w)
    refused(tmp_path, "has no b_enc")
    write_saelens(
        tmp_path, saelens_cfg("standard"), {**Draw().weights(), "scaling_factor": w["b_dec"]}
    )
    refused(tmp_path, "scaling_factor")


def test_a_scale_that_the_file_does_not_say(tmp_path: Path) -> None:
    MAKERS["saelens_scaled"](tmp_path)
    known = load_sae(tmp_path)
    (tmp_path / "activation_scaler.json").unlink()
    refused(tmp_path, "scaled to a mean norm of sqrt(12)", "--scale")
    given = load_sae(tmp_path, input_scale=0.31)
    assert given.metadata.folded == known.metadata.folded == ("input_scale",)
    for name, tensor in known.state_dict().items():
        assert torch.equal(given.state_dict()[name], tensor)


@pytest.mark.parametrize(
    ("cfg", "says"),
    [
        ({"activation": "softmax"}, "softmax"),
        ({"signed": True}, "signed"),
        ({"hookpoint_dims": 3}, "hookpoint_dims"),
        ({"skip_connection": True}, "W_skip"),
    ],
)
def test_what_sparsify_does_not_have(tmp_path: Path, cfg: dict[str, Any], says: str) -> None:
    write_sparsify(tmp_path / "layers.0", **cfg)
    refused(tmp_path, says)


def test_a_size_that_differs_from_the_weights(tmp_path: Path) -> None:
    write_sparsify(tmp_path / "layers.0", num_latents=M + 1)
    refused(tmp_path, "encoder.weight", "41", kind=CorruptDataError)
    write_sparsify(tmp_path / "layers.0", num_latents=0, expansion_factor=5)
    refused(tmp_path, "60", kind=CorruptDataError)


def test_an_unknown_dict_class(tmp_path: Path) -> None:
    write_dictionary(tmp_path, "IdentityDict", {"encoder.weight": torch.ones(2, 2)})
    refused(tmp_path, "IdentityDict", "supported: AutoEncoder")


def test_tensors_that_do_not_belong_to_the_dict_class(tmp_path: Path) -> None:
    MAKERS["dictionary_gated"](tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["trainer"]["dict_class"] = "AutoEncoder"
    write_json(tmp_path / "config.json", config)
    refused(tmp_path, "has no encoder.bias", "gate_bias")


def test_two_values_of_k(tmp_path: Path) -> None:
    MAKERS["dictionary_topk"](tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["trainer"]["k"] = 9
    write_json(tmp_path / "config.json", config)
    refused(tmp_path, "k = 9", kind=CorruptDataError)


def test_a_wrapper_without_or_with_several_state_dicts(tmp_path: Path) -> None:
    write_dictionary(tmp_path, "AutoEncoder", {"x": torch.ones(2)}, wrap=True)
    refused(tmp_path, "step, ae, lr")


@pytest.mark.parametrize(
    ("key", "value"),
    [("act_fn", "topk"), ("norm_activation", "token-wise"), ("use_decoder_bias", False)],
)
def test_another_rule_of_llama_scope(tmp_path: Path, key: str, value: Any) -> None:
    MAKERS["llama_scope"](tmp_path)
    edit(tmp_path / "Llama3_1-8B-Base-L15R-8x" / "hyperparams.json", **{key: value})
    refused(tmp_path, key, str(value))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"activation": "Tanh"}, "Tanh"),
        ({"activation_state_dict": {"k": 4, "postact_fn": "Identity"}}, "Identity"),
        ({"activation_state_dict": {}}, "k"),
        ({"other_bias": torch.ones(2)}, "other_bias"),
    ],
)
def test_another_rule_of_openai(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    MAKERS["openai_topk"](tmp_path)
    state = torch.load(tmp_path / "8.pt", weights_only=True)
    torch.save(state | changes, tmp_path / "8.pt")
    refused(tmp_path, says)


def test_an_unknown_array_of_gemma_scope(tmp_path: Path) -> None:
    MAKERS["gemma_scope"](tmp_path)
    path = next(tmp_path.rglob("params.npz"))
    with np.load(path) as arrays:
        np.savez(path, **dict(arrays), W_skip=np.ones(3))
    refused(tmp_path, "W_skip")


class Payload:
    """Writes a file when it is unpickled by a reader that runs what it reads."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_pt_file_with_code_in_it(tmp_path: Path, wrapped: bool) -> None:
    trap = tmp_path / "ran"
    write_dictionary(
        tmp_path / "in", "AutoEncoder", {"encoder.weight": Payload(trap)}, wrap=wrapped
    )
    refused(tmp_path / "in", "could run code")
    refused(tmp_path / "in" / "ae.pt", "could run code")
    (tmp_path / "in" / "config.json").unlink()
    refused(tmp_path / "in", "config.json", kind=NotFoundError)
    (tmp_path / "raw.pt").write_bytes(pickle.dumps({"x": Payload(trap)}))
    refused(tmp_path / "raw.pt", "could run code")
    assert not trap.exists()


def test_an_npz_file_with_code_in_it(tmp_path: Path) -> None:
    trap = tmp_path / "ran"
    np.savez(tmp_path / "params.npz", W_enc=np.array([Payload(trap)], dtype=object))
    refused(tmp_path / "params.npz", "Python objects", "W_enc")
    assert not trap.exists()


@pytest.mark.parametrize("name", ["params.npz", "8.pt", "sae_weights.safetensors"])
def test_a_file_that_is_cut_short(tmp_path: Path, name: str) -> None:
    maker = {"params.npz": "gemma_scope", "8.pt": "openai_relu"}.get(name, "saelens_gated")
    MAKERS[maker](tmp_path)
    path = next(tmp_path.rglob(name))
    path.write_bytes(path.read_bytes()[:700])
    refused(tmp_path, name, kind=CorruptDataError)


def test_tensors_of_another_shape(tmp_path: Path) -> None:
    MAKERS["sparsify_groupmax"](tmp_path)
    path = tmp_path / "layers.1" / "sae.safetensors"
    tensors = load_file(path)
    save_file({**tensors, "b_dec": torch.ones(3)}, path)
    refused(tmp_path, "b_dec", "(3,)", kind=CorruptDataError)
    save_file(tensors, path)
    edit(tmp_path / "layers.1" / "cfg.json", k=7)
    refused(tmp_path, "40 latents", "7 groups")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["W_dec", "b_enc"])
def test_weights_that_are_not_finite(tmp_path: Path, name: str, bad: float) -> None:
    weights = Draw().weights()
    weights[name].view(-1)[5] = bad
    write_saelens(tmp_path, saelens_cfg("standard"), weights)
    refused(tmp_path, f"in {name}", "not finite in float32", kind=CorruptDataError)


def test_weights_too_large_for_the_type_that_was_asked_for(tmp_path: Path) -> None:
    weights = Draw().weights()
    weights["W_dec"].view(-1)[5] = 1e5
    write_saelens(tmp_path, saelens_cfg("standard"), weights)
    assert load_sae(tmp_path).W_dec.max() == 1e5
    refused(tmp_path, "not finite in float16", kind=CorruptDataError, dtype=torch.float16)


def test_weights_that_are_whole_numbers(tmp_path: Path) -> None:
    weights = Draw().weights()
    weights["b_dec"] = torch.zeros(D, dtype=torch.int64)
    write_saelens(tmp_path, saelens_cfg("standard"), weights)
    refused(tmp_path, "int64 numbers for", kind=CorruptDataError)


@pytest.mark.parametrize(
    ("key", "value"), [("k", "four"), ("k", float("nan")), ("d_in", None), ("d_sae", -3)]
)
def test_a_number_that_is_none(tmp_path: Path, key: str, value: Any) -> None:
    write_saelens(tmp_path, saelens_cfg("topk", **{"k": 4, key: value}), Draw().weights())
    refused(tmp_path, f"{key} is {value!r}, not a number above 0", kind=CorruptDataError)


def test_nothing_that_looks_like_an_sae(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    refused(tmp_path, "no SAE at", "cfg.json", kind=NotFoundError)
    refused(tmp_path / "notes.txt", "not recognised as an SAE")
    write_json(tmp_path / "cfg.json", {})
    refused(tmp_path, "cfg.json but no", "sae_weights.safetensors", kind=NotFoundError)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "a flag as a text": ({"apply_b_dec_to_input": "false"}, "true or false, not 'false'"),
    "a flag that is null": ({"apply_b_dec_to_input": None}, "true or false, not null"),
    "a fraction of a latent": ({"k": 1.5}, "k is 1.5, not a whole number"),
    "k as true": ({"k": True}, "k is True, not a number above 0"),
    "a size as a fraction": ({"d_in": 12.5}, "d_in is 12.5, not a whole number"),
    "an infinite size": ({"d_sae": float("inf")}, "d_sae is inf, not a number above 0"),
    "a size that no float holds": ({"d_sae": 10**299}, "holds (12, 40) for W_enc"),
    "another size": ({"d_sae": 41}, "holds (12, 40) for W_enc"),
    "an unknown type": ({"dtype": "float8"}, "the dtype 'float8', which is not known"),
    "a type as a number": ({"dtype": 32}, "dtype must be a text, not 32"),
    "a norm as a flag": ({"normalize_activations": False}, "must be a text, not false"),
    "a name as a number": ({"metadata": {"hook_name": 3}}, "hook_name must be a text, not 3"),
    "a nested flag": (
        {"metadata": {"prepend_bos": "yes"}},
        "prepend_bos must be true or false, not 'yes'",
    ),
    "one who was trained as another": (
        {"metadata": {"mi_crow": {"trained_as": {"architecture": "gated"}}}},
        "trained as 'gated', which contradict each other",
    ),
    "an architecture as a list": ({"architecture": ["topk"]}, "must be a text, not a list"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_value_of_another_type_is_not_coerced(tmp_path: Path, name: str) -> None:
    keys, says = WRONG[name]
    write_saelens(tmp_path, saelens_cfg("topk", k=4) | keys, Draw().weights())
    with pytest.raises(MiCrowError) as caught:
        load_sae(tmp_path)
    assert says in caught.value.sentence


def test_one_key_that_stands_twice(tmp_path: Path) -> None:
    write_saelens(tmp_path, saelens_cfg("topk", k=4), Draw().weights())
    path = tmp_path / "cfg.json"
    path.write_text(path.read_text().replace('"k": 4', '"k": 4, "k": 8'))
    refused(tmp_path, "'k' occurs twice", kind=CorruptDataError)


@pytest.mark.parametrize("scale", [1e-300, 0.0, -1.0, float("nan"), float("inf"), 1e300, True])
def test_a_scale_that_leaves_nothing(tmp_path: Path, scale: float) -> None:
    write_saelens(tmp_path, saelens_cfg("standard"), Draw().weights())
    refused(tmp_path, "input scale", input_scale=scale)
    with pytest.raises(UserError, match="the input scale"):
        ImportConfig(str(tmp_path), input_scale=scale)


def test_weights_without_two_dimensions_or_without_any(tmp_path: Path) -> None:
    MAKERS["sparsify_groupmax"](tmp_path)
    path = tmp_path / "layers.1" / "sae.safetensors"
    tensors = load_file(path)
    for name, tensor in (
        ("encoder.weight", torch.ones(M * D)),
        ("W_dec", torch.ones(())),
        ("W_dec", torch.ones(0, D)),
        ("b_dec", torch.ones(D, 1)),
    ):
        save_file({**tensors, name: tensor}, path)
        refused(tmp_path, name, str(tuple(tensor.shape)), kind=CorruptDataError)


def test_arrays_that_are_records_or_swapped_or_damaged(tmp_path: Path) -> None:
    MAKERS["gemma_scope"](tmp_path)
    path = next(tmp_path.rglob("params.npz"))
    with np.load(path) as found:
        arrays: dict[str, Any] = dict(found)
    whole = load_sae(path).state_dict()
    np.savez(path, **{**arrays, "W_enc": arrays["W_enc"].astype(">f4")})
    for name, tensor in load_sae(path).state_dict().items():
        assert torch.equal(tensor, whole[name])
    for kind in ([("a", "f4")], "U3", "c8"):
        np.savez(path, **{**arrays, "b_enc": np.zeros(M, dtype=kind)})
        refused(path, "for b_enc, not weights", kind=CorruptDataError)
    np.savez(path, **arrays)
    content = bytearray(path.read_bytes())
    at = content.find(arrays["W_dec"].tobytes()[:64])
    content[at] ^= 1
    path.write_bytes(bytes(content))
    refused(path, "not a complete .npz file", "CRC", kind=CorruptDataError)


def test_a_torch_file_with_other_than_plain_tensors_by_names(tmp_path: Path) -> None:
    MAKERS["openai_topk"](tmp_path)
    path = tmp_path / "8.pt"
    state = torch.load(path, weights_only=True)
    for changes, says in (
        ({3: torch.ones(1)}, "holds the name 3"),
        ({"encoder.weight": state["encoder.weight"].to_sparse()}, "sparse"),
        ({"encoder.weight": torch.ones(1).expand(2**40, D)}, "not that many bytes"),
        ({"latent_bias": [1.0]}, "latent_bias, which is not a tensor"),
        ({"activation": ["TopK"]}, "activation must be a text"),
        ({"activation_state_dict": {"k": 1.5}}, "k must be a whole number, not 1.5"),
        ({"activation_state_dict": {"k": True}}, "k must be a whole number, not true"),
        ({"activation": None}, "activation must be a text, not null"),
    ):
        torch.save(state | changes, path)
        refused(path, says)


def test_what_a_dictionary_says_twice_has_to_agree(tmp_path: Path) -> None:
    MAKERS["dictionary_topk"](tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for key, value, says in (
        ("activation_dim", D + 1, "activation_dim = 13, the weights 12"),
        ("dict_size", M - 1, "dict_size = 39, the weights 40"),
        ("k", 4.5, "k must be a whole number"),
        ("dict_class", ["AutoEncoderTopK"], "dict_class must be a text"),
        ("layer", True, "layer must be a whole number, not true"),
    ):
        write_json(
            tmp_path / "config.json", config | {"trainer": {**config["trainer"], key: value}}
        )
        refused(tmp_path, says, kind=CorruptDataError)
    write_json(tmp_path / "config.json", config)
    state = torch.load(tmp_path / "ae.pt", weights_only=True)
    torch.save(state | {"k": torch.tensor(4.5)}, tmp_path / "ae.pt")
    refused(tmp_path, "other than positive integers for k", kind=CorruptDataError)
