"""Reading and writing the files of EleutherAI's sparsify: one folder per hook point.

z = top-k (or group-max) of relu((x - b_dec) W^T + b), x_hat = z W_dec + b_dec. Transcoders do not
subtract b_dec, and may add x W_skip^T.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from mi_crow.errors import CorruptDataError, UserError
from mi_crow.mechanistic.sae.base import SparseAutoencoder
from mi_crow.mechanistic.sae.formats.marks import SAELENS, SAELENS_KEYS, SPARSIFY
from mi_crow.mechanistic.sae.formats.record import SaeRecord
from mi_crow.mechanistic.sae.formats.saelens_config import refuse_unknown
from mi_crow.mechanistic.sae.formats.tensor_files import (
    by_our_names,
    check_tensors,
    read_safetensors,
)
from mi_crow.mechanistic.sae.hook_names import hook_name_of, module_of, point_of
from mi_crow.mechanistic.sae.metadata import SaeMetadata
from mi_crow.mechanistic.sae.rules.topk import TopKSae
from mi_crow.store.atomic import write_json
from mi_crow.store.json_file import read_json, read_object
from mi_crow.store.json_object import JsonObject

FORMAT, CONFIG_NAME, WEIGHTS_NAME = SPARSIFY

_KEYS = frozenset(
    [
        "activation",
        "d_in",
        "expansion_factor",
        "k",
        "multi_topk",
        "normalize_decoder",
        "num_latents",
        "signed",
        "skip_connection",
        "transcode",
    ]
)
_TENSORS = ("encoder.weight", "encoder.bias", "W_dec", "b_dec")
_ACTIVATIONS = ("topk", "groupmax")


def read_sparsify(folder: Path, place: str, run: Path | None) -> SaeRecord:
    """The SAE in `folder`; `place` is its hook point's name in the run, e.g. `layers.10.mlp` or
    `layers.10/seed1`, and `run` the file that describes the run.

    Raises UserError naming what is unknown, CorruptDataError when the files do not fit each other.
    """
    path = folder / CONFIG_NAME
    cfg = read_object(path, unique_keys=True)
    if set(cfg.values) >= SAELENS_KEYS:
        raise UserError(
            f"{path} is SAELens', whose weights are called {SAELENS.weights}, not {WEIGHTS_NAME}",
            hint=f"call them {SAELENS.weights}",
        )
    tensors = read_safetensors(folder / WEIGHTS_NAME)
    activation = _activation(cfg, path)
    k, d_in = cfg.integer("k", least=1), cfg.integer("d_in", least=1)
    n_latents = cfg.integer("num_latents", 0, least=0)
    n_latents = n_latents or d_in * cfg.integer("expansion_factor", least=1)
    transcode, skip = cfg.flag("transcode", False), cfg.flag("skip_connection", False)
    names = (*_TENSORS, *(("W_skip",) if skip else ()))
    check_tensors(tensors, names, folder / WEIGHTS_NAME, FORMAT)
    found = tensors["encoder.weight"].shape
    if found != (n_latents, d_in):
        raise CorruptDataError(
            f"{folder / WEIGHTS_NAME} holds {found} for encoder.weight, {CONFIG_NAME} says "
            f"{(n_latents, d_in)}"
        )
    return SaeRecord(
        activation + ("_transcoder" if transcode or skip else ""),
        by_our_names(tensors, _TENSORS) | ({"W_skip": tensors["W_skip"]} if skip else {}),
        _metadata(place, run, transcode or skip),
        k=k,
        # Files without the key `transcode` are from before 2025-02-12, when sparsify's transcoders
        # subtracted b_dec from their input too, as its loader still does for them.
        apply_b_dec_to_input=not transcode,
    )


def _activation(cfg: JsonObject, path: Path) -> str:
    """The activation function. Raises UserError for an unknown one, or an unknown key."""
    refuse_unknown(set(cfg) - _KEYS, path)
    activation = cfg.text("activation", "topk")
    if activation not in _ACTIVATIONS:
        raise UserError(
            f"{path} has the activation {activation!r}, which is not known",
            hint=f"known: {', '.join(_ACTIVATIONS)}",
        )
    if cfg.flag("signed", False):
        raise UserError(f"{path} describes a signed SAE, which cannot be read")
    return activation


def _metadata(place: str, run: Path | None, transcode: bool) -> SaeMetadata:
    """The hook point is a module of the model without its head, e.g. `layers.10.mlp`."""
    module = next((part for part in reversed(place.split("/")) if point_of(part)), "")
    found = read_json(run) if run is not None else {}
    found = found if isinstance(found, dict) else {}
    model, revision, length = (found.get(key) for key in ("model", "revision", "ctx_len"))
    point = point_of(module)
    about: dict[str, Any] = {
        "model_name": model if isinstance(model, str) else "",
        "revision": revision if isinstance(revision, str) else None,
        "context_size": length if isinstance(length, int) else None,
    }
    if transcode:  # from the module's input to its output
        other = {"hook_name_out": hook_name_of(point, module), "target_layer": point}
        point, module = point_of(f"{module}.input"), f"{module}.input"
        about |= {"other": other} if other["target_layer"] else {}
    return SaeMetadata(
        **about,
        hook_name=hook_name_of(point, module) if point else "",
        layer=module_of(module),
        point=point,
    )


def hookpoint_of(sae: SparseAutoencoder) -> str:
    """The folder's name in a run of sparsify: the module without the model's prefix; '' when
    unknown."""
    kind, _, number = sae.metadata.point.rpartition(".")
    if sae.transcodes:
        layer = sae.metadata.layer
        return layer.split(".", 1)[-1].removesuffix(".input") if layer.endswith(".input") else ""
    if kind == "resid_pre" and int(number) > 0:
        return f"layers.{int(number) - 1}"  # the block before it
    layer = sae.metadata.layer
    if layer and layer != sae.metadata.point and not layer.endswith(".input"):
        return layer.split(".", 1)[-1] if kind != "resid_pre" else ""
    return f"layers.{number}" if kind == "resid_post" else ""


def write_sparsify(sae: SparseAutoencoder, folder: Path) -> None:
    """Writes the SAE's two files into `folder`, which exists.

    Raises UserError for an SAE that sparsify does not support.
    """
    check_writable(sae)
    bias = sae.b_enc.detach()
    if sae.apply_b_dec_to_input == sae.transcodes:
        # In sparsify SAEs always subtract b_dec and transcoders never: fold it into the bias.
        shift = sae.encoder_rows.detach() @ sae.b_dec.detach()
        bias = bias - shift if sae.transcodes else bias + shift
    assert isinstance(sae, TopKSae)
    tensors = {
        "encoder.weight": sae.encoder_rows,
        "encoder.bias": bias,
        "W_dec": sae.W_dec,
        "b_dec": sae.b_dec,
    }
    if sae.W_skip is not None:
        tensors["W_skip"] = sae.W_skip
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(plain, folder / WEIGHTS_NAME)
    norms = torch.linalg.vector_norm(sae.W_dec.detach().float(), dim=1)
    cfg = {
        "activation": sae.architecture.removesuffix("_transcoder"),
        "expansion_factor": max(1, sae.n_latents // sae.n_inputs),
        "normalize_decoder": bool(torch.allclose(norms, torch.ones_like(norms), atol=1e-3)),
        "num_latents": sae.n_latents,
        "k": sae.k,
        "multi_topk": False,
        "skip_connection": sae.W_skip is not None,
        "transcode": sae.transcodes,
        "d_in": sae.n_inputs,
    }
    write_json(folder / CONFIG_NAME, cfg)


def check_writable(sae: SparseAutoencoder) -> None:
    """Raises UserError with the reason for an SAE that sparsify does not support."""
    kind = sae.architecture.removesuffix("_transcoder")
    if kind not in _ACTIVATIONS:
        raise UserError(
            f"sparsify has no SAEs of architecture {sae.architecture!r}",
            hint="leave out --format: the SAELens layout holds every architecture",
        )
    check_plain_input(sae, FORMAT)
    if sae.n_outputs != sae.n_inputs:
        raise UserError(
            f"sparsify has no transcoders from {sae.n_inputs} to {sae.n_outputs} dimensions"
        )


def check_plain_input(sae: SparseAutoencoder, tool: str) -> None:
    """Raises UserError for an SAE whose input is changed in ways that `tool` does not know."""
    if sae.centred:
        raise UserError(f"{tool} has no SAEs for centred activations (center_writing_weights)")
    if sae.input_norm != "none":
        raise UserError(f"{tool} has no SAEs with the input normalisation {sae.input_norm!r}")
