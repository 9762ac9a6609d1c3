"""Reading Gemma Scope: `layer_<L>/width_<w>/average_l0_<n>/params.npz`.

z = pre [pre > threshold], pre = x W_enc + b_enc; x_hat = z W_dec + b_dec. Nothing is subtracted.
SAEs of the embedding (`embedding/width_<w>/..`) are for rows of the embedding matrix. The input of
the first block is sqrt(d) times as large: there they become W_enc / sqrt(d), sqrt(d) W_dec and
sqrt(d) b_dec. Transcoders, which only the repository's name tells from SAEs, read the norm before
the MLP without its gain and predict the output of the norm after it.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from mi_crow.mechanistic.sae.cross_layer.refs import TensorRef
from mi_crow.mechanistic.sae.formats.marks import GEMMA_SCOPE
from mi_crow.mechanistic.sae.formats.origins import origin
from mi_crow.mechanistic.sae.formats.record import SaeRecord
from mi_crow.mechanistic.sae.formats.tensor_files import by_our_names, check_tensors, read_npz
from mi_crow.mechanistic.sae.hook_names import hook_name_of
from mi_crow.mechanistic.sae.metadata import SaeMetadata

FORMAT = GEMMA_SCOPE.format

_TENSORS = ("W_enc", "b_enc", "W_dec", "b_dec", "threshold")
_EMBEDDING = re.compile(r"(?:^|/)embedding(?:/|$)")
_EMBEDDED = "resid_pre.0"
_TRANSCODER = re.compile(r"gemma-scope-[^/]*transcoders?(?:/|$)")
_LAYER = re.compile(r"(?:^|/)layer_(\d+)(?:/|$)")
_POINTS = {"res": "resid_post", "mlp": "mlp_out", "att": "z"}


def read_gemma_scope(path: Path, place: str) -> SaeRecord:
    """The SAE in `path`; `place` is where it came from, with its layer and, where there is one,
    the repository's name (`gemma-scope-2b-pt-res`). Raises UserError naming unknown arrays."""
    return of_arrays(read_npz(path), path, place)


def of_arrays(arrays: Mapping[str, TensorRef], path: Path, place: str) -> SaeRecord:
    """The same of the arrays in `path`."""
    check_tensors(arrays, _TENSORS, path, FORMAT)
    tensors = by_our_names(arrays, _TENSORS, transposed=["encoder_rows"])
    tensors["threshold"] = arrays["threshold"]
    if _TRANSCODER.search(place):
        return SaeRecord(
            "jumprelu_transcoder", tensors, _transcoder_origin(place), apply_b_dec_to_input=False
        )
    metadata, assumed = _origin(place)
    if _EMBEDDING.search(place):
        factor = math.sqrt(arrays["W_enc"].shape[0])
        tensors["encoder_rows"] = tensors["encoder_rows"].map(lambda rows: rows / factor)
        for name in ("W_dec", "b_dec"):
            tensors[name] = tensors[name].map(lambda value: value * factor)
        metadata = replace(
            metadata, hook_name=hook_name_of(_EMBEDDED, ""), point=_EMBEDDED, folded=("embedding",)
        )
    return SaeRecord("jumprelu", tensors, metadata, apply_b_dec_to_input=False, assumed=assumed)


def _transcoder_origin(place: str) -> SaeMetadata:
    layer, size = _LAYER.search(place), re.search(r"gemma-scope-(\d+b)-", place)
    model = f"google/gemma-2-{size[1]}" if size is not None else ""
    if layer is None:
        return SaeMetadata(model_name=model, prepend_bos=True)
    hooks = (f"blocks.{layer[1]}.ln2.hook_normalized", f"blocks.{layer[1]}.hook_mlp_out")
    return origin(model, *hooks, prepend_bos=True)


def _origin(place: str) -> tuple[SaeMetadata, tuple[str, ...]]:
    layer = _LAYER.search(place)
    repository = re.search(r"gemma-scope-(\d+b)-(pt|it)-(res|mlp|att)", place)
    model = ""
    if repository is not None:
        model = f"google/gemma-2-{repository[1]}" + ("-it" if repository[2] == "it" else "")
    if layer is None or (repository is not None and repository[3] not in _POINTS):
        return SaeMetadata(model_name=model, prepend_bos=True), ()
    kind = _POINTS[repository[3]] if repository is not None else "resid_post"
    point = f"{kind}.{layer[1]}"
    metadata = SaeMetadata(
        model_name=model, hook_name=hook_name_of(point, ""), point=point, prepend_bos=True
    )
    if repository is not None:
        return metadata, ()
    return metadata, (f"layer_{layer[1]} is assumed to be {point}; choose another with --layer",)
