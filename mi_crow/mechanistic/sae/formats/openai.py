"""Reading OpenAI's sparse_autoencoder: a `.pt` file.

z = act((norm(x) - pre_bias) W^T + latent_bias), x_hat = denorm(z W_dec + pre_bias). TopK files
imply a LayerNorm of each token on the way in, undone on the way out; others are plain ReLU.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mi_crow.errors import UserError
from mi_crow.mechanistic.sae.formats.record import SaeRecord
from mi_crow.mechanistic.sae.formats.tensor_files import (
    check_names,
    check_tensors,
    refs,
    tensors_of,
)
from mi_crow.mechanistic.sae.metadata import SaeMetadata
from mi_crow.store.json_object import JsonObject

FORMAT = "OpenAI sparse_autoencoder"

_TENSORS = ("pre_bias", "encoder.weight", "latent_bias", "decoder.weight")
_STATISTICS = ("stats_last_nonzero", "latents_activation_frequency", "latents_mean_square")
TENSORS = frozenset(_TENSORS)
_RULE = ("activation", "activation_state_dict")


def read_openai(path: Path, found: Mapping[str, Any]) -> SaeRecord:
    """The SAE in `path`, which holds `found`. Raises UserError for an unknown activation or tensor,
    CorruptDataError for a file of another kind."""
    check_names(found, _TENSORS, path, FORMAT, (*_STATISTICS, *_RULE))
    tensors = refs(tensors_of(found, _TENSORS, path))
    check_tensors(tensors, _TENSORS, path, FORMAT)
    k = _k(found, path)
    return SaeRecord(
        "standard" if k is None else "topk",
        {
            "encoder_rows": tensors["encoder.weight"],
            "b_enc": tensors["latent_bias"],
            "W_dec": tensors["decoder.weight"].t(),
            "b_dec": tensors["pre_bias"],
        },
        SaeMetadata(),
        k=k,
        input_norm="none" if k is None else "layer_norm",
        format=FORMAT,
    )


def _k(found: Mapping[str, Any], path: Path) -> int | None:
    """The k of TopK files, None for ReLU. Raises UserError for another activation."""
    options = JsonObject(found, str(path), UserError)
    state = options.object("activation_state_dict", {})
    # Files from before TopK name no activation.
    activation = options.text("activation") if state.values else options.text("activation", "ReLU")
    if activation == "ReLU":
        return None
    after = state.text("postact_fn", "ReLU")
    if activation != "TopK" or after != "ReLU":
        name = activation if activation != "TopK" else f"TopK with {after}"
        raise UserError(
            f"{path} has the activation {name!r}, which is not known", hint="known: ReLU, TopK"
        )
    if "k" not in state:
        raise UserError(f"{path} is of a TopK SAE but does not give its k")
    return state.integer("k", least=1)
