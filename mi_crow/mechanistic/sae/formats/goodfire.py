"""Reading the SAEs of Goodfire and qresearch: one `.pth` or `.pt` file of two linear layers.

z = ReLU(x W^T + b), x_hat = z D^T + b_dec; nothing is subtracted. The file's name alone says which
layer of which model it is: `Llama-3.1-8B-Instruct-SAE-l19.pth`.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mi_crow.mechanistic.sae.formats.origins import origin
from mi_crow.mechanistic.sae.formats.record import SaeRecord
from mi_crow.mechanistic.sae.formats.tensor_files import (
    by_our_names,
    check_names,
    check_tensors,
    refs,
    tensors_of,
)

GOODFIRE = "Goodfire"
QRESEARCH = "qresearch"

_NAME = re.compile(r"(.+)-SAE-l(\d+)")
_ORGANISATIONS = {"Llama": "meta-llama", "DeepSeek": "deepseek-ai"}


def tensor_names(tool: str) -> tuple[str, ...]:
    """Encoder, its bias, decoder, its bias, as `tool` names them."""
    suffix = "_linear" if tool == GOODFIRE else ""
    return tuple(
        f"{part}{suffix}.{kind}" for part in ("encoder", "decoder") for kind in ("weight", "bias")
    )


def read_linear(path: Path, found: Mapping[str, Any], tool: str) -> SaeRecord:
    """The SAE of `tool` in `path`, which holds `found`. Raises UserError naming unknown tensors,
    CorruptDataError for matrices of other shapes."""
    names = tensor_names(tool)
    check_names(found, names, path, tool)
    tensors = refs(tensors_of(found, names, path))
    # Checked by the names of our own list of matrices.
    short = {name.replace("_linear", ""): ref for name, ref in tensors.items()}
    check_tensors(short, tensor_names(QRESEARCH), path, tool)
    match = _NAME.fullmatch(path.stem)
    model = match[1] if match is not None else ""
    organisation = _ORGANISATIONS.get(model.partition("-")[0], "")
    return SaeRecord(
        "standard",
        by_our_names(short, tensor_names(QRESEARCH), transposed=["W_dec"]),
        origin(
            f"{organisation}/{model}" if organisation else model,
            f"resid_post.{match[2]}" if match is not None else "",
        ),
        apply_b_dec_to_input=False,
        format=tool,
    )
