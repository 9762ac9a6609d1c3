"""Reading Qwen-Scope: `layer<N>.sae.pt` of each layer and one `config.json`.

z = ReLU(TopK(x W_enc^T + b_enc)), x_hat = z W_dec^T + b_dec; nothing is subtracted, and both
matrices are the other way round than in most formats.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mi_crow.errors import UserError
from mi_crow.mechanistic.sae.formats.marks import QWEN_SCOPE
from mi_crow.mechanistic.sae.formats.origins import origin
from mi_crow.mechanistic.sae.formats.record import SaeRecord
from mi_crow.mechanistic.sae.formats.tensor_files import by_our_names, check_sizes, named_tensors
from mi_crow.store.json_object import JsonObject

FORMAT = QWEN_SCOPE.format

_TENSORS = ("W_enc", "b_enc", "W_dec", "b_dec")
_LAYER = re.compile(r"layer_?0*(\d+)\.sae")


def read_qwen_scope(path: Path, found: Mapping[str, Any], cfg: JsonObject) -> SaeRecord:
    """The SAE in `path`, which holds `found`, described by `cfg`. Raises UserError naming unknown
    tensors, CorruptDataError when the files do not fit each other."""
    tensors = named_tensors(found, _TENSORS, path, FORMAT)
    n_latents, width = tensors["W_enc"].shape
    check_sizes(cfg, {"d_model": width, "d_sae": n_latents})
    kind = cfg.text("hook_point", "resid_post")
    if kind != "resid_post":
        raise UserError(f"{cfg.place} has the hook point {kind!r}, which is not known")
    layer = _LAYER.fullmatch(path.stem)
    return SaeRecord(
        "topk",
        by_our_names(tensors, _TENSORS, transposed=["W_dec"]),
        origin(cfg.text("base_model", ""), f"{kind}.{layer[1]}" if layer is not None else ""),
        k=cfg.integer("k", least=1),
        apply_b_dec_to_input=False,
        format=FORMAT,
    )
