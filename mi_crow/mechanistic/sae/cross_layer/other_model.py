"""The second model of a crosscoder of two: loaded when its activations are first needed."""

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from mi_crow.language_model.config import ModelSpec
from mi_crow.mechanistic.sae.cross_layer.record import BASE, TUNED

if TYPE_CHECKING:
    from mi_crow.language_model import HookPoint, LanguageModel
    from mi_crow.mechanistic.sae.cross_layer.two_models import TwoModelCrosscoder

_T = TypeVar("_T")
# Both compute alike: differences of rounding are no differences between the models.
_NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}


class OtherModel:
    """The model of a crosscoder that is not `lm`, which reads the same tokens beside it."""

    def __init__(
        self,
        sae: "TwoModelCrosscoder",
        lm: "LanguageModel",
        loaded: "LanguageModel | None" = None,
    ) -> None:
        """`loaded`: this model, where it is in memory already."""
        self._loaded = loaded
        self._device, self._dtype = str(lm.device), _NAMES.get(lm.dtype, "auto")
        self._is_base = sae.role_of(lm.model_id, lm.revision) == TUNED
        self._role = BASE if self._is_base else TUNED
        self._read, self._names = sae.models[self._role], tuple(sae.points_of(self._role).values())

    @cached_property
    def lm(self) -> "LanguageModel":
        """The model. Raises UserError, NotFoundError where it cannot be loaded."""
        from mi_crow.language_model import LanguageModel

        if self._loaded is not None:
            return self._loaded
        spec = ModelSpec(
            self._read.name,
            revision=self._read.revision,
            device=self._device,
            dtype=self._dtype,
        )
        return LanguageModel.from_spec(spec)

    @cached_property
    def points(self) -> "tuple[HookPoint, ...]":
        """What the SAE reads there, in its order."""
        return tuple(self.lm.layers.resolve(name) for name in self._names)

    @torch.inference_mode()
    def beside(
        self, layers: Sequence[Tensor], input_ids: Tensor, attention_mask: Tensor | None = None
    ) -> list[Tensor]:
        """The inputs of the SAE in order: `layers` of the running model, [..., n, d] each, and
        those of this one on the same token ids [batch, n]."""
        from mi_crow.language_model.capture_pass import run_to

        found = run_to(self.lm, self.points, input_ids, attention_mask)
        own = [found[point].view(*layers[0].shape[:-1], -1) for point in self.points]
        return self.in_order([*layers], own)

    def in_order(self, running: list[_T], own: list[_T]) -> list[_T]:
        """What is of the layers of the running model and of this one, as the SAE's inputs are."""
        return [*own, *running] if self._is_base else [*running, *own]
