"""Reading OpenSAE: `model.safetensors` beside `config.json` of the architecture `OpenSae`.

n(x) = (x - mean) / (std + eps) a token, std with n - 1; z = TopK(ReLU((n(x) - b_dec) W^T + b)),
x_hat = z W_dec + b_dec, times (std + eps) plus the mean. (THU-KEG/OpenSAE at 978f094.)
"""

from pathlib import Path

from mi_crow.errors import NotFoundError, UserError
from mi_crow.mechanistic.sae.formats.marks import OPENSAE
from mi_crow.mechanistic.sae.formats.origins import origin
from mi_crow.mechanistic.sae.formats.record import SaeRecord
from mi_crow.mechanistic.sae.formats.tensor_files import (
    by_our_names,
    check_sizes,
    check_tensors,
    read_safetensors,
)
from mi_crow.store.json_file import read_object

FORMAT = OPENSAE.format

_ARCHITECTURE = "OpenSae"
_TENSORS = ("encoder.weight", "encoder.bias", "W_dec", "b_dec")
_EPS = 1e-5  # of our own LayerNorm of tokens
_NORMALISED_OUTPUT = (
    "its own reconstruction stays normalised (normalize_shift_back is off); here it is in units of "
    "the activations"
)


def read_opensae(folder: Path) -> SaeRecord:
    """The SAE in `folder`. Raises NotFoundError where there is a model instead, UserError for a
    rule that is not known, CorruptDataError when the files do not fit each other."""
    path = folder / OPENSAE.config
    cfg = read_object(path, unique_keys=True)
    if _ARCHITECTURE not in cfg.texts("architectures", ()):
        raise NotFoundError(
            f"no SAE at {str(folder)!r}: its {OPENSAE.config} describes a model",
            hint="give the folder or repository of an SAE",
        )
    if (rule := cfg.text("activation", "topk")) != "topk":
        raise UserError(f"{path} has the activation {rule!r}, which cannot be read")
    normalises = cfg.flag("input_normalize", True)
    if normalises and cfg.number("input_normalize_eps", _EPS) != _EPS:
        raise UserError(
            f"{path} normalises with an eps of {cfg.values['input_normalize_eps']:g}, which cannot "
            f"be read",
            hint=f"supported: {_EPS:g}",
        )
    hook, target = cfg.text("input_hookpoint"), cfg.text("output_hookpoint", None)
    if target is not None and target != hook:
        raise UserError(f"{path} reads {hook} and writes {target}: a transcoder cannot be read")
    tensors = read_safetensors(folder / OPENSAE.weights)
    check_tensors(tensors, _TENSORS, folder / OPENSAE.weights, FORMAT)
    n_latents, width = tensors["encoder.weight"].shape
    check_sizes(cfg, {"hidden_size": width, "feature_size": n_latents})
    restores = not normalises or cfg.flag("normalize_shift_back", False)
    return SaeRecord(
        "topk",
        by_our_names(tensors, _TENSORS),
        origin(cfg.text("model_name", ""), f"model.{hook}"),
        k=cfg.integer("k", least=1),
        input_norm="layer_norm" if normalises else "none",
        notes=() if restores else (_NORMALISED_OUTPUT,),
    )
