"""Crosscoders over two models on the same texts, a base model and one made from it: model diffing.

Lindsey et al. 2024, "Sparse crosscoders for cross-layer features and model diffing": each latent
reads both models and has a decoder row for each. Which model a latent belongs to is measured by
`evaluation/latent_scaling`.
"""

from collections.abc import Mapping
from functools import cached_property

import torch
from torch import Tensor

from mi_crow.errors import NotFoundError
from mi_crow.mechanistic.sae.cross_layer.record import ROLES, TUNED, ModelRead
from mi_crow.mechanistic.sae.cross_layer.shared import SharedCrosscoder


class TwoModelCrosscoder(SharedCrosscoder):
    """Reconstructs layers of two models, each latent from all of them.

    Its inputs are named by model and layer (`base:resid_post.3`, `tuned:resid_post.3`), in order,
    and numbered by their place: `{0: x_base, 1: x_tuned}`. A model that runs alone has only its own
    activations, so that a latent can be added there but not read.
    """

    @property
    def layers(self) -> tuple[str, ...]:
        return tuple(layer.of_model(layer.read) for layer in self.record.layers)

    @property
    def target_layers(self) -> tuple[str, ...]:
        return tuple(layer.of_model(layer.written) for layer in self.record.layers)

    @property
    def models(self) -> Mapping[str, ModelRead]:
        """Both, by role: base, tuned."""
        return {model.role: model for model in self.record.models}

    def points_of(self, role: str) -> dict[int, str]:
        """The hook points of one of the models, by the number of the input."""
        return {one.number: one.read for one in self.record.layers if one.model == role}

    def number_of(self, name: str) -> int:
        """The number of an input by its name. Raises NotFoundError."""
        if name not in self.layers:
            raise NotFoundError(
                f"this SAE has no input {name!r}", hint=f"it reads {', '.join(self.layers)}"
            )
        return self.layer_numbers[self.layers.index(name)]

    def role_of(self, model_id: str, revision: str | None = None) -> str:
        """Which of the models it is; the tuned one where the name tells neither."""
        named = [one for one in self.record.models if one.name == model_id]
        exact = [one for one in named if one.revision == revision]
        found = exact or named
        return found[-1].role if found else TUNED

    def decoder_at(self, number: int) -> Tensor:
        """The decoder of one input, by its number: [n_latents, d]."""
        return self._decoder(number, number)

    @cached_property
    def _directions(self) -> Tensor:
        """At the last layer of the model in which a latent's row is the longer one."""
        ends = {role: max(self.points_of(role)) for role in ROLES}
        base, tuned = (self.decoder_at(ends[role]).float() for role in ROLES)
        return torch.where((base.norm(dim=1) > tuned.norm(dim=1))[:, None], base, tuned)
