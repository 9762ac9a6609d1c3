"""Small SAE files of every format, made by hand, with what their rule gives in plain torch.

Each maker writes files into a folder and gives a function x -> (latents, reconstruction) that is
the format's rule and shares nothing with the library.
"""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

D, M, K = 12, 40, 4

Rule = Callable[[Tensor], tuple[Tensor, Tensor]]


class Draw:
    """Random weights with nothing special about them."""

    def __init__(self, seed: int = 0) -> None:
        self._generator = torch.Generator().manual_seed(seed)

    def __call__(self, *shape: int, scale: float = 1.0) -> Tensor:
        return torch.randn(*shape, generator=self._generator) * scale

    def weights(self, d_out: int = D) -> dict[str, Tensor]:
        """W_enc [D, M], b_enc, W_dec [M, d_out], b_dec."""
        return {
            "W_enc": self(D, M, scale=0.5),
            "b_enc": self(M, scale=0.3),
            "W_dec": self(M, d_out, scale=0.4),
            "b_dec": self(d_out, scale=0.5),
        }


def keep_top(pre: Tensor, k: int = K) -> Tensor:
    top = pre.topk(k, dim=-1)
    return torch.zeros_like(pre).scatter(-1, top.indices, top.values.relu())


def keep_group_max(pre: Tensor, k: int = K) -> Tensor:
    groups = pre.relu().unflatten(-1, (k, -1))
    best = groups.max(dim=-1, keepdim=True)
    return torch.zeros_like(groups).scatter(-1, best.indices, best.values).flatten(-2)


def jump(pre: Tensor, threshold: Tensor | float) -> Tensor:
    return pre.relu() * (pre > threshold)


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def saelens_cfg(architecture: str, **keys: Any) -> dict[str, Any]:
    """`cfg.json` as SAELens 6 writes it."""
    return {
        "architecture": architecture,
        "d_in": D,
        "d_sae": M,
        "dtype": "float32",
        "device": "cuda",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {
            "sae_lens_version": "6.20.0",
            "model_name": "gpt2-small",
            "hook_name": "blocks.1.hook_resid_post",
            "neuronpedia_id": None,
        },
        **keys,
    }


def write_saelens(folder: Path, cfg: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    write_json(folder / "cfg.json", cfg)
    save_file(
        {name: tensor.contiguous() for name, tensor in tensors.items()},
        folder / "sae_weights.safetensors",
    )


def saelens_gated(folder: Path) -> Rule:
    draw = Draw(1)
    w = draw.weights()
    del w["b_enc"]
    w |= {name: draw(M, scale=0.3) for name in ("b_gate", "b_mag", "r_mag")}
    write_saelens(folder, saelens_cfg("gated"), w)

    def rule(x: Tensor) -> tuple[Tensor, Tensor]:
        taken = x - w["b_dec"]
        gate = (taken @ w["W_enc"] + w["b_gate"] > 0).float()
        z = gate * (taken @ (w["W_enc"] * w["r_mag"].exp()) + w["b_mag"]).relu()
        return z, z @ w["W_dec"] + w["b_dec"]

    return rule


def saelens_layer_norm(folder: Path) -> Rule:
    w = Draw(2).weights()
    write_saelens(folder, saelens_cfg("topk", k=K, normalize_activations="layer_norm"), w)

    def rule(x: Tensor) -> tuple[Tensor, Tensor]:
        mean = x.mean(-1, keepdim=True)
        std = (x - mean).std(-1, keepdim=True)
        taken = (x - mean) / (std + 1e-5)
        z = keep_top((taken - w["b_dec"]) @ w["W_enc"] + w["b_enc"])
        return z, (z @ w["W_dec"] + w["b_dec"]) * std + mean

    return rule


def saelens_rescaled(folder: Path) -> Rule:
    w = Draw(3).weights()
    write_saelens(folder, saelens_cfg("topk", k=K, rescale_acts_by_decoder_norm=True), w)
    norms = w["W_dec"].norm(dim=1)

    def rule(x: Tensor) -> tuple[Tensor, Tensor]:
        z = keep_top(((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"]) * norms)
        return z, (z / norms) @ w["W_dec"] + w["b_dec"]

    return rule


def saelens_log_threshold(folder: Path) -> Rule:
    """A JumpReLU SAE saved in training before 6.48."""
    draw = Draw(4)
    w = draw.weights()
    logs = draw(M, scale=0.5)
    cfg = saelens_cfg(
        "jumprelu", jumprelu_bandwidth=0.05, l0_coefficient=1.0, apply_b_dec_to_input=False
    )
    write_saelens(folder, cfg, {**w, "log_threshold": logs})

    def rule(x: Tensor) -> tuple[Tensor, Tensor]:
        z = jump(x @ w["W_enc"] + w["b_enc"], logs.exp())
        return z, z @ w["W_dec"] + w["b_dec"]

    return rule


def saelens_batchtopk(folder: Path) -> Rule:
    """A BatchTopK SAE in training: one threshold, of the rescaled pre-activations."""
    w = Draw(5).weights()
    threshold = torch.tensor(0.6, dtype=torch.float64)
    cfg = saelens_cfg("batchtopk", k=6.0, rescale_acts_by_decoder_norm=True, topk_threshold_lr=0.01)
    write_saelens(folder, cfg, {**w, "topk_threshold": threshold})
    norms = w["W_dec"].norm(dim=1)

    def rule(x: Tensor) -> tuple[Tensor, Tensor]:
        z = jump(((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"]) * norms, 0.6)
        return z, (z / norms) @ w["W_dec"] + w["b_dec"]

    return rule


def _saelens_transcoder(folder: Path, skip: bool, jumps: bool) -> Rule:
    draw, d_out = Draw(6), 7
    w = draw.weights(d_out)
    name = ("jumprelu_" if jumps else "") + ("skip_" if skip else "") + "transcoder"
    extra = {}
    if skip:
        extra["W_skip"] = draw(d_out, D)
    if jumps:
        extra["threshold"] = draw(M).abs()
    cfg = saelens_cfg(name, d_out=d_out, apply_b_dec_to_input=False)
    cfg["metadata"]["hook_name_out"] = "blocks.1.hook_mlp_out"
    write_saelens(folder, cfg, {**w, **extra})

    def rule(x: Tensor) -> tuple[Tensor, Tensor]:
        z = jump(x @ w["W_enc"] + w["b_enc"], extra.get("threshold", 0.0))
        out = z @ w["W_dec"] + w["b_dec"]
        return z, out + x @ extra["W_skip"].T if skip else out

    return rule


def saelens_transcoder(folder: Path) -> Rule:
    return _saelens_transcoder(folder, skip=False, jumps=False)


def saelens_skip_transcoder(folder: Path) -> Rule:
    return _saelens_transcoder(folder, skip=True, jumps=False)


def saelens_jumprelu_skip_transcoder(folder: Path) -> Rule:
    return _saelens_transcoder(folder, skip=True, jumps=True)


def saelens_scaled(folder: Path) -> Rule:
    """A checkpoint whose input scale stands beside it, for all tokens one number."""
    draw, s = Draw(7), 0.31
    w = draw.weights()
    threshold = draw(M).abs()
    cfg = saelens_cfg("jumprelu", normalize_activations="expected_average_only_in")
    write_saelens(folder, cfg, {**w, "threshold": threshold})
    write_json(folder / "activation_scaler.json", {"scaling_factor": s})

    def rule(x: Tensor) -> tuple[Tensor, Tensor]:
        z = jump((s * x - w["b_dec"]) @ w["W_enc"] + w["b_enc"], threshold)
        return z / s, (z @ w["W_dec"] + w["b_dec"]) / s  # latents in plain units

    return rule


def old_cfg(**keys: Any) -> dict[str, Any]:
    """A flat `cfg.json` as SAELens wrote it before 6.0."""
    return {
        "d_in": D,
        "d_sae": M,
        "model_name": "gpt2-small",
        "hook_point": "blocks.8.hook_resid_pre",
        "hook_point_layer": 8,
        "hook_point_head_index": None,
        "dtype": "torch.float32",
        "device": "mps",
        "context_size": 128,
        "prepend_bos": True,
        "l1_coefficient": 8e-5,
        "lr": 4e-4,
        "use_ghost_grads": True,
        "normalize_activations": False,
        "finetuning_scaling_factor": False,
        **keys,
    }


def old_saelens_standard(folder: Path) -> Rule:
    w = Draw(8).weights()
    write_saelens(folder, old_cfg(), {**w, "scaling_factor": torch.ones(M)})

    def rule(x: Tensor) -> tuple[Tensor, Tensor]:
        z = ((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"]).relu()
        return z, z @ w["W_dec"] + w["b_dec"]

    return rule


def old_saelens_topk(folder: Path) -> Rule:
    w = Draw(9).weights()
    cfg = old_cfg(activation_fn_str="topk", activation_fn_kwargs={"k": K}, architecture="standard")
    write_saelens(folder, cfg, w)

    def rule(x: Tensor) -> tuple[Tensor, Tensor]:
        z = keep_top((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"])
        return z, z @ w["W_dec"] + w["b_dec"]

    return rule


def write_sparsify(
    folder: Path, seed: int = 10, tensors: dict[str, Tensor] | None = None, **cfg: Any
) -> dict[str, Tensor]:
    """One hook point's folder; gives its weights by our names."""
    draw = Draw(seed)
    w = draw.weights()
    write_json(
        folder / "cfg.json",
        {
            "activation": "topk",
            "expansion_factor": 32,
            "normalize_decoder": True,
            "num_latents": M,
            "k": K,
            "multi_topk": False,
            "skip_connection": False,
            "transcode": False,
            "d_in": D,
            **cfg,
        },
    )
    save_file(
        {
            "encoder.weight": w["W_enc"].T.contiguous(),
            "encoder.bias": w["b_enc"],
            "W_dec": w["W_dec"],
            "b_dec": w["b_dec"],
            **(tensors or {}),
        },
        folder / "sae.safetensors",
    )
    return w


def sparsify_groupmax(folder: Path) -> Rule:
    w = write_sparsify(folder / "layers.1", activation="groupmax")

    def rule(x: Tensor) -> tuple[Tensor, Tensor]:
        z = keep_group_max((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"])
        return z, z @ w["W_dec"] + w["b_dec"]

    return rule


def _sparsify_transcoder(folder: Path, activation: str) -> Rule:
    skip = Draw(11)(D, D)
    w = write_sparsify(
        folder / "layers.1.mlp",
        tensors={"W_skip": skip},
        activation=activation,
        transcode=True,
        skip_connection=True,
    )
    choose = keep_top if activation == "topk" else keep_group_max

    def rule(x: Tensor) -> tuple[Tensor, Tensor]:
        z = choose(x @ w["W_enc"] + w["b_enc"])
        return z, z @ w["W_dec"] + w["b_dec"] + x @ skip.T

    return rule


def sparsify_skip_transcoder(folder: Path) -> Rule:
    return _sparsify_transcoder(folder, "topk")


def sparsify_groupmax_transcoder(folder: Path) -> Rule:
    return _sparsify_transcoder(folder, "groupmax")


def write_dictionary(
    folder: Path, dict_class: str, state: dict[str, Any], wrap: bool = False, **trainer: Any
) -> None:
    said = {"dict_class": dict_class, "layer": 2, "lm_name": "EleutherAI/pythia-70m", **trainer}
    write_json(folder / "config.json", {"trainer": said, "buffer": {"ctx_len": 64}})
    torch.save({"step": 3, "ae": state, "lr": 0.1} if wrap else state, folder / "ae.pt")


def _linear(w: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        "encoder.weight": w["W_enc"].T.contiguous(),
        "encoder.bias": w["b_enc"],
        "decoder.weight": w["W_dec"].T.contiguous(),
    }


def dictionary_topk(folder: Path) -> Rule:
    w = Draw(12).weights()
    state = {
        **_linear(w),
        "b_dec": w["b_dec"],
        "k": torch.tensor(K),
        "threshold": torch.tensor(9.0),
    }
    write_dictionary(folder, "AutoEncoderTopK", state, k=K)

    def rule(x: Tensor) -> tuple[Tensor, Tensor]:
        z = keep_top((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"])
        return z, z @ w["W_dec"] + w["b_dec"]

    return rule


def dictionary_batchtopk_untrained(folder: Path) -> Rule:
    """Its threshold is -1 until training sets it."""
    w = Draw(13).weights()
    state = {
        **_linear(w),
        "b_dec": w["b_dec"],
        "k": torch.tensor(K),
        "threshold": torch.tensor(-1.0),
    }
    write_dictionary(folder, "BatchTopKSAE", state, k=K)

    def rule(x: Tensor) -> tuple[Tensor, Tensor]:
        act = ((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"]).relu()
        z = act * (act > -1)
        return z, z @ w["W_dec"] + w["b_dec"]

    return rule


def dictionary_matryoshka(folder: Path) -> Rule:
    w = Draw(14).weights()
    state = {**w, "k": torch.tensor(K), "threshold": torch.tensor(0.7)}
    state["group_sizes"] = torch.tensor([10, 30])
    write_dictionary(folder, "MatryoshkaBatchTopKSAE", state, k=K, group_fractions=[0.25, 0.75])

    def rule(x: Tensor) -> tuple[Tensor, Tensor]:
        z = jump((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"], 0.7)
        return z, z @ w["W_dec"] + w["b_dec"]

    return rule


def dictionary_jumprelu(folder: Path) -> Rule:
    draw = Draw(15)
    w = draw.weights()
    threshold = draw(M)  # some below zero
    write_dictionary(folder, "JumpReluAutoEncoder", {**w, "threshold": threshold})

    def rule(x: Tensor) -> tuple[Tensor, Tensor]:
        pre = x @ w["W_enc"] + w["b_enc"]
        z = (pre * (pre > threshold)).relu()
        return z, z @ w["W_dec"] + w["b_dec"]

    return rule


def dictionary_new(folder: Path) -> Rule:
    """The file of an interrupted run: the weights are wrapped."""
    w = Draw(16).weights()
    state = {**_linear(w), "decoder.bias": w["b_dec"]}
    write_dictionary(folder, "AutoEncoderNew", state, wrap=True)

    def rule(x: Tensor) -> tuple[Tensor, Tensor]:
        z = (x @ w["W_enc"] + w["b_enc"]).relu()
        return z, z @ w["W_dec"] + w["b_dec"]

    return rule


def dictionary_gated(folder: Path) -> Rule:
    draw = Draw(17)
    w = draw.weights()
    extra = {name: draw(M, scale=0.3) for name in ("r_mag", "gate_bias", "mag_bias")}
    linear = _linear(w)
    del linear["encoder.bias"]
    write_dictionary(folder, "GatedAutoEncoder", {**linear, "decoder_bias": w["b_dec"], **extra})

    def rule(x: Tensor) -> tuple[Tensor, Tensor]:
        product = (x - w["b_dec"]) @ w["W_enc"]
        gate = (product + extra["gate_bias"] > 0).float()
        z = gate * (extra["r_mag"].exp() * product + extra["mag_bias"]).relu()
        return z, z @ w["W_dec"] + w["b_dec"]

    return rule


def llama_scope(folder: Path) -> Rule:
    w, mean, threshold = Draw(18).weights(), 2.5, 0.4
    base = folder / "Llama3_1-8B-Base-L15R-8x"
    write_json(
        base / "hyperparams.json",
        {
            "d_model": D,
            "d_sae": M,
            "hook_point_in": "blocks.15.hook_resid_post",
            "hook_point_out": "blocks.15.hook_resid_post",
            "act_fn": "jumprelu",
            "jump_relu_threshold": threshold,
            "norm_activation": "dataset-wise",
            "dataset_average_activation_norm": {"in": mean, "out": mean},
            "use_decoder_bias": True,
            "apply_decoder_bias_to_pre_encoder": False,
            "top_k": 50,
        },
    )
    (base / "checkpoints").mkdir()
    save_file({**_linear(w), "decoder.bias": w["b_dec"]}, base / "checkpoints/final.safetensors")
    s = math.sqrt(D) / mean

    def rule(x: Tensor) -> tuple[Tensor, Tensor]:
        z = jump(s * x @ w["W_enc"] + w["b_enc"], s * threshold)  # of plain activations
        return z / s, (z @ w["W_dec"] + w["b_dec"]) / s

    return rule


def llama_scope_transcoder(folder: Path) -> Rule:
    w, mean_in, mean_out, threshold = Draw(19).weights(), 4.0, 0.5, 0.3
    write_json(
        folder / "hyperparams.json",
        {
            "hook_point_in": "blocks.8.ln2.hook_normalized",
            "hook_point_out": "blocks.8.hook_mlp_out",
            "jump_relu_threshold": threshold,
            "dataset_average_activation_norm": {"in": mean_in, "out": mean_out},
        },
    )
    (folder / "checkpoints").mkdir()
    save_file({**_linear(w), "decoder.bias": w["b_dec"]}, folder / "checkpoints/final.safetensors")
    s, t = math.sqrt(D) / mean_in, math.sqrt(D) / mean_out

    def rule(x: Tensor) -> tuple[Tensor, Tensor]:
        z = jump(s * x @ w["W_enc"] + w["b_enc"], s * threshold)
        return z / s, (z @ w["W_dec"] + w["b_dec"]) / t

    return rule


def _openai_state(w: dict[str, Tensor]) -> dict[str, Any]:
    return {
        "pre_bias": w["b_dec"],
        "latent_bias": w["b_enc"],
        "encoder.weight": w["W_enc"].T.contiguous(),
        "decoder.weight": w["W_dec"].T.contiguous(),
        "stats_last_nonzero": torch.zeros(M, dtype=torch.int64),
    }


def openai_topk(folder: Path) -> Rule:
    w = Draw(20).weights()
    state = _openai_state(w)
    state |= {"activation": "TopK", "activation_state_dict": {"k": K, "postact_fn": "ReLU"}}
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(state, folder / "8.pt")

    def rule(x: Tensor) -> tuple[Tensor, Tensor]:
        mean = x.mean(-1, keepdim=True)
        std = (x - mean).std(-1, keepdim=True)
        taken = (x - mean) / (std + 1e-5) - w["b_dec"]
        z = keep_top(taken @ w["W_enc"] + w["b_enc"])
        return z, (z @ w["W_dec"] + w["b_dec"]) * std + mean

    return rule


def openai_relu(folder: Path) -> Rule:
    w = Draw(21).weights()
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({**_openai_state(w), "activation": "ReLU"}, folder / "8.pt")

    def rule(x: Tensor) -> tuple[Tensor, Tensor]:
        z = ((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"]).relu()
        return z, z @ w["W_dec"] + w["b_dec"]

    return rule


def gemma_scope(folder: Path) -> Rule:
    draw = Draw(22)
    w = draw.weights()
    threshold = draw(M).abs()
    base = folder / "gemma-scope-2b-pt-mlp/layer_3/width_1k/average_l0_9"
    base.mkdir(parents=True)
    arrays: dict[str, Any] = {
        name: tensor.numpy() for name, tensor in {**w, "threshold": threshold}.items()
    }
    np.savez(base / "params.npz", **arrays)

    def rule(x: Tensor) -> tuple[Tensor, Tensor]:
        z = jump(x @ w["W_enc"] + w["b_enc"], threshold)
        return z, z @ w["W_dec"] + w["b_dec"]

    return rule


MAKERS: dict[str, Callable[[Path], Rule]] = {
    maker.__name__: maker
    for maker in (
        saelens_gated,
        saelens_layer_norm,
        saelens_rescaled,
        saelens_log_threshold,
        saelens_batchtopk,
        saelens_transcoder,
        saelens_skip_transcoder,
        saelens_jumprelu_skip_transcoder,
        saelens_scaled,
        old_saelens_standard,
        old_saelens_topk,
        sparsify_groupmax,
        sparsify_skip_transcoder,
        sparsify_groupmax_transcoder,
        dictionary_topk,
        dictionary_batchtopk_untrained,
        dictionary_matryoshka,
        dictionary_jumprelu,
        dictionary_new,
        dictionary_gated,
        llama_scope,
        llama_scope_transcoder,
        openai_topk,
        openai_relu,
        gemma_scope,
    )
}
