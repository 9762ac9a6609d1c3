"""What features are about: annotations, names of an attached SAE's latents, text tracking.

Exports load on first use, so that the annotations never import torch.
"""

from typing import TYPE_CHECKING, Any

from mi_crow.lazy import lazy_exports

if TYPE_CHECKING:
    from mi_crow.mechanistic.concepts.annotations import Annotations
    from mi_crow.mechanistic.concepts.annotations_rows import Concept
    from mi_crow.mechanistic.concepts.autoencoder_concepts import AutoencoderConcepts

_EXPORTS = {
    "Annotations": "mi_crow.mechanistic.concepts.annotations",
    "AutoencoderConcepts": "mi_crow.mechanistic.concepts.autoencoder_concepts",
    "Concept": "mi_crow.mechanistic.concepts.annotations_rows",
}

__all__ = ["Annotations", "AutoencoderConcepts", "Concept"]


def __getattr__(name: str) -> Any:
    return lazy_exports(__name__, _EXPORTS, name)
