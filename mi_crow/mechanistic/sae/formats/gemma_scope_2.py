"""Reading Gemma Scope 2: `<kind>[_all]/layer_<L>_width_<w>_l0_<size>/params.safetensors`.

z = pre [pre > threshold], pre = x w_enc + b_enc; x_hat = z w_dec + b_dec, for an affine transcoder
plus x A. Nothing is subtracted. `config.json` names the hook points as modules of transformers:
`mlp_out` is the norm after the MLP, `attn_out` the input of the output projection (z).
"""

import re
from pathlib import Path

from mi_crow.errors import CorruptDataError, UserError
from mi_crow.mechanistic.sae.formats.gemma_scope import of_arrays
from mi_crow.mechanistic.sae.formats.marks import GEMMA_SCOPE_2
from mi_crow.mechanistic.sae.formats.origins import origin
from mi_crow.mechanistic.sae.formats.record import SaeRecord
from mi_crow.mechanistic.sae.formats.tensor_files import (
    by_our_names,
    check_tensors,
    read_safetensors,
)
from mi_crow.mechanistic.sae.hook_names import point_of
from mi_crow.store.json_file import read_object
from mi_crow.store.json_object import JsonObject

FORMAT = GEMMA_SCOPE_2.format

TENSORS = ("w_enc", "b_enc", "w_dec", "b_dec", "threshold")
AFFINE = "affine_skip_connection"
_KINDS = ("sae", "transcoder")
_BEFORE, _AFTER = "pre_feedforward_layernorm", "post_feedforward_layernorm"
_FOLDER = re.compile(r"(?:^|/)layer_(\d+)(?:_width_[^/]*)?(?:/|$)")
_KIND_FOLDER = re.compile(r"(?:^|/)(resid_post|attn_out|mlp_out|transcoder)(?:_all)?/")
_REPOSITORY = re.compile(r"gemma-scope-2-(\d+(?:m|b))-(pt|it)")
# The hook points of each kind of folder, in and out: {} is the layer.
_POINTS = {
    "resid_post": ("resid_post.{}", "resid_post.{}"),
    "attn_out": ("z.{}", "z.{}"),
    "mlp_out": ("mlp_out.{}", "mlp_out.{}"),
    "transcoder": ("mlp_in.{}", "mlp_out.{}"),
}


def read_gemma_scope_2(path: Path, config: Path | None, place: str) -> SaeRecord:
    """The SAE or transcoder in `path`, described by `config`; without one, by the names in `place`,
    where it came from. Raises UserError naming unknown tensors, kinds and architectures."""
    found = read_safetensors(path)
    if "W_enc" in found and config is None and _KIND_FOLDER.search(f"{place}/") is None:
        return of_arrays(found, path, place)  # Gemma Scope 1, written again
    found = {name.lower(): ref for name, ref in found.items()}
    check_tensors(found, TENSORS, path, FORMAT, (AFFINE,))
    model, hook_in, hook_out = _named(place) if config is None else _described(config, place)
    point_in, point_out = point_of(hook_in) or hook_in, point_of(hook_out) or hook_out
    transcodes = point_in != point_out
    if AFFINE in found and not transcodes:
        raise UserError(f"{path} has an affine skip connection, but is not of a transcoder")
    tensors = by_our_names(found, TENSORS, transposed=["encoder_rows"])
    tensors["threshold"] = found["threshold"]
    if AFFINE in found:
        tensors["W_skip"] = found[AFFINE].t()
    return SaeRecord(
        "jumprelu_transcoder" if transcodes else "jumprelu",
        tensors,
        origin(model, point_in, point_out if transcodes else None, prepend_bos=True),
        apply_b_dec_to_input=False,
    )


def _described(config: Path, place: str) -> tuple[str, str, str]:
    """The model and the hook points, in and out, that the configuration names; for a model that it
    leaves out, the repository's."""
    cfg = read_object(config, unique_keys=True)
    kind = cfg.text("type", "sae")
    if kind not in _KINDS:
        raise UserError(
            f"{config} describes a {kind}, which is not a single SAE",
            hint=f"supported: {', '.join(_KINDS)}",
        )
    return origin_of(cfg, place, transcodes=kind == "transcoder")


def origin_of(cfg: JsonObject, place: str, *, transcodes: bool) -> tuple[str, str, str]:
    """The model and the hook points, in and out, by their names in a configuration; a `transcodes`
    kind has two. Raises UserError for one of another architecture, CorruptDataError for a
    transcoder that does not say what it predicts."""
    if (rule := cfg.text("architecture", "jump_relu")) != "jump_relu":
        raise UserError(f"{cfg.place} has the architecture {rule!r}, which cannot be read")
    hook_in = cfg.text("hf_hook_point_in")
    # All of Gemma Scope 2's transcoders predict what comes of the input that they read.
    hook_out = hook_in.replace(_BEFORE, _AFTER) if transcodes else hook_in
    hook_out = cfg.text("hf_hook_point_out", hook_out)
    if transcodes and hook_out == hook_in:
        raise CorruptDataError(f"{cfg.place} does not say which hook point its transcoder predicts")
    return cfg.text("model_name", "") or model_of(place), hook_in, hook_out


def _named(place: str) -> tuple[str, str, str]:
    """The same by the names of the repository and its folders; '' for what they do not say."""
    layer, kind, model = _FOLDER.search(place), _KIND_FOLDER.search(place), model_of(place)
    if layer is None or kind is None:
        return model, "", ""
    hook_in, hook_out = _POINTS[kind[1]]
    return model, hook_in.format(layer[1]), hook_out.format(layer[1])


def model_of(place: str) -> str:
    """The model that a repository `gemma-scope-2-<size>-<pt or it>` is of; '' for another."""
    repository = _REPOSITORY.search(place)
    if repository is None:
        return ""
    size, tuned = repository[1], repository[2] == "it"
    # The smallest base model is the only one without `-pt`.
    return f"google/gemma-3-{size}" + ("-it" if tuned else "" if size == "270m" else "-pt")
