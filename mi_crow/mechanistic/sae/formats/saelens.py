"""Reading the SAELens layout, which is also ours.

z = act((norm(x) - b_dec) W_enc + b_enc), x_hat = denorm(z W_dec + b_dec), from `cfg.json` beside
`sae_weights.safetensors`.
"""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from mi_crow.errors import CorruptDataError, UserError
from mi_crow.mechanistic.sae.formats.model_names import hub_model
from mi_crow.mechanistic.sae.formats.record import SaeRecord, TensorRef
from mi_crow.mechanistic.sae.formats.saelens_config import SaelensConfig, read_config
from mi_crow.mechanistic.sae.formats.saelens_names import CONFIG_NAME, SCALER_NAME, WEIGHTS_NAME
from mi_crow.mechanistic.sae.formats.tensor_files import check_names, read_safetensors
from mi_crow.mechanistic.sae.metadata import SaeMetadata
from mi_crow.store.atomic import read_json

FORMAT = "SAELens"

_TENSORS = {
    "gated": ("W_enc", "b_gate", "b_mag", "r_mag", "W_dec", "b_dec"),
    "jumprelu": ("W_enc", "b_enc", "W_dec", "b_dec", "threshold"),
    "batchtopk": ("W_enc", "b_enc", "W_dec", "b_dec", "topk_threshold"),
}
_TENSORS["jumprelu_transcoder"] = _TENSORS["jumprelu_skip_transcoder"] = _TENSORS["jumprelu"]
_TENSORS["matryoshka_batchtopk"] = _TENSORS["batchtopk"]
_USUAL = ("W_enc", "b_enc", "W_dec", "b_dec")
_SCALAR = "expected_average_only_in"
_BY_TOKEN = ("none", "constant_norm_rescale", "layer_norm")


def read_saelens(folder: Path) -> SaeRecord:
    """The SAE in `folder`.

    Raises NotFoundError when a file is missing, UserError naming what this version does not know,
    CorruptDataError when the files do not fit each other.
    """
    cfg = read_config(folder / CONFIG_NAME)
    scale = _input_scale(cfg, folder)
    tensors = _renamed(cfg, _read_tensors(cfg, folder / WEIGHTS_NAME))
    metadata = SaeMetadata.from_json(cfg.metadata)
    folded = (
        *metadata.folded,
        *(("input_scale",) if cfg.normalisation == _SCALAR else ()),
        *(("decoder_norms",) if cfg.rescales else ()),
    )
    return SaeRecord(
        cfg.architecture,
        tensors,
        replace(metadata, model_name=_model_name(cfg, metadata), folded=folded),
        k=cfg.k,
        widths=cfg.widths,
        apply_b_dec_to_input=cfg.apply_b_dec_to_input and not cfg.transcodes,
        input_norm="none" if cfg.normalisation == _SCALAR else cfg.normalisation,
        dtype=cfg.dtype,
        input_scale=scale,
        wants_input_scale=cfg.normalisation == _SCALAR,
        decoder_norms=cfg.rescales,
    )


def _model_name(cfg: SaelensConfig, metadata: SaeMetadata) -> str:
    ours = "mi_crow" in cfg.metadata
    return metadata.model_name if ours else hub_model(metadata.model_name)


def _input_scale(cfg: SaelensConfig, folder: Path) -> float | None:
    """The factor that a checkpoint keeps beside the SAE. Raises UserError for a normalisation
    that is not known."""
    known = ("none",) if cfg.transcodes else (*_BY_TOKEN, _SCALAR)
    if cfg.normalisation not in known:
        raise UserError(
            f"an SAE of architecture {cfg.name!r} that normalises its input by "
            f"{cfg.normalisation!r} cannot be read",
            hint=f"supported: {', '.join(known)}",
        )
    path = folder / SCALER_NAME
    if cfg.normalisation != _SCALAR or not path.is_file():
        return None
    try:
        found = read_json(path)["scaling_factor"]
        return None if found is None else float(found)
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptDataError(f"{path} holds no scaling factor") from error


def _read_tensors(cfg: SaelensConfig, path: Path) -> dict[str, TensorRef]:
    """The tensors by the file's names, those that the architecture has."""
    found = read_safetensors(path)
    if "log_threshold" in found and "threshold" not in found:
        found["threshold"] = found.pop("log_threshold").map(torch.exp)
    _drop_ones(found, path)
    required = _TENSORS.get(cfg.name, _USUAL)
    skip = ("W_skip",) if "skip_" in cfg.name else ()
    check_names(found, (*required, *skip), path, f"SAELens for {cfg.name!r}")
    shapes = {"W_enc": (cfg.d_in, cfg.d_sae), "b_dec": (found["W_dec"].shape[-1],)}
    if not cfg.transcodes:
        shapes["W_dec"] = (cfg.d_sae, cfg.d_in)
    for name, shape in shapes.items():
        if found[name].shape != shape:
            raise CorruptDataError(
                f"{path} holds {found[name].shape} for {name}, {CONFIG_NAME} says {shape}"
            )
    return found


def _drop_ones(found: dict[str, TensorRef], path: Path) -> None:
    """Old files have a `scaling_factor` of ones, which does nothing."""
    factor = found.pop("scaling_factor", None)
    if factor is not None and not bool((factor.read() == 1).all()):
        raise UserError(f"{path} holds a scaling_factor other than one, which cannot be read")


def _renamed(cfg: SaelensConfig, found: dict[str, TensorRef]) -> dict[str, TensorRef]:
    """The same tensors as the classes name and hold them."""
    tensors = {name: ref for name, ref in found.items() if name not in ("W_enc", "topk_threshold")}
    tensors["encoder_rows"] = found["W_enc"].t()
    if "topk_threshold" in found:
        tensors["threshold"] = TensorRef((cfg.d_sae,), lambda: _for_each_latent(cfg, found))
    return tensors


def _for_each_latent(cfg: SaelensConfig, found: dict[str, TensorRef]) -> Tensor:
    """The one threshold of a BatchTopK SAE in training, for every latent."""
    threshold = found["topk_threshold"].read().float().clamp_min(0).expand(cfg.d_sae)
    if not cfg.rescales:
        return threshold
    # It is in units of the rescaled pre-activations; folding the norms will multiply it by them.
    norms = torch.linalg.vector_norm(found["W_dec"].read().float(), dim=1)
    return threshold / norms
