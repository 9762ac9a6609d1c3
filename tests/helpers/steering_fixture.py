"""A small SAE for the tests' tiny model, and logits under interventions."""

from typing import Any

import torch
from torch import Tensor

from mi_crow.language_model import LanguageModel
from mi_crow.language_model.capture_pass import run_to
from mi_crow.mechanistic.sae import SaeMetadata, TopKSae
from mi_crow.mechanistic.steering.interventions import Intervention
from mi_crow.mechanistic.steering.steer import steering

LAYER = "model.layers.1"
WIDTH = 32
LATENTS = 96
TEXT = "The ferry left the harbour before dawn."


def tiny_sae(outlier_norm: float | None = None, model: str = "") -> TopKSae:
    """A random SAE of the second block; decoder rows of several lengths, biases that are not 0."""
    sae = TopKSae(LATENTS, WIDTH, k=8, seed=3)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        sae.W_dec.mul_(0.5 + torch.rand(LATENTS, 1, generator=generator))
        sae.b_enc.copy_(0.1 * torch.randn(LATENTS, generator=generator))
        sae.b_dec.copy_(0.1 * torch.randn(WIDTH, generator=generator))
    sae.metadata = SaeMetadata(
        model_name=model, layer=LAYER, point="resid_post.1", outlier_norm=outlier_norm
    )
    return sae.eval().requires_grad_(False)


def logits(lm: LanguageModel, texts: list[str] | None = None, **options: Any) -> Tensor:
    """The model's logits on some texts."""
    output, _ = lm.inference.execute_inference(texts or [TEXT], **options)
    return output.logits


def steered_logits(lm: LanguageModel, sae: TopKSae, *stack: Intervention, **options: Any) -> Tensor:
    with steering(lm, sae, LAYER, stack, **options):
        return logits(lm)


def activations(lm: LanguageModel, text: str = TEXT) -> tuple[Tensor, Tensor]:
    """Activations [length, d] of the SAE's layer, and which tokens are special."""
    from mi_crow.language_model.tokenize import encode_batch

    encoding = encode_batch(lm.tokenizer, [text])
    point = lm.layers.resolve(LAYER)
    found = run_to(lm, [point], encoding.input_ids, encoding.attention_mask)[point]
    return found[0], encoding.special[0]
