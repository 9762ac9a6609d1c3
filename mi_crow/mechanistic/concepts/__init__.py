"""What features are about: annotations, names of an attached SAE's latents, text tracking.

Exports load on first use, so that the annotations never import torch.
"""

from typing import TYPE_CHECKING

from mi_crow.lazy import Getter, lazy_exports

if TYPE_CHECKING:
    from mi_crow.mechanistic.concepts.annotations import Annotations
    from mi_crow.mechanistic.concepts.annotations_rows import Concept
    from mi_crow.mechanistic.concepts.autoencoder_concepts import AutoencoderConcepts

__getattr__: Getter = lazy_exports(
    __name__,
    {
        "annotations": ("Annotations",),
        "annotations_rows": ("Concept",),
        "autoencoder_concepts": ("AutoencoderConcepts",),
    },
)

__all__ = ["Annotations", "AutoencoderConcepts", "Concept"]
