"""Reading the SAELens layout, which is also that of a workspace.

z = act((norm(x) - b_dec) W_enc + b_enc), x_hat = denorm(z W_dec + b_dec), from `cfg.json` beside
`sae_weights.safetensors`.
"""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from mi_crow.errors import CorruptDataError, UserError
from mi_crow.language_model.model_names import hub_model
from mi_crow.mechanistic.sae.architectures import BY_SAELENS_NAME
from mi_crow.mechanistic.sae.cross_layer.record import CrossLayerRecord
from mi_crow.mechanistic.sae.cross_layer.refs import TensorRef
from mi_crow.mechanistic.sae.formats.cross_layer_file import is_cross_layer, read_cross_layer
from mi_crow.mechanistic.sae.formats.marks import SAELENS
from mi_crow.mechanistic.sae.formats.record import SaeRecord
from mi_crow.mechanistic.sae.formats.saelens_config import SaelensConfig, read_config
from mi_crow.mechanistic.sae.formats.saelens_names import SCALER_NAME
from mi_crow.mechanistic.sae.formats.tensor_files import check_tensors, read_safetensors
from mi_crow.mechanistic.sae.metadata import CONFIG_NAME, WEIGHTS_NAME, SaeMetadata
from mi_crow.store.json_file import read_object

FORMAT = SAELENS.format
UNKNOWN_KEYS = "unknown_keys"  # in `metadata`: the unknown keys of cfg.json
_LONGEST_KEY = 60

_SCALAR = "expected_average_only_in"
_BY_TOKEN = ("none", "constant_norm_rescale", "layer_norm")


def read_saelens(folder: Path) -> SaeRecord | CrossLayerRecord:
    """The SAE in `folder`, which may also be one of ours over several layers.

    Raises NotFoundError for a missing file, UserError naming what this version does not know,
    CorruptDataError when the files do not fit each other.
    """
    if is_cross_layer(read_object(folder / CONFIG_NAME)):
        return read_cross_layer(folder)
    cfg = read_config(folder / CONFIG_NAME)
    scale = _input_scale(cfg, folder)
    tensors = _renamed(cfg, _read_tensors(cfg, folder / WEIGHTS_NAME))
    metadata = SaeMetadata.from_json(dict(cfg.metadata.values), cfg.metadata.place)
    if cfg.unknown:
        metadata = replace(metadata, other={**metadata.other, UNKNOWN_KEYS: cfg.unknown})
    ours = "mi_crow" in cfg.metadata
    model_name = metadata.model_name if ours else hub_model(metadata.model_name)
    folded = (
        *metadata.folded,
        *(("input_scale",) if cfg.normalisation == _SCALAR else ()),
        *(("decoder_norms",) if cfg.rescales else ()),
    )
    return SaeRecord(
        cfg.architecture,
        tensors,
        replace(metadata, model_name=model_name, folded=folded),
        k=cfg.k,
        widths=cfg.widths,
        options=cfg.options,
        # Transcoders of SAELens subtract nothing; ours, imported from other tools, may.
        apply_b_dec_to_input=cfg.apply_b_dec_to_input and (not cfg.transcodes or ours),
        input_norm="none" if cfg.normalisation == _SCALAR else cfg.normalisation,
        dtype=cfg.dtype,
        input_scale=scale,
        wants_input_scale=cfg.normalisation == _SCALAR,
        decoder_norms=cfg.rescales,
        notes=_notes(cfg),
    )


def _notes(cfg: SaelensConfig) -> tuple[str, ...]:
    if not cfg.unknown:
        return ()
    return (
        f"{CONFIG_NAME} has {', '.join(map(_shown, cfg.unknown))}, which this version does not "
        "know: kept in the metadata, assumed to be about its training",
    )


def _shown(key: str) -> str:
    return key if key.isprintable() and len(key) <= _LONGEST_KEY else f"{key[:_LONGEST_KEY]!r}..."


def _input_scale(cfg: SaelensConfig, folder: Path) -> float | None:
    """The factor in the file beside a checkpoint. Raises UserError for an unknown normalisation."""
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
    found = read_object(path, unique_keys=True)
    if "scaling_factor" not in found.values:
        raise CorruptDataError(f"{path} has no scaling factor")
    return found.number("scaling_factor", None)


def _read_tensors(cfg: SaelensConfig, path: Path) -> dict[str, TensorRef]:
    """The tensors of the architecture, by their names in the file."""
    found = read_safetensors(path)
    if "log_threshold" in found and "threshold" not in found:
        found["threshold"] = found.pop("log_threshold").map(torch.exp)
    _drop_ones(found, cfg, path)
    required = _tensors_of(cfg.name)
    skip = ("W_skip",) if "skip_" in cfg.name else ()
    check_tensors(found, (*required, *skip), path, f"SAELens for {cfg.name!r}")
    d_out = cfg.d_out if cfg.d_out is not None else found["W_dec"].shape[1]
    d_out = d_out if cfg.transcodes else cfg.d_in
    shapes = {
        **({"W_enc": (cfg.d_in, cfg.d_sae)} if "W_enc" in required else {}),
        "W_dec": (cfg.d_sae, d_out),
        "b_dec": (d_out,),
        **({"W_skip": (d_out, cfg.d_in)} if skip else {}),
    }
    for name, shape in shapes.items():
        if found[name].shape != shape:
            raise CorruptDataError(
                f"{path} holds {found[name].shape} for {name}, {CONFIG_NAME} says {shape}"
            )
    return found


def _tensors_of(name: str) -> tuple[str, ...]:
    """What a file of this architecture holds, a skip connection aside."""
    kind = BY_SAELENS_NAME[name].load()
    own = kind.encoder_tensors
    if kind.stored_as is not None:  # saved by SAELens in training, with one threshold for all
        own = tuple("topk_threshold" if one == "threshold" else one for one in own)
    return (*(() if kind.tied else ("W_enc",)), *own, "W_dec", "b_dec")


def _drop_ones(found: dict[str, TensorRef], cfg: SaelensConfig, path: Path) -> None:
    """Old files have a `scaling_factor` of ones, which has no effect."""
    factor = found.pop("scaling_factor", None)
    if factor is None:
        return
    values = factor.read()
    ones = values.is_floating_point() and bool((values == 1).all())
    if not ones or factor.shape != (cfg.d_sae,):
        raise UserError(f"{path} holds a scaling_factor other than one, which cannot be read")


def _renamed(cfg: SaelensConfig, found: dict[str, TensorRef]) -> dict[str, TensorRef]:
    """The same tensors by our names, in our layout."""
    tensors = {name: ref for name, ref in found.items() if name not in ("W_enc", "topk_threshold")}
    if "W_enc" in found:
        tensors["encoder_rows"] = found["W_enc"].t()
    if "topk_threshold" in found:
        tensors["threshold"] = TensorRef((cfg.d_sae,), lambda: _for_each_latent(cfg, found))
    return tensors


def _for_each_latent(cfg: SaelensConfig, found: dict[str, TensorRef]) -> Tensor:
    """The single threshold of a BatchTopK SAE saved in training, repeated for every latent."""
    threshold = found["topk_threshold"].read().float().clamp_min(0).expand(cfg.d_sae)
    if not cfg.rescales:
        return threshold
    # It is in units of rescaled pre-activations: `fold_decoder_norms` will multiply by the norms.
    norms = torch.linalg.vector_norm(found["W_dec"].read().float(), dim=1)
    return threshold / norms
