"""Mechanistic interpretability: SAEs, their features, the concepts people name, and steering.

Nothing here imports torch before it is used.
"""

from typing import TYPE_CHECKING

from mi_crow.mechanistic.sae.extensions import extend

if TYPE_CHECKING:
    from mi_crow.language_model import HookPoint, LanguageModel
    from mi_crow.mechanistic.concepts.autoencoder_concepts import AutoencoderConcepts
    from mi_crow.mechanistic.sae.base import SparseAutoencoder
    from mi_crow.mechanistic.steering.attach import AttachedSae


def _attach(
    lm: "LanguageModel", sae: "SparseAutoencoder", layer: "str | int | HookPoint | None"
) -> "AttachedSae":
    from mi_crow.mechanistic.steering.attach import attach_sae

    return attach_sae(lm, sae, layer)


def _concepts(sae: "SparseAutoencoder") -> "AutoencoderConcepts":
    from mi_crow.mechanistic.concepts.autoencoder_concepts import AutoencoderConcepts

    return AutoencoderConcepts(sae)


extend(_attach, _concepts)
