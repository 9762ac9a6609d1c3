"""An SAE attached to a layer: its concepts track texts and steer from there."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mi_crow.errors import UserError
from mi_crow.hooks import Controller, Detector, first_tensor
from mi_crow.mechanistic.sae.centring import set_centring
from mi_crow.mechanistic.sae.cross_layer.sae import CrossLayerSae
from mi_crow.mechanistic.sae.substitute import replaceable
from mi_crow.mechanistic.sae.targets import point_read
from mi_crow.mechanistic.steering.controllers import SourceSteering
from mi_crow.mechanistic.steering.interventions import Intervention
from mi_crow.mechanistic.steering.sources import SaeSource
from mi_crow.mechanistic.steering.where import ordinary_tokens

if TYPE_CHECKING:
    from mi_crow.language_model import HookPoint, LanguageModel
    from mi_crow.mechanistic.sae.base import SparseAutoencoder


@dataclass(frozen=True)
class AttachedSae:
    """An SAE on a layer; `detach` removes it."""

    lm: "LanguageModel"
    sae: "SparseAutoencoder"
    layer: str
    hook_ids: tuple[str, ...]

    def detach(self) -> None:
        """Removes the SAE from its layer; its concepts keep what was tracked and set."""
        for hook_id in self.hook_ids:
            self.lm.layers.unregister_hook(hook_id)


def attach_sae(
    lm: "LanguageModel",
    sae: "SparseAutoencoder",
    layer_signature: "str | int | HookPoint | None" = None,
) -> AttachedSae:
    """Attaches `sae` (None: to the layer it was trained on), moved to the model's device.

    With nothing manipulated the model's output stays as it is, bit for bit. Raises UserError when
    the SAE does not say its layer, NotFoundError for an unknown one.
    """
    if isinstance(sae, CrossLayerSae):
        raise UserError(
            f"an SAE over {len(sae.layers)} layers cannot be attached to one",
            hint="steer it with `steering`, which changes every layer that it writes to",
        )
    if layer_signature is None and not sae.metadata.layer_signature:
        raise UserError("the SAE does not say its layer", hint="give a layer_signature")
    layer = point_read(lm, sae) if layer_signature is None else lm.layers.resolve(layer_signature)
    sae.to(lm.device)
    set_centring(lm, sae, layer)
    # Tracking first: it is to see what the model does by itself.
    hooks = (TextTracking(lm, sae), ConceptManipulation(lm, sae, layer))
    ids = tuple(lm.layers.register_hook(layer, hook) for hook in hooks)
    return AttachedSae(lm, sae, layer.name, ids)


class TextTracking(Detector):
    """Passes the texts of `execute_inference` to the concepts' tracker."""

    def __init__(self, lm: "LanguageModel", sae: "SparseAutoencoder") -> None:
        super().__init__()
        self._lm = lm
        self.sae: SparseAutoencoder = sae

    @torch.no_grad()
    def process_activations(self, module: Any, inputs: Any, output: Any) -> None:
        tracker, texts = self.sae.concepts.tracker, self._lm.inference.texts
        if tracker is None or not texts:
            return
        x = first_tensor(output if output is not None else inputs)
        where = replaceable(x, ordinary_tokens(self._lm, x), self.sae.metadata.outlier_norm)
        latents = self.sae.encode_sparse(x)
        tracker.add(texts, latents.values * where[..., None], latents.indices)


class ConceptManipulation(Controller):
    """Applies the concepts' current manipulations."""

    def __init__(self, lm: "LanguageModel", sae: "SparseAutoencoder", layer: "HookPoint") -> None:
        super().__init__()
        self._lm, self._layer = lm, layer
        self.sae: SparseAutoencoder = sae

    def modify_activations(self, module: Any, inputs: Tensor | None, output: Tensor | None) -> Any:
        scales = sorted(self.sae.concepts.get_manipulation_config().items())
        if not scales:
            return None
        interventions = [Intervention(f"feature:{n}", "scale", scale) for n, scale in scales]
        steering = SourceSteering(self._lm, SaeSource(self.sae, self._layer), interventions)
        return steering.modify_activations(module, inputs, output)
