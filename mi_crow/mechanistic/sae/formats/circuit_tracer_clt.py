"""Reading circuit-tracer's CLTs: `W_enc_<i>` and `W_dec_<i>.safetensors` and `config.yaml`.

z_i = ReLU(x_i W_enc_i^T + b_enc_i), or with a threshold h [h > threshold_i]; y_j = b_dec_j + sum
over i <= j of z_i W_dec_i[:, j - i]. `config.yaml` names the hook points by their names in
TransformerLens.
"""

from collections.abc import Sequence
from pathlib import Path

from mi_crow.errors import UserError
from mi_crow.mechanistic.sae.cross_layer.record import TRANSCODER, CrossLayerRecord, LayerRecord
from mi_crow.mechanistic.sae.formats.circuit_tracer import check_rule
from mi_crow.mechanistic.sae.formats.marks import CIRCUIT_TRACER_CLT
from mi_crow.mechanistic.sae.formats.tensor_files import (
    check_all_there,
    check_decoders,
    check_tensors,
    read_safetensors,
)
from mi_crow.mechanistic.sae.formats.yaml_file import read_yaml
from mi_crow.mechanistic.sae.hook_names import point_of
from mi_crow.mechanistic.sae.metadata import SaeMetadata

_ENCODED = ("W_enc", "b_enc", "b_dec")


def read_clt(folder: Path, files: Sequence[str]) -> CrossLayerRecord:
    """The transcoder in `folder`, of which `files` are the weights. Raises UserError for another
    kind of set and unknown tensors, CorruptDataError where files are missing or do not fit."""
    cfg = read_yaml(folder / CIRCUIT_TRACER_CLT.config)
    kind = cfg.text("model_kind", "cross_layer_transcoder")
    if kind != "cross_layer_transcoder":
        raise UserError(f"{cfg.place} describes a {kind!r}, which is not a cross-layer transcoder")
    check_rule(cfg)
    n = sum(file.startswith("W_enc_") for file in files)
    wanted = {f"W_{half}_{at}.safetensors" for half in ("enc", "dec") for at in range(n)}
    check_all_there(folder, wanted or {"W_enc_0.safetensors"}, files)
    hooks = cfg.text("feature_input_hook"), cfg.text("feature_output_hook")
    layers = tuple(_layer(folder, at, n, hooks) for at in range(n))
    metadata = SaeMetadata(model_name=cfg.text("model_name", ""))
    record = CrossLayerRecord(TRANSCODER, layers, metadata, format=CIRCUIT_TRACER_CLT.format)
    return record.checked(str(folder))


def _layer(folder: Path, at: int, n: int, hooks: tuple[str, str]) -> LayerRecord:
    path, other = (folder / f"W_{half}_{at}.safetensors" for half in ("enc", "dec"))
    found = {name.removesuffix(f"_{at}"): ref for name, ref in read_safetensors(path).items()}
    check_tensors(found, _ENCODED, path, CIRCUIT_TRACER_CLT.format, ("threshold",))
    decoders = read_safetensors(other)
    name = f"W_dec_{at}"
    if decoders.keys() != {name}:
        raise UserError(f"{other} holds {', '.join(sorted(decoders)) or 'nothing'}, not {name}")
    decoder = decoders[name]
    check_decoders(decoder, n - at, name, other)
    read, written = (f"blocks.{at}.{hook}" for hook in hooks)
    return LayerRecord(
        at,
        point_of(read) or read,
        point_of(written) or written,
        found["W_enc"],
        found["b_enc"],
        {to: decoder.at(1, to - at) for to in range(at, n)},
        found["b_dec"],
        found.get("threshold"),
    )
