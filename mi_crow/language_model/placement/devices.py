"""A model over several devices: how it is loaded there, and its weights as they are needed.

accelerate puts what fits onto each GPU in turn, then into host memory, then leaves it in the files.
It moves what a module reads to the module's device. What our hooks see moves the other way: to the
model's main device, where SAEs are, and back. Activations of a batch are megabytes, an SAE is
gigabytes.
"""

import copy
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from mi_crow.errors import UserError
from mi_crow.language_model.config import QUANTIZED, ModelSpec
from mi_crow.language_model.placement.memory import Expected
from mi_crow.language_model.placement.packages import check_packages, not_in
from mi_crow.store.free_space import available_memory, gigabytes
from mi_crow.store.settings import SPREAD

_OFFLOADED = ("cpu", "disk", "meta")


def placement(spec: ModelSpec, device: torch.device, gguf: bool) -> dict[str, Any]:
    """What `from_pretrained` is to be told so that weights go to their devices at once, without a
    copy in host memory; nothing where it has only to load them there.

    Raises UserError for a model that cannot be spread or quantized here.
    """
    spread, quantized = spec.device == SPREAD, spec.dtype in QUANTIZED
    check_packages(spec, gguf)
    if quantized and device.type not in ("cuda", "cpu"):
        raise UserError(f"{not_in(spec)} on {device.type}", hint="use --device cuda or cpu")
    at_once = spread or quantized or device.type == "cuda"
    if not at_once or gguf or find_spec("accelerate") is None:
        return {}
    options: dict[str, Any] = {"device_map": "auto" if spread else {"": device}}
    if quantized:
        from transformers import BitsAndBytesConfig

        options["quantization_config"] = BitsAndBytesConfig(
            load_in_8bit=spec.dtype == "8bit",
            load_in_4bit=spec.dtype == "4bit",
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
    return options


def check_room(
    spec: ModelSpec, weights: Expected | None, device: torch.device, split_over: int = 1
) -> None:
    """Raises UserError where `weights`, or the part of one of `split_over` processes, need more
    memory than `device` has left."""
    free = free_bytes(device)
    if spec.device == SPREAD or weights is None or free is None:
        return
    # Which the processes share.
    needed, dtype = weights.bytes // (1 if device.type == "cpu" else split_over), weights.dtype
    if needed <= free:
        return
    others = ["--device-map auto"] if device.type == "cuda" else []
    others += [] if dtype in ("bf16", "fp16", *QUANTIZED) else ["--model-dtype bf16"]
    others += [] if dtype in QUANTIZED else ["--quantize 8bit"]
    raise UserError(
        f"model {spec.model!r} takes {gigabytes(needed)} in {dtype}, {device} has "
        f"{gigabytes(free)} free",
        hint=f"use {', '.join([*others, 'another --device'])} or a smaller model",
    )


def free_bytes(device: torch.device) -> int | None:
    """Memory of `device` that nothing uses; None where that is not known."""
    if device.type == "cuda":
        torch.cuda.empty_cache()  # which is free for us, and in use for the driver
        return torch.cuda.mem_get_info(device)[0]
    return available_memory() if device.type == "cpu" else None


def main_device(model: Any, otherwise: torch.device) -> torch.device:
    """Where the inputs of a loaded model go, and what is kept beside it."""
    places = getattr(model, "hf_device_map", None) or {}
    for place in places.values():
        if str(place) not in _OFFLOADED:
            return torch.device(f"cuda:{place}" if isinstance(place, int) else place)
    return torch.device("cpu") if places else otherwise


def is_spread(model: Any) -> bool:
    """Whether a model's modules are on several devices, or in files."""
    places = getattr(model, "hf_device_map", None) or {}
    return len({str(place) for place in places.values()}) > 1


def weight_of(module: nn.Module, name: str) -> Tensor | None:
    """A module's own tensor with its contents, also where it is in a file until the module runs;
    None without one of that name."""
    found = getattr(module, name, None)
    if not isinstance(found, Tensor):
        return None
    kept = getattr(getattr(module, "_hf_hook", None), "weights_map", None)
    return kept[name] if found.is_meta and kept is not None else found


def at_home(module: nn.Module, device: torch.device) -> nn.Module:
    """The module itself if its weights are on `device`, else a copy with them there, which runs
    without accelerate."""
    own = dict(module.named_parameters(recurse=False))
    if all(one.device == device for one in own.values()):
        return module
    plain = copy.copy(module)
    for name in ("forward", "_hf_hook", "_old_forward"):
        plain.__dict__.pop(name, None)
    plain._parameters = {
        name: nn.Parameter(weight.to(device), requires_grad=False)
        for name in own
        if (weight := weight_of(module, name)) is not None
    }
    return plain
