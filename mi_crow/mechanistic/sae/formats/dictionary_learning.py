"""Reading dictionary_learning: `ae.pt` beside `config.json`, whose `trainer` names the class."""

from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mi_crow.errors import CorruptDataError, UserError
from mi_crow.mechanistic.sae.cross_layer.refs import TensorRef
from mi_crow.mechanistic.sae.formats.marks import DICTIONARY_LEARNING, DICTIONARY_WEIGHTS
from mi_crow.mechanistic.sae.formats.record import SaeRecord
from mi_crow.mechanistic.sae.formats.tensor_files import (
    check_names,
    check_plain,
    check_sizes,
    check_tensors,
    read_safetensors,
    read_torch,
    refs,
    tensors_of,
)
from mi_crow.mechanistic.sae.hook_names import hook_name_of, module_of, point_of
from mi_crow.mechanistic.sae.metadata import SaeMetadata
from mi_crow.store.json_file import read_object
from mi_crow.store.json_object import JsonObject, whole

FORMAT = DICTIONARY_LEARNING.format

_LINEAR = ("encoder.weight", "encoder.bias", "decoder.weight")
_PLAIN = ("W_enc", "b_enc", "W_dec", "b_dec")

# Names of modules in its scripts, and what a module reads that writes a point.
_SUBMODULES = {"attention_out": "attn_out", "resid": "resid_post", "mlp": "mlp_raw"}
_INPUTS = {
    "resid_post": "resid_pre",
    **dict.fromkeys(("mlp_out", "mlp_raw"), "mlp_in"),
    **dict.fromkeys(("attn_out", "attn_raw"), "attn_in"),
}

# The tensors of each class, and the buffers that older files may lack.
_TENSORS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "AutoEncoder": ((*_LINEAR, "bias"), ()),
    "AutoEncoderNew": ((*_LINEAR, "decoder.bias"), ()),
    "AutoEncoderTopK": ((*_LINEAR, "b_dec"), ("k", "threshold")),
    "BatchTopKSAE": ((*_LINEAR, "b_dec", "threshold"), ("k",)),
    "MatryoshkaBatchTopKSAE": ((*_PLAIN, "threshold", "group_sizes"), ("k",)),
    "JumpReluAutoEncoder": ((*_PLAIN, "threshold"), ()),
    "GatedAutoEncoder": (
        ("encoder.weight", "decoder.weight", "decoder_bias", "r_mag", "gate_bias", "mag_bias"),
        (),
    ),
}


def read_dictionary_learning(path: Path, config: Path) -> SaeRecord:
    """The dictionary in `path`, described by `config`.

    Raises UserError for a class or tensors that are not known and for a file that could run code,
    CorruptDataError when the files do not fit each other.
    """
    cfg = read_object(config, unique_keys=True)
    if "trainer" not in cfg:
        raise CorruptDataError(f"{config} has no trainer")
    trainer = cfg.object("trainer")
    name = trainer.text("dict_class")
    if name not in _TENSORS:
        raise UserError(
            f"{config} describes a {name!r}, which cannot be read",
            hint=f"supported: {', '.join(_TENSORS)}",
        )
    required, optional = _TENSORS[name]
    found = _unwrapped(_stored(path), required, path)
    state = tensors_of(found, (*required, *optional), path)
    check_names(found, required, path, f"{FORMAT} for {name}", optional)
    check_tensors(refs(state), required, path, f"{FORMAT} for {name}", optional)
    k = _k(trainer, state, path) if "k" in optional else None
    record = _record(name, state, _metadata(trainer, cfg), k, path)
    check_sizes(trainer, {"activation_dim": record.n_inputs, "dict_size": record.n_latents})
    return record


def _stored(path: Path) -> Mapping[str, Any]:
    if path.name == DICTIONARY_WEIGHTS:
        return {name: ref.read() for name, ref in read_safetensors(path).items()}
    return read_torch(path)


def _unwrapped(
    found: Mapping[str, Any], required: tuple[str, ...], path: Path
) -> Mapping[str, Any]:
    """The state dict: the file's object, or the only state dict inside it, as an interrupted run
    writes it."""
    if "encoder.weight" in found or "W_enc" in found:
        return found
    inside = [
        value
        for value in found.values()
        if isinstance(value, Mapping) and set(required) <= set(value)
    ]
    if len(inside) != 1:
        raise UserError(
            f"{path} is not what {FORMAT} writes: it holds {', '.join(found)}",
            hint=f"expected tensors: {', '.join(required)}",
        )
    check_plain(inside[0], path)
    return inside[0]


def _k(trainer: JsonObject, state: dict[str, Tensor], path: Path) -> int:
    said = trainer.integer("k", None, least=1)
    stored = _whole(state["k"], "k", path)[0] if "k" in state else said
    if stored is None or (said is not None and said != stored):
        raise CorruptDataError(f"{trainer.place} says k = {said}, the weights {stored}")
    return stored


def _whole(tensor: Tensor, name: str, path: Path) -> list[int]:
    """A tensor of positive integers as a list. Raises CorruptDataError for others."""
    values = tensor.reshape(-1).tolist()
    found = [whole(value) for value in values]
    if not found or any(one is None or one < 1 for one in found):
        raise CorruptDataError(f"{path} holds values other than positive integers for {name}")
    return [one for one in found if one is not None]


def _metadata(trainer: JsonObject, cfg: JsonObject) -> tuple[SaeMetadata, tuple[str, ...]]:
    module, layer = trainer.text("submodule_name", ""), trainer.integer("layer", None)
    point, assumed = "", ()
    if module:
        # Their demo names modules like `resid_post_layer_8`.
        kind, _, number = module.partition("_layer_")
        point = point_of(f"{_SUBMODULES.get(kind, kind)}.{number}") or point_of(module)
    elif layer is not None:
        point = f"resid_post.{layer}"
        assumed = (f"layer {layer} is assumed to be {point}; choose another with --layer",)
    buffer = cfg.object("buffer", {})
    if (read := buffer.text("io", "out")) == "in":
        point = _read_by(point)
    elif read != "out":
        raise UserError(
            f"{cfg.place} says io = {read!r}: a transcoder of {FORMAT} cannot be read",
            hint="supported: io = out, in",
        )
    return SaeMetadata(
        model_name=trainer.text("lm_name", ""),
        hook_name=hook_name_of(point, module) if point else "",
        layer=module_of(module) if read == "out" else "",
        point=point,
        context_size=buffer.integer("ctx_len", None),
    ), assumed


def _read_by(point: str) -> str:
    """The hook point that a module reads which writes `point`; '' where that is not certain."""
    kind, _, number = point.partition(".")
    return f"{_INPUTS[kind]}.{number}" if kind in _INPUTS else ""


def _record(
    name: str,
    state: dict[str, Tensor],
    origin: tuple[SaeMetadata, tuple[str, ...]],
    k: int | None,
    path: Path,
) -> SaeRecord:
    """By the rule of each class: its names of tensors, and whether it subtracts b_dec."""
    found, (metadata, assumed) = refs(state), origin
    tensors = _matrices(found)
    subtracts, architecture, widths = True, "standard", None
    if name == "AutoEncoder":
        tensors |= {"b_enc": found["encoder.bias"], "b_dec": found["bias"]}
    elif name == "AutoEncoderNew":
        tensors |= {"b_enc": found["encoder.bias"], "b_dec": found["decoder.bias"]}
        subtracts = False
    elif name == "AutoEncoderTopK":  # its threshold is not used unless asked for
        tensors |= {"b_enc": found["encoder.bias"], "b_dec": found["b_dec"]}
        architecture = "topk"
    elif name == "GatedAutoEncoder":
        names = {"b_gate": "gate_bias", "b_mag": "mag_bias", "b_dec": "decoder_bias"}
        tensors |= {ours: found[theirs] for ours, theirs in names.items()}
        tensors["r_mag"] = found["r_mag"]
        architecture = "gated"
    else:
        bias = "encoder.bias" if "encoder.bias" in found else "b_enc"
        tensors |= {"b_enc": found[bias], "b_dec": found["b_dec"]}
        tensors["threshold"] = _threshold(state["threshold"], tensors["b_enc"], path)
        architecture = {"BatchTopKSAE": "batchtopk", "JumpReluAutoEncoder": "jumprelu"}.get(
            name, "matryoshka"
        )
        subtracts = name != "JumpReluAutoEncoder"
        if architecture == "matryoshka":
            widths = tuple(accumulate(_whole(state["group_sizes"], "group_sizes", path)))
    return SaeRecord(
        architecture,
        tensors,
        metadata,
        k=k,
        widths=widths,
        apply_b_dec_to_input=subtracts,
        assumed=assumed,
    )


def _matrices(found: dict[str, TensorRef]) -> dict[str, TensorRef]:
    """Linear layers are [outputs, inputs], plain parameters [inputs, outputs]."""
    if "W_enc" in found:
        return {"encoder_rows": found["W_enc"].t(), "W_dec": found["W_dec"]}
    return {"encoder_rows": found["encoder.weight"], "W_dec": found["decoder.weight"].t()}


def _threshold(threshold: Tensor, bias: TensorRef, path: Path) -> TensorRef:
    """One per latent. Negative before training has set it: then every positive pre-activation
    passes."""
    if not threshold.is_floating_point():
        raise CorruptDataError(f"{path} holds {threshold.dtype} numbers for threshold")
    threshold = threshold.to(torch.float32).clamp_min(0)
    return TensorRef.of(threshold.expand(bias.shape) if threshold.ndim == 0 else threshold)
