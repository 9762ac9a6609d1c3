"""What the rooms above this one add to an SAE: `sae.attach(...)` and `sae.concepts`.

Steering and concepts import SAEs. So that no import leads back, an SAE calls them through here, and
the package that holds all these rooms, `mi_crow.mechanistic`, says which functions they are.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mi_crow.language_model import HookPoint, LanguageModel
    from mi_crow.mechanistic.concepts.autoencoder_concepts import AutoencoderConcepts
    from mi_crow.mechanistic.sae.base import SparseAutoencoder
    from mi_crow.mechanistic.steering.attach import AttachedSae

_functions: dict[str, Callable[..., Any]] = {}


def extend(
    attach: "Callable[..., AttachedSae]", concepts: "Callable[..., AutoencoderConcepts]"
) -> None:
    """Says what attaches an SAE to a model, and what keeps the names of its latents."""
    _functions.update(attach=attach, concepts=concepts)


def attach(
    lm: "LanguageModel", sae: "SparseAutoencoder", layer: "str | int | HookPoint | None"
) -> "AttachedSae":
    """Attaches `sae` to a layer of `lm`; see `steering.attach.attach_sae`."""
    attached: AttachedSae = _functions["attach"](lm, sae, layer)
    return attached


def concepts_of(sae: "SparseAutoencoder") -> "AutoencoderConcepts":
    """The names, top texts and manipulations of an SAE's latents, none yet."""
    concepts: AutoencoderConcepts = _functions["concepts"](sae)
    return concepts
