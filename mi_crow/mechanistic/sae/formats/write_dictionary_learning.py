"""Writing an SAE for dictionary_learning: `ae.safetensors` and `config.json`.

dictionary_learning itself loads `ae.pt`, a pickle, which is never written here. `ae.safetensors`
holds the same state dict: `torch.save(load_file("ae.safetensors"), "ae.pt")` makes the file.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from mi_crow.errors import UserError
from mi_crow.language_model.hook_points.names import number_of
from mi_crow.mechanistic.sae.base import SparseAutoencoder
from mi_crow.mechanistic.sae.formats.marks import DICTIONARY_LEARNING, DICTIONARY_WEIGHTS
from mi_crow.mechanistic.sae.formats.sparsify import check_plain_input
from mi_crow.mechanistic.sae.metadata import SaeMetadata
from mi_crow.mechanistic.sae.rules.matryoshka import MatryoshkaSae
from mi_crow.store.atomic import write_json

FORMAT = DICTIONARY_LEARNING.format
LOADED = (
    f"{FORMAT} loads ae.pt, a pickle, which is not written here: "
    'torch.save(safetensors.torch.load_file("ae.safetensors"), "ae.pt") makes it'
)

_CLASSES = {
    "standard": "AutoEncoder",
    "topk": "AutoEncoderTopK",
    "batchtopk": "BatchTopKSAE",
    "matryoshka": "MatryoshkaBatchTopKSAE",
    "jumprelu": "JumpReluAutoEncoder",
    "gated": "GatedAutoEncoder",
}
_PLAIN = ("MatryoshkaBatchTopKSAE", "JumpReluAutoEncoder")  # [inputs, outputs] parameters


def check_dictionary(sae: SparseAutoencoder) -> None:
    """Raises UserError with the reason for an SAE that dictionary_learning does not support."""
    if sae.architecture not in _CLASSES:
        raise UserError(
            f"{FORMAT} has no SAEs of architecture {sae.architecture!r}",
            hint=f"it has {', '.join(_CLASSES)}",
        )
    check_plain_input(sae, FORMAT)
    threshold = getattr(sae, "threshold", None)
    single = sae.architecture in ("batchtopk", "matryoshka")
    if single and threshold is not None and bool((threshold != threshold[0]).any()):
        raise UserError(
            f"{FORMAT} has one threshold for all latents of {sae.architecture!r} SAEs, this one "
            "has several",
            hint="leave out --format: the SAELens layout holds them",
        )


def write_dictionary(sae: SparseAutoencoder, folder: Path) -> None:
    """Writes the SAE's two files into `folder`, which exists. Raises UserError."""
    check_dictionary(sae)
    name = _class_of(sae)
    state = {key: tensor.detach().cpu().contiguous() for key, tensor in _state(sae, name).items()}
    save_file(state, folder / DICTIONARY_WEIGHTS)
    write_json(folder / DICTIONARY_LEARNING.config, _config(sae, name))


def _class_of(sae: SparseAutoencoder) -> str:
    name = _CLASSES[sae.architecture]
    return "AutoEncoderNew" if name == "AutoEncoder" and not sae.apply_b_dec_to_input else name


def _state(sae: SparseAutoencoder, name: str) -> dict[str, Tensor]:
    """The state dict of the class `name`."""
    if name == "GatedAutoEncoder":
        gated: Any = sae
        return {
            "encoder.weight": sae.encoder_rows,
            "decoder.weight": sae.W_dec.t(),
            "decoder_bias": sae.b_dec,
            "r_mag": gated.r_mag,
            "gate_bias": _bias(sae, gated.b_gate, subtracts=True),
            "mag_bias": _bias(sae, gated.b_mag, subtracts=True, scale=gated.r_mag.exp()),
        }
    bias = _bias(sae, sae.b_enc, subtracts=name not in ("JumpReluAutoEncoder", "AutoEncoderNew"))
    if name in _PLAIN:
        found = {"W_enc": sae.encoder_rows.t(), "b_enc": bias, "W_dec": sae.W_dec}
    else:
        found = {
            "encoder.weight": sae.encoder_rows,
            "encoder.bias": bias,
            "decoder.weight": sae.W_dec.t(),
        }
    b_dec = {"AutoEncoder": "bias", "AutoEncoderNew": "decoder.bias"}.get(name, "b_dec")
    found[b_dec] = sae.b_dec
    rule: Any = sae
    if name == "JumpReluAutoEncoder":
        return found | {"threshold": rule.threshold}
    if "k" in sae.config():
        found["k"] = torch.tensor(int(rule.k))
        threshold = getattr(sae, "threshold", None)
        found["threshold"] = torch.tensor(-1.0) if threshold is None else threshold[0].clone()
    if isinstance(sae, MatryoshkaSae):
        ends = torch.tensor([0, *sae.widths])
        found["group_sizes"] = ends.diff()
    return found


def _bias(
    sae: SparseAutoencoder, bias: Tensor, *, subtracts: bool, scale: Tensor | float = 1.0
) -> Tensor:
    """The bias for a class that subtracts b_dec from the input, or does not: the difference to what
    this SAE does goes into it."""
    if subtracts == sae.apply_b_dec_to_input:
        return bias
    shift = scale * (sae.encoder_rows.detach() @ sae.b_dec.detach())
    return bias + shift if subtracts else bias - shift


def _config(sae: SparseAutoencoder, name: str) -> dict[str, Any]:
    metadata: SaeMetadata = sae.metadata
    trainer: dict[str, Any] = {
        "dict_class": name,
        "activation_dim": sae.n_inputs,
        "dict_size": sae.n_latents,
        "lm_name": metadata.model_name,
        "submodule_name": _submodule(metadata.point),
    }
    number = number_of(metadata.point) if metadata.point else None
    if number is not None:
        trainer["layer"] = number
    if "k" in sae.config():
        trainer["k"] = int(sae.config()["k"])
    buffer = {"d_submodule": sae.n_inputs, "io": "out", "ctx_len": metadata.context_size}
    return {"trainer": trainer, "buffer": {key: v for key, v in buffer.items() if v is not None}}


def _submodule(point: str) -> str:
    """`resid_post_layer_8` for `resid_post.8`, as its scripts call modules."""
    kind, _, number = point.rpartition(".")
    return f"{kind}_layer_{number}" if number.isdecimal() and "." not in kind else point
