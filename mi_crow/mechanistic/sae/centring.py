"""SAEs made for models with centred writing weights.

TransformerLens can subtract the mean over the width from everything that is written to the residual
stream (`center_writing_weights`). If the norms of the model subtract the mean anyway, it computes
the same, and its activations there are ours minus their mean. Such an SAE subtracts the mean from
its input and adds it back after decoding (`SparseAutoencoder.centred`), so that it fits the
unchanged model.
"""

from typing import TYPE_CHECKING

import torch

from mi_crow.mechanistic.sae.base import SparseAutoencoder

if TYPE_CHECKING:
    from mi_crow.language_model import HookPoint, LanguageModel

# The hook points whose values are written to the stream: centring changes no others.
_WRITTEN = ("resid_pre.", "resid_mid.", "resid_post.", "attn_out.", "mlp_out.")


def set_centring(
    lm: "LanguageModel", sae: SparseAutoencoder, layer: "HookPoint | None" = None
) -> str | None:
    """Sets whether `sae` centres its input at `layer` of `lm` (None: at its own). Returns a
    sentence on it for SAEs whose file mentions centring.

    The norms are tested by what they compute. Where they keep the mean (RMSNorm), centring the
    weights would change the model, and TransformerLens leaves them alone.
    """
    if not sae.metadata.centred_weights:
        return None
    layer = layer or lm.layers.resolve(sae.metadata.layer_signature)
    sae.centred = False
    if sae.transcodes:
        return "its center_writing_weights is ignored: a transcoder's output has another mean"
    if not layer.point.startswith(_WRITTEN):
        return f"its center_writing_weights changes nothing at {layer.point}"
    if not norms_subtract_mean(lm, sae.n_inputs):
        return "its center_writing_weights is ignored: the model's norms keep the mean"
    sae.centred = True
    return (
        "it is for centred activations (center_writing_weights): the mean of each activation is "
        "subtracted before encoding and added back after decoding"
    )


def can_centre(lm: "LanguageModel", sae: SparseAutoencoder, layer: "HookPoint") -> bool:
    """Whether an SAE at `layer` may have been made for centred writing weights."""
    written = layer.point.startswith(_WRITTEN) and not sae.transcodes
    return written and norms_subtract_mean(lm, sae.n_inputs)


@torch.inference_mode()
def norms_subtract_mean(lm: "LanguageModel", width: int) -> bool:
    """Whether the first block has norms, and each gives the same for x and x + 1."""
    blocks = lm.layers.blocks()
    if not blocks:
        return False
    x = torch.linspace(-1, 1, width, device=lm.device).sin().to(lm.dtype).expand(1, 1, width)
    found = []
    for module in lm.model.get_submodule(blocks[0]).modules():
        if "norm" not in type(module).__name__.lower():
            continue
        weight = getattr(module, "weight", None)
        if weight is not None and weight.shape != (width,):
            continue  # of queries and keys, per head
        found.append(torch.allclose(module(x).float(), module(x + 1).float(), atol=0.05))
    return bool(found) and all(found)
