"""Reading the attention SAEs of Kissane et al. 2024: `<name>.pt` beside `<name>_cfg.json`.

z = ReLU((x - b_dec) W_enc + b_enc), x_hat = z W_dec + b_dec; x are the outputs of all heads side by
side (hook_z). "Interpreting Attention Layer Outputs with Sparse Autoencoders".
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mi_crow.mechanistic.sae.formats.marks import KISSANE
from mi_crow.mechanistic.sae.formats.origins import origin
from mi_crow.mechanistic.sae.formats.record import SaeRecord
from mi_crow.mechanistic.sae.formats.tensor_files import by_our_names, check_sizes, named_tensors
from mi_crow.store.json_object import JsonObject

FORMAT = KISSANE.format

_TENSORS = ("W_enc", "b_enc", "W_dec", "b_dec")
# Names of TransformerLens that are not those of the hub.
_MODELS = {"gpt2-small": "gpt2"}


def read_kissane(path: Path, found: Mapping[str, Any], cfg: JsonObject) -> SaeRecord:
    """The SAE in `path`, which holds `found`, described by `cfg`. Raises UserError naming unknown
    tensors, CorruptDataError when the files do not fit each other."""
    tensors = named_tensors(found, _TENSORS, path, FORMAT)
    width, n_latents = tensors["W_enc"].shape
    check_sizes(cfg, {"act_size": width, "dict_size": n_latents})
    model = cfg.text("model_name", "")
    return SaeRecord(
        "standard",
        by_our_names(tensors, _TENSORS, transposed=["encoder_rows"]),
        origin(
            _MODELS.get(model, model),
            cfg.text("act_name", ""),
            context_size=cfg.integer("seq_len", None),
        ),
        format=FORMAT,
    )
