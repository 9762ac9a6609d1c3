"""Encoders that multiply in bf16 and choose in fp32: who can, and how often it shows."""

import torch
from torch import Tensor

from mi_crow.errors import UserError
from mi_crow.mechanistic.sae.base import SparseAutoencoder
from mi_crow.mechanistic.sae.rules.topk import TopKSae


def round_product(sae: SparseAutoencoder, sae_id: str, precision: str, done: str) -> None:
    """Lets the encoder's product be in bf16 where `precision` asks for it, or is `auto` on CUDA.
    Raises UserError for a rule that does not compare latents with each other: it cannot be
    `done` in bf16."""
    able = isinstance(sae, TopKSae) and type(sae)._encode_rows is TopKSae._encode_rows
    if precision == "fp32" or (precision == "auto" and not (able and sae.device.type == "cuda")):
        return
    if not isinstance(sae, TopKSae) or not able:
        raise UserError(
            f"SAE {sae_id!r} of architecture {sae.architecture} cannot be {done} in {precision}",
            hint="use --precision fp32; bf16 is for topk",
        )
    sae.rounded_to = torch.bfloat16


def rounding_fact(sae: SparseAutoencoder) -> dict[str, str]:
    """What to record of the encoder's product; nothing where it is in fp32."""
    return {} if getattr(sae, "rounded_to", None) is None else {"precision": "bf16"}


@torch.inference_mode()
def share_of_other_sets(sae: SparseAutoencoder, x: Tensor) -> float | None:
    """The share of tokens x [n, d] whose set of latents is another than in fp32; None where the
    SAE does not round."""
    rounded = getattr(sae, "rounded_to", None)
    if not isinstance(sae, TopKSae) or rounded is None:
        return None
    x = x.to(sae.device).float()
    found = sae.encode_sparse(x)
    sae.rounded_to = None
    try:
        exact = sae.encode_sparse(x)
    finally:
        sae.rounded_to = rounded
    # A latent of value 0 does not fire, whichever of them was listed.
    sets = [
        torch.where(one.values > 0, one.indices, -1).sort(dim=1).values for one in (found, exact)
    ]
    return float((sets[0] != sets[1]).any(dim=1).double().mean())
