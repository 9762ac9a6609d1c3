"""Reading circuit-tracer's transcoder sets: `layer_<i>.safetensors` of each layer, `config.yaml`.

z = ReLU(x W_enc^T + b_enc), or with a threshold pre [pre > threshold]; y = z W_dec + b_dec
(+ x W_skip^T). `config.yaml` names the hook points of all layers by their names in TransformerLens.
"""

from pathlib import Path

from mi_crow.errors import UserError
from mi_crow.mechanistic.sae.formats.marks import CIRCUIT_TRACER
from mi_crow.mechanistic.sae.formats.origins import origin
from mi_crow.mechanistic.sae.formats.record import SaeRecord
from mi_crow.mechanistic.sae.formats.tensor_files import (
    by_our_names,
    check_tensors,
    read_safetensors,
)
from mi_crow.mechanistic.sae.formats.yaml_file import read_yaml
from mi_crow.store.json_object import JsonObject

FORMAT = CIRCUIT_TRACER.format

_RULES = ("", "relu", "jumprelu", "jump_relu")  # that the tensors say in full
_TENSORS = ("W_enc", "b_enc", "W_dec", "b_dec")
_THRESHOLD = "activation_function.threshold"
_SKIP = "W_skip"


def check_rule(cfg: JsonObject) -> None:
    """Raises UserError for an activation that the files do not say in full, such as TopK: its k is
    in circuit-tracer's code. Read as ReLU it would give other latents."""
    rule = cfg.text("activation", "")
    if rule.lower() not in _RULES:
        raise UserError(
            f"{cfg.place} names the activation {rule!r}, and not the rest of its rule",
            hint="read are relu, and jumprelu with the thresholds in the files",
        )


def read_transcoder(path: Path, config: Path, layer: int) -> SaeRecord:
    """The transcoder of `layer` in `path`. Raises UserError for another kind of set, unknown
    tensors, and weights that are in another repository."""
    cfg = read_yaml(config)
    kind = cfg.text("model_kind", "transcoder_set")
    if kind != "transcoder_set":
        raise UserError(f"{config} describes a {kind}, which is not a set of single transcoders")
    check_rule(cfg)
    found = read_safetensors(path)
    check_tensors(found, _TENSORS, path, FORMAT, (_SKIP, _THRESHOLD))
    tensors = by_our_names(found, _TENSORS)
    if _SKIP in found:
        tensors[_SKIP] = found[_SKIP]
    if _THRESHOLD in found:
        tensors["threshold"] = found[_THRESHOLD]
    hook_in, hook_out = cfg.text("feature_input_hook"), cfg.text("feature_output_hook")
    return SaeRecord(
        "jumprelu_transcoder" if _THRESHOLD in found else "transcoder",
        tensors,
        origin(
            cfg.text("model_name", ""), f"blocks.{layer}.{hook_in}", f"blocks.{layer}.{hook_out}"
        ),
        apply_b_dec_to_input=False,
    )
