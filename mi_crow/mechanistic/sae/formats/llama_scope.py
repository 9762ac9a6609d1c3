"""Reading Llama Scope: `hyperparams.json` beside `checkpoints/final.safetensors`.

z = pre [pre > s jump_relu_threshold], pre = s x W^T + b, x_hat = (z W_dec + b_dec) / s with
s = sqrt(d) / the data set's mean norm: the threshold is in units of the plain activations, as
OpenMOSS' own loader compared it (lm_saes at 8c61d1d7, post_processing.py) and SAELens does. s is
folded into the biases and the threshold. The output of a transcoder has its own factor.
"""

import math
from pathlib import Path

import torch

from mi_crow.mechanistic.sae.cross_layer.refs import TensorRef
from mi_crow.mechanistic.sae.formats.marks import LLAMA_SCOPE
from mi_crow.mechanistic.sae.formats.record import SaeRecord
from mi_crow.mechanistic.sae.formats.tensor_files import (
    by_our_names,
    check_fixed,
    check_sizes,
    check_tensors,
    read_safetensors,
)
from mi_crow.mechanistic.sae.hook_names import hook_name_of, point_of
from mi_crow.mechanistic.sae.metadata import SaeMetadata
from mi_crow.store.json_file import read_object
from mi_crow.store.json_object import JsonObject

FORMAT, CONFIG_NAME, WEIGHTS_NAME = LLAMA_SCOPE

_TENSORS = ("encoder.weight", "encoder.bias", "decoder.weight", "decoder.bias")
# The only supported values of these keys, which may be missing.
_RULE = {
    "act_fn": "jumprelu",
    "norm_activation": "dataset-wise",
    "use_decoder_bias": True,
    "apply_decoder_bias_to_pre_encoder": False,
    "use_glu_encoder": False,
}
_LEAST_NORM = 1e-6  # of a data set's activations: less is not plausible
_UNIT = 0.02  # tolerance for a decoder row of unit norm: bf16 rounds


def read_llama_scope(folder: Path) -> SaeRecord:
    """The SAE in `folder`.

    Raises UserError for a rule or tensors that are not known, CorruptDataError when the files do
    not fit each other.
    """
    path = folder / CONFIG_NAME
    cfg = read_object(path, unique_keys=True)
    threshold = cfg.number("jump_relu_threshold")
    norms = cfg.object("dataset_average_activation_norm")
    mean_in = norms.number("in", least=_LEAST_NORM)
    mean_out = norms.number("out", mean_in, least=_LEAST_NORM)
    point_in, point_out = cfg.text("hook_point_in", None), cfg.text("hook_point_out", None)
    check_fixed(cfg, _RULE)
    tensors = read_safetensors(folder / WEIGHTS_NAME)
    check_tensors(tensors, _TENSORS, folder / WEIGHTS_NAME, FORMAT)
    n_latents, d = tensors["encoder.weight"].shape
    check_sizes(cfg, {"d_model": d, "d_sae": n_latents})
    scale = math.sqrt(d) / mean_in
    transcodes = point_out is not None and point_out != point_in
    return SaeRecord(
        "jumprelu_transcoder" if transcodes else "jumprelu",
        {
            **by_our_names(tensors, _TENSORS, transposed=["W_dec"]),
            "threshold": TensorRef.of(torch.full((n_latents,), threshold * scale)),
        },
        _metadata(folder, point_in, point_out if transcodes else None),
        apply_b_dec_to_input=False,
        input_scale=scale,
        output_scale=math.sqrt(d) / mean_out if transcodes else None,
        assumed=_assumed(cfg, tensors["decoder.weight"]),
    )


def _metadata(folder: Path, point_in: str | None, point_out: str | None) -> SaeMetadata:
    hook = point_in or ""
    point = point_of(hook)
    other = {}
    if point_out is not None:
        other = {"hook_name_out": point_out, "target_layer": point_of(point_out) or point_out}
    return SaeMetadata(
        model_name="meta-llama/Llama-3.1-8B" if "Llama3_1-8B-Base" in str(folder) else "",
        hook_name=hook_name_of(point, hook),
        point=point,
        folded=("input_scale",),
        other=other,
    )


def _assumed(cfg: JsonObject, decoder: TensorRef) -> tuple[str, ...]:
    """The published decoders have unit rows, so it does not matter whether the threshold applies to
    a latent or to what it adds."""
    if not cfg.flag("sparsity_include_decoder_norm", False):
        return ()
    norms = torch.linalg.vector_norm(decoder.read().float(), dim=0)
    if bool(((norms - 1).abs() < _UNIT).all()):
        return ()
    return (
        "the decoder's rows are not of unit norm: the threshold is assumed to be for the latents",
    )
