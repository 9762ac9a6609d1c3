"""Reading dictionary_learning: `ae.pt` beside `config.json`, whose `trainer` names the class."""

from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mi_crow.errors import CorruptDataError, UserError
from mi_crow.mechanistic.sae.formats.record import SaeRecord, TensorRef
from mi_crow.mechanistic.sae.formats.tensor_files import check_names, read_torch, refs
from mi_crow.mechanistic.sae.hook_names import hook_name_of, module_of, point_of
from mi_crow.mechanistic.sae.metadata import SaeMetadata
from mi_crow.store.atomic import read_json

FORMAT = "dictionary_learning"
CONFIG_NAME = "config.json"
WEIGHTS_NAME = "ae.pt"

_LINEAR = ("encoder.weight", "encoder.bias", "decoder.weight")
_PLAIN = ("W_enc", "b_enc", "W_dec", "b_dec")

# The tensors of each class. Buffers in brackets there may be missing in older files.
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
    trainer = _trainer(config)
    name = trainer.get("dict_class")
    if name not in _TENSORS:
        raise UserError(
            f"{config} is of a {name!r}, which cannot be read",
            hint=f"supported: {', '.join(_TENSORS)}",
        )
    required, optional = _TENSORS[name]
    state = _unwrapped(read_torch(path), required, path)
    check_names(state, required, path, f"{FORMAT} for {name}", optional)
    k = _k(trainer, state, config) if "k" in optional else None
    return _record(name, state, _metadata(trainer, config), k)


def _trainer(config: Path) -> dict[str, Any]:
    found = read_json(config)
    trainer = found.get("trainer") if isinstance(found, dict) else None
    if not isinstance(trainer, dict):
        raise CorruptDataError(f"{config} has no trainer")
    return trainer


def _unwrapped(
    found: Mapping[str, Any], required: tuple[str, ...], path: Path
) -> dict[str, Tensor]:
    """The state dict: the file's object, or the one such dict that an interrupted run wrapped."""
    if "encoder.weight" in found or "W_enc" in found:
        inner = dict(found)
    else:
        inside = [
            value
            for value in found.values()
            if isinstance(value, Mapping) and set(required) <= set(value)
        ]
        if len(inside) != 1:
            raise UserError(
                f"{path} is not what {FORMAT} writes: it holds {', '.join(map(str, found))}",
                hint=f"the tensors are to be {', '.join(required)}",
            )
        inner = dict(inside[0])
    for key, value in inner.items():
        if not isinstance(value, Tensor):
            raise UserError(f"{path} holds {key}, which is no tensor")
    return inner


def _k(trainer: dict[str, Any], state: dict[str, Tensor], config: Path) -> int:
    said = trainer.get("k")
    stored = int(state["k"]) if "k" in state else said
    if stored is None or (said is not None and int(said) != stored):
        raise CorruptDataError(f"{config} says k = {said}, the weights {stored}")
    return int(stored)


def _metadata(trainer: dict[str, Any], config: Path) -> tuple[SaeMetadata, tuple[str, ...]]:
    model, layer, module = (trainer.get(key) for key in ("lm_name", "layer", "submodule_name"))
    model_name = model if isinstance(model, str) else ""
    length = (read_json(config).get("buffer") or {}).get("ctx_len")
    size = length if isinstance(length, int) else None
    point, assumed = "", ()
    if isinstance(module, str) and module:
        # Their demo names modules like `resid_post_layer_8`.
        kind, _, number = module.partition("_layer_")
        point = point_of(f"{kind}.{number}") or point_of(module)
    elif isinstance(layer, int):
        point = f"resid_post.{layer}"
        assumed = (f"layer {layer} is taken for {point}; name another with --layer",)
    return SaeMetadata(
        model_name=model_name,
        hook_name=hook_name_of(point, "") if point else "",
        layer=module_of(module) if isinstance(module, str) else "",
        point=point,
        context_size=size,
    ), assumed


def _record(
    name: str,
    state: dict[str, Tensor],
    origin: tuple[SaeMetadata, tuple[str, ...]],
    k: int | None,
) -> SaeRecord:
    """By each class's own rule: what it calls its tensors, and whether b_dec is subtracted."""
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
        tensors["threshold"] = _threshold(state, tensors["b_enc"].shape[0])
        architecture = {"BatchTopKSAE": "batchtopk", "JumpReluAutoEncoder": "jumprelu"}.get(
            name, "matryoshka"
        )
        subtracts = name != "JumpReluAutoEncoder"
        if architecture == "matryoshka":
            widths = tuple(accumulate(int(size) for size in state["group_sizes"]))
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
    """Linear layers hold [outputs, inputs], plain parameters the other way round."""
    if "W_enc" in found:
        return {"encoder_rows": found["W_enc"].t(), "W_dec": found["W_dec"]}
    return {"encoder_rows": found["encoder.weight"], "W_dec": found["decoder.weight"].t()}


def _threshold(state: dict[str, Tensor], n_latents: int) -> TensorRef:
    """One a latent. Below zero, where training has not set it yet, it lets every positive
    pre-activation through."""
    threshold = state["threshold"].to(torch.float32).clamp_min(0)
    return TensorRef.of(threshold.expand(n_latents) if threshold.ndim == 0 else threshold)
