"""Running texts through the model."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch

from mi_crow.clean_text import clean_text
from mi_crow.errors import UserError
from mi_crow.language_model.base import CausalModel
from mi_crow.language_model.context import ForwardContext
from mi_crow.language_model.tokenize import Encoding


class Inference:
    """Batch inference on one model."""

    def __init__(self, lm: CausalModel) -> None:
        self._lm = lm
        self.texts: list[str] = []  # of the running batch, for detectors that track texts

    def execute_inference(
        self,
        texts: str | Sequence[str],
        with_controllers: bool = True,
        context_length: int | None = None,
    ) -> tuple[Any, dict[str, torch.Tensor]]:
        """The model's output object and the encodings (input_ids, attention_mask) of `texts`.

        One batch, padded on the right; a single text is a batch of one. With
        `with_controllers=False` no controller acts.
        """
        texts = [texts] if isinstance(texts, str) and texts else texts
        if not texts:
            raise UserError("no texts given", hint="give a non-empty list of strings")
        texts = [clean_text(text) for text in texts]
        encoding = self._lm.encode(texts, context_length)
        self.texts = texts
        try:
            with nullcontext() if with_controllers else self._lm.plain():
                return self.run(encoding), encoding.as_inputs()
        finally:
            self.texts = []

    @torch.inference_mode()
    def run(self, encoding: Encoding) -> Any:
        """The model's output object for an encoded batch."""
        context = ForwardContext(
            encoding.input_ids, encoding.attention_mask, encoding.special, 0, None
        )
        with self._lm.running(context):
            return self._lm.model(**encoding.as_inputs(), use_cache=False)
