"""The SAELens layout, also our own: `cfg.json` beside `sae_weights.safetensors`."""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mi_crow.errors import CorruptDataError, NotFoundError, UserError
from mi_crow.mechanistic.sae.base import SparseAutoencoder
from mi_crow.mechanistic.sae.metadata import SaeMetadata
from mi_crow.mechanistic.sae.topk import TopKSae
from mi_crow.store.atomic import read_json, whole_file, write_json

CONFIG_NAME = "cfg.json"
WEIGHTS_NAME = "sae_weights.safetensors"
SUPPORTED = ("topk",)

_DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float64": torch.float64,
}
_TENSORS = ("W_enc", "b_enc", "W_dec", "b_dec")


def save_sae(sae: SparseAutoencoder, folder: Path) -> Path:
    """Writes the weights, then `cfg.json`: a folder that holds `cfg.json` is whole."""
    tensors = {
        "W_enc": sae.W_enc,
        "b_enc": sae.b_enc,
        "W_dec": sae.W_dec,
        "b_dec": sae.b_dec,
    }
    with whole_file(folder / WEIGHTS_NAME) as path:
        save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, path)
    write_json(folder / CONFIG_NAME, config_of(sae))
    return folder


def config_of(sae: SparseAutoencoder) -> dict[str, Any]:
    """`cfg.json` of an SAE."""
    return {
        "architecture": sae.architecture,
        "d_in": sae.n_inputs,
        "d_sae": sae.n_latents,
        **sae.config(),
        "dtype": str(sae.dtype).removeprefix("torch."),
        "device": "cpu",
        "apply_b_dec_to_input": sae.apply_b_dec_to_input,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": sae.metadata.as_json(),
    }


def read_saelens(folder: Path, device: str | torch.device = "cpu") -> SparseAutoencoder:
    """The SAE in `folder`.

    Raises NotFoundError when a file is missing, UserError for what this version cannot read,
    CorruptDataError when the files do not fit each other.
    """
    cfg = _plain_config(read_json(folder / CONFIG_NAME), folder)
    _refuse_unsupported(cfg)
    tensors = _tensors(folder / WEIGHTS_NAME, cfg)
    if cfg.get("rescale_acts_by_decoder_norm"):
        _fold_decoder_norms(tensors)
    sae = TopKSae(cfg["d_sae"], cfg["d_in"], cfg["k"], device=device, dtype=_dtype(cfg, tensors))
    with torch.no_grad():
        sae.encoder_rows.copy_(tensors["W_enc"].t())
        for name in ("b_enc", "W_dec", "b_dec"):
            getattr(sae, name).copy_(tensors[name])
    sae.apply_b_dec_to_input = bool(cfg["apply_b_dec_to_input"])
    sae.metadata = SaeMetadata.from_json(cfg["metadata"])
    return sae.eval().requires_grad_(False)


def _plain_config(cfg: Any, folder: Path) -> dict[str, Any]:
    """The keys we read, checked; `architecture` and `metadata` always present."""
    try:
        plain = {"apply_b_dec_to_input": True, "normalize_activations": "none", **cfg}
        plain["d_in"], plain["d_sae"] = int(cfg["d_in"]), int(cfg["d_sae"])
        plain["architecture"] = str(cfg["architecture"])
        plain["metadata"] = dict(cfg.get("metadata") or {})
        if plain["architecture"] == "topk":
            plain["k"] = int(cfg["k"])
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptDataError(
            f"{folder / CONFIG_NAME} does not describe an SAE ({error!r})"
        ) from error
    return plain


def _refuse_unsupported(cfg: dict[str, Any]) -> None:
    if cfg["architecture"] not in SUPPORTED:
        raise UserError(
            f"SAEs of architecture {cfg['architecture']!r} cannot be read",
            hint=f"supported: {', '.join(SUPPORTED)}",
        )
    normalisation = cfg["normalize_activations"]
    if normalisation not in (None, "none"):
        raise UserError(
            f"an SAE that normalises its input by {normalisation!r} cannot be read",
            hint="supported: none",
        )


def _tensors(path: Path, cfg: dict[str, Any]) -> dict[str, Tensor]:
    if not path.is_file():
        raise NotFoundError(f"no file {path}")
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise CorruptDataError(f"{path} is not a safetensors file ({error})") from error
    d, m = cfg["d_in"], cfg["d_sae"]
    shapes = {"W_enc": (d, m), "b_enc": (m,), "W_dec": (m, d), "b_dec": (d,)}
    for name in _TENSORS:
        found = tuple(tensors[name].shape) if name in tensors else "nothing"
        if found != shapes[name]:
            raise CorruptDataError(
                f"{path} holds {found} for {name}, {CONFIG_NAME} says {shapes[name]}"
            )
    return tensors


def _fold_decoder_norms(tensors: dict[str, Tensor]) -> None:
    """Pre-activations times the decoder norms, undone before decoding: put into the weights."""
    norms = tensors["W_dec"].norm(dim=1)
    tensors["W_enc"] = tensors["W_enc"] * norms
    tensors["b_enc"] = tensors["b_enc"] * norms
    tensors["W_dec"] = tensors["W_dec"] / norms[:, None]


def _dtype(cfg: dict[str, Any], tensors: dict[str, Tensor]) -> torch.dtype:
    return _DTYPES.get(str(cfg.get("dtype")).removeprefix("torch."), tensors["W_dec"].dtype)
