"""Reading Apollo Research's end-to-end SAEs: `samples_<n>.pt` beside `final_config.yaml`.

z = ReLU(x W^T + b), x_hat = z D + b_dec, where D is the decoder with unit columns: the file's is
normalised at every use (e2e_sae at 83b4add). One file holds the SAEs of several hook points, whose
names have dashes in place of dots: `blocks-6-hook_resid_pre.encoder.0.weight`.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.nn import functional

from mi_crow.errors import CorruptDataError, NotFoundError, UserError
from mi_crow.mechanistic.sae.formats.found import block_number
from mi_crow.mechanistic.sae.formats.marks import APOLLO
from mi_crow.mechanistic.sae.formats.origins import origin
from mi_crow.mechanistic.sae.formats.record import SaeRecord
from mi_crow.mechanistic.sae.formats.tensor_files import (
    by_our_names,
    check_names,
    check_tensors,
    refs,
    tensors_of,
)
from mi_crow.mechanistic.sae.hook_names import point_of
from mi_crow.store.json_object import JsonObject

FORMAT = APOLLO.format

_POSITION = re.compile(r"(blocks-\d+-[\w-]+)\.encoder\.0\.weight")
_PARTS = ("encoder.0.weight", "encoder.0.bias", "decoder.weight", "decoder.bias")
_MODELS = {"gpt2-small": "gpt2"}


def positions(found: Mapping[str, Any]) -> list[str]:
    """The hook points in a file, as it writes them."""
    return [match[1] for name in found if (match := _POSITION.fullmatch(name)) is not None]


def read_apollo(
    path: Path, found: Mapping[str, Any], cfg: JsonObject, layer: str | None
) -> SaeRecord:
    """The SAE of `layer` in `path`, which holds `found`, described by `cfg`. Raises UserError when
    there are several and none is chosen, NotFoundError when there is none of `layer`."""
    position = _chosen(positions(found), layer, path)
    inside = {
        name.removeprefix(f"{position}."): value
        for name, value in found.items()
        if name.startswith(f"{position}.")
    }
    check_names(inside, _PARTS, path, FORMAT)
    parts = refs(tensors_of(inside, _PARTS, path))
    plain = {name.replace(".0.", "."): ref for name, ref in parts.items()}
    check_tensors(plain, [name.replace(".0.", ".") for name in _PARTS], path, FORMAT)
    tensors = by_our_names(plain, list(plain), transposed=["W_dec"])
    model = cfg.text("tlens_model_name", "")
    return SaeRecord(
        "standard",
        tensors | {"W_dec": tensors["W_dec"].map(_unit_rows)},
        origin(_MODELS.get(model, model), position.replace("-", ".")),
        apply_b_dec_to_input=False,
        format=FORMAT,
        chosen=layer is not None and len(positions(found)) > 1,
    )


def _chosen(known: list[str], layer: str | None, path: Path) -> str:
    hooks = {position.replace("-", "."): position for position in known}
    listed = ", ".join(hooks)
    if layer is not None:
        number = block_number(layer)
        fit = [
            position
            for hook, position in hooks.items()
            if (point_of(layer) or layer) in (hook, point_of(hook))
            or (number is not None and hook.startswith(f"blocks.{number}."))
        ]
        if len(fit) == 1:
            return fit[0]
        if len(known) > 1:
            raise NotFoundError(f"{path} contains no SAE of {layer!r}", hint=f"available: {listed}")
    if len(known) > 1:
        raise UserError(f"{path} holds {len(known)} SAEs", hint=f"choose with --layer: {listed}")
    if not known:
        raise CorruptDataError(f"{path} holds no SAE")
    return known[0]


def _unit_rows(rows: Tensor) -> Tensor:
    return functional.normalize(rows.float(), dim=1)
