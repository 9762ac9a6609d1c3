"""Transcoders: latents read one activation and write another, e.g. an MLP's input and output."""

from typing import ClassVar, Unpack

from mi_crow.mechanistic.sae.base import SkipOptions
from mi_crow.mechanistic.sae.rules.jumprelu import JumpReluSae
from mi_crow.mechanistic.sae.rules.l1 import L1Sae
from mi_crow.mechanistic.sae.rules.topk import TopKSae


class Transcoder(TopKSae):
    """y_hat = z W_dec + b_dec (+ x W_skip^T), z = ReLU(TopK(x W_enc + b_enc)): [d] -> [n_outputs].

    Dunefsky et al. 2024, "Transcoders find interpretable LLM feature circuits", equations 1 and 2;
    the skip connection is from Paulo et al. 2025, "Transcoders beat sparse autoencoders for
    interpretability". Nothing is subtracted from the input.
    """

    architecture: ClassVar[str] = "topk_transcoder"

    def __init__(
        self, n_latents: int, n_inputs: int, n_outputs: int, k: int, **options: Unpack[SkipOptions]
    ) -> None:
        super().__init__(n_latents, n_inputs, k, n_outputs=n_outputs, **options)


class ReluTranscoder(L1Sae):
    """The same with z = ReLU(x W_enc + b_enc)."""

    architecture: ClassVar[str] = "transcoder"

    def __init__(
        self, n_latents: int, n_inputs: int, n_outputs: int, **options: Unpack[SkipOptions]
    ) -> None:
        super().__init__(n_latents, n_inputs, n_outputs=n_outputs, **options)


class JumpReluTranscoder(JumpReluSae):
    """The same with a threshold a latent: z = pre * [pre > threshold], pre = x W_enc + b_enc."""

    architecture: ClassVar[str] = "jumprelu_transcoder"

    def __init__(
        self,
        n_latents: int,
        n_inputs: int,
        n_outputs: int,
        *,
        bandwidth: float = 1e-3,
        **options: Unpack[SkipOptions],
    ) -> None:
        super().__init__(n_latents, n_inputs, bandwidth=bandwidth, n_outputs=n_outputs, **options)
