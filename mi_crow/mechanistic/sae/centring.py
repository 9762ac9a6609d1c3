"""SAEs made for models with centred writing weights.

TransformerLens can take the mean over the width off everything that is written to the residual
stream (`center_writing_weights`). A model whose norms subtract the mean computes the same, and its
activations there are ours less their mean. Such an SAE takes the mean off its input and puts it
back after decoding (`SparseAutoencoder.centred`), so that it fits the model as it is.
"""

from typing import TYPE_CHECKING

import torch

from mi_crow.mechanistic.sae.base import SparseAutoencoder

if TYPE_CHECKING:
    from mi_crow.language_model import HookPoint, LanguageModel

# What holds what is written to the stream: centring changes nothing else.
_WRITTEN = ("resid_pre.", "resid_mid.", "resid_post.", "attn_out.", "mlp_out.")


def settle_centring(
    lm: "LanguageModel", sae: SparseAutoencoder, layer: "HookPoint | None" = None
) -> str | None:
    """Sets whether `sae` centres its input at `layer` of `lm` (None: at its own); a sentence when
    its file speaks of it.

    The norms are asked by what they do. Where they keep the mean (RMSNorm), centring the weights
    would make another model, and TransformerLens leaves them as they are.
    """
    if not sae.metadata.centred_weights:
        return None
    layer = layer or lm.layers.resolve(sae.metadata.layer_signature)
    sae.centred = False
    if sae.transcodes:
        return "its center_writing_weights is not followed: a transcoder's output has another mean"
    if not layer.point.startswith(_WRITTEN):
        return f"its center_writing_weights changes nothing at {layer.point}"
    if not norms_subtract_mean(lm, sae.n_inputs):
        return "its center_writing_weights is not followed: the model's norms keep the mean"
    sae.centred = True
    return (
        "it is for centred activations (center_writing_weights): the mean of each activation is "
        "taken off its input and put back after decoding"
    )


def can_centre(lm: "LanguageModel", sae: SparseAutoencoder, layer: "HookPoint") -> bool:
    """Whether an SAE at `layer` can have been made for centred writing weights."""
    written = layer.point.startswith(_WRITTEN) and not sae.transcodes
    return written and norms_subtract_mean(lm, sae.n_inputs)


@torch.inference_mode()
def norms_subtract_mean(lm: "LanguageModel", width: int) -> bool:
    """Whether every norm of the first block, and there is one, gives the same for x and x + 1."""
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
            continue  # of queries and keys, a head at a time
        found.append(torch.allclose(module(x).float(), module(x + 1).float(), atol=0.05))
    return bool(found) and all(found)
