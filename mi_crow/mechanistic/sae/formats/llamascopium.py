"""Reading Llama-Scope-R1-Distill and Llamascopium: `config.json` beside `sae_weights.safetensors`.

h = s_in x W_E + b_E; with `sparsity_include_decoder_norm` the rule looks at h |W_D row|; z is h
where the rule lets it through, y = (z W_D + b_D) / s_out. s = sqrt(d) / the data set's mean norm at
that hook point; s is folded into the biases and the threshold. (lm_saes at d8cb620d, sae.py;
llamascopium 2.0.0b34, models/sparse_dictionary.py.) The weights' file has the name that SAELens
uses, which puts `cfg.json` beside it.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from mi_crow.errors import UserError
from mi_crow.mechanistic.sae.cross_layer.record import CrossLayerRecord
from mi_crow.mechanistic.sae.cross_layer.refs import TensorRef
from mi_crow.mechanistic.sae.formats.llamascopium_clt import read_llamascopium_clt
from mi_crow.mechanistic.sae.formats.marks import LLAMASCOPIUM, SAELENS, SAELENS_KEYS
from mi_crow.mechanistic.sae.formats.origins import origin
from mi_crow.mechanistic.sae.formats.record import SaeRecord
from mi_crow.mechanistic.sae.formats.scales import NORM, scale_of
from mi_crow.mechanistic.sae.formats.tensor_files import (
    by_our_names,
    check_fixed,
    check_sizes,
    check_tensors,
    read_safetensors,
)
from mi_crow.store.json_file import read_object
from mi_crow.store.json_object import JsonObject

FORMAT = LLAMASCOPIUM.format

# By tool: encoder, its bias, decoder, its bias, logarithm of the threshold.
_LINEAR = (
    "encoder.weight",
    "encoder.bias",
    "decoder.weight",
    "decoder.bias",
    "log_jumprelu_threshold",
)
_PLAIN = ("W_E", "b_E", "W_D", "b_D", "activation_function.log_jumprelu_threshold")
_RULES = {"relu": "standard", "jumprelu": "jumprelu", "topk": "topk"}
_TRANSCODER_RULES = {
    "relu": "transcoder",
    "jumprelu": "jumprelu_transcoder",
    "topk": "topk_transcoder",
}
# The only supported values of these keys, which may be missing.
_FIXED = {
    "use_glu_encoder": False,
    "apply_decoder_bias_to_pre_encoder": False,
}
_NORMALISED, _CLT, _BIAS = "dataset-wise", "clt", "use_decoder_bias"
_KINDS = {
    "crosscoder": "a crosscoder of Llamascopium",
    "lorsa": "a low-rank sparse attention (Lorsa) of Llamascopium",
    "molt": "a mixture of linear transforms (MOLT) of Llamascopium",
}


def read_llamascopium(folder: Path) -> SaeRecord | CrossLayerRecord:
    """The SAE or transcoder in `folder`, of one layer or across layers.

    Raises UserError for a kind, rule or tensors that are not known, CorruptDataError when the files
    do not fit each other.
    """
    path, weights = folder / LLAMASCOPIUM.config, folder / LLAMASCOPIUM.weights
    cfg = read_object(path, unique_keys=True)
    if set(cfg.values) >= SAELENS_KEYS and "act_fn" not in cfg.values:
        raise UserError(
            f"{path} is SAELens', which is called {SAELENS.config} there",
            hint=f"call it {SAELENS.config}",
        )
    scaled = _checked(cfg, path)
    found = read_safetensors(weights)
    if cfg.text("sae_type", "sae") == _CLT:
        check_fixed(cfg, {_BIAS: True})
        return read_llamascopium_clt(cfg, found, weights, scaled)
    rule, transcodes = _checked_rule(cfg, path)
    norms = {name: ref for name, ref in found.items() if name.startswith(NORM)}
    plain = "W_E" in found
    names = _PLAIN if plain else _LINEAR
    required = names if rule == "jumprelu" else names[:4]
    rest = {name: ref for name, ref in found.items() if name not in norms}
    if not cfg.flag(_BIAS, True) and names[3] not in rest:
        rest[names[3]] = _no_bias(rest, names[2], width=1 if plain else 0)
    check_tensors(rest, required, weights, FORMAT)
    tensors = by_our_names(rest, names, transposed=["encoder_rows" if plain else "W_dec"])
    by_norm = cfg.flag("sparsity_include_decoder_norm", False)
    if rule == "jumprelu":
        tensors["threshold"] = _threshold(rest[names[4]], tensors["W_dec"] if by_norm else None)
    check_sizes(cfg, {"d_model": tensors["encoder_rows"].shape[1]})
    # TopK compares latents: by what each adds, which unit decoder rows give.
    rescales = by_norm and rule == "topk"
    hook_in = cfg.text("hook_point_in")
    hook_out = cfg.text("hook_point_out", hook_in)
    folded = (*(("input_scale",) if scaled else ()), *(("decoder_norms",) if rescales else ()))
    return SaeRecord(
        (_TRANSCODER_RULES if transcodes else _RULES)[rule],
        tensors,
        origin("", hook_in, hook_out if transcodes else None, folded=folded),
        k=cfg.integer("top_k", least=1) if rule == "topk" else None,
        apply_b_dec_to_input=False,
        input_scale=scale_of(norms, hook_in, tensors["encoder_rows"].shape[1], weights)
        if scaled
        else None,
        output_scale=scale_of(norms, hook_out, tensors["W_dec"].shape[1], weights)
        if scaled and transcodes
        else None,
        decoder_norms=rescales,
        format=FORMAT if plain else "Llama-Scope-R1-Distill",
    )


def _checked(cfg: JsonObject, path: Path) -> bool:
    """Whether inputs and outputs are scaled. Raises UserError for a kind and options that are not
    known."""
    kind = cfg.text("sae_type", "sae")
    if kind not in ("sae", _CLT):
        raise UserError(
            f"{path} describes {_KINDS.get(kind, repr(kind))}, which this version does not read",
            hint="it reads SAEs, transcoders and cross-layer transcoders",
        )
    check_fixed(cfg, _FIXED)
    norm = cfg.text("norm_activation", _NORMALISED)
    if norm not in (_NORMALISED, "inference", "none"):
        raise UserError(
            f"{path} normalises activations by {norm!r}, which cannot be read",
            hint=f"supported: {_NORMALISED}, none",
        )
    return norm == _NORMALISED


def _checked_rule(cfg: JsonObject, path: Path) -> tuple[str, bool]:
    """The activation function, and whether it is a transcoder."""
    rule = cfg.text("act_fn")
    if rule not in _RULES:
        raise UserError(
            f"{path} has the activation {rule!r}, which cannot be read",
            hint=f"supported: {', '.join(_RULES)}",
        )
    hook_in = cfg.text("hook_point_in")
    return rule, hook_in != cfg.text("hook_point_out", hook_in)


def _no_bias(found: Mapping[str, TensorRef], decoder: str, width: int) -> TensorRef:
    """A decoder bias of zeros; `width` is the decoder's dimension that is as wide as the output."""
    shape = found[decoder].shape if decoder in found else ()
    return TensorRef.of(torch.zeros(shape[width] if len(shape) == 2 else 0))


def _threshold(logarithm: TensorRef, decoder: TensorRef | None) -> TensorRef:
    """exp(logarithm) [M] for the pre-activations: h n > t is h > t / n for a row of norm n."""

    def read(value: Tensor) -> Tensor:
        threshold = value.float().exp()
        if decoder is None:
            return threshold
        norms = torch.linalg.vector_norm(decoder.read().float(), dim=1)
        return threshold / norms  # infinite for a row of zeros, which adds nothing

    return logarithm.map(read)
