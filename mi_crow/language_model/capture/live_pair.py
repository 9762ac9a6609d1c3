"""The same texts through two models: for SAEs that compare a model with one made from it."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from mi_crow.errors import UserError
from mi_crow.language_model.capture.live_layer import LiveLayer
from mi_crow.language_model.capture.plan import Batch, PartPlan
from mi_crow.language_model.config import CaptureConfig
from mi_crow.progress import Progress
from mi_crow.store.runs.manifest import LayerSpec
from mi_crow.store.runs.parts import StoredRows

if TYPE_CHECKING:
    from mi_crow.language_model.language_model import LanguageModel


class LivePair(LiveLayer):
    """Hook points of two models with one tokenizer, on the same batches: those of `base`, then
    those of `lm`. Texts are cut for the model with the smaller context; everything else is that of
    `lm`."""

    def __init__(
        self,
        lm: "LanguageModel",
        config: CaptureConfig,
        progress: Progress,
        base: "LanguageModel",
        base_layers: Sequence[str],
    ) -> None:
        """`config` names the layers of `lm`. Raises UserError for another tokenizer, NotFoundError
        for an unknown layer."""
        check_one_tokenizer(base, lm)
        context = min(config.context_length, base.context or config.context_length)
        super().__init__(lm, replace(config, context_length=context), progress)
        self.base: LiveLayer = LiveLayer(
            base, replace(self.config, layers=tuple(base_layers)), progress
        )

    @property
    def read(self) -> tuple[LayerSpec, ...]:
        return (*self.base.layers, *self.layers)

    @property
    def dtypes(self) -> tuple[str, ...]:
        return (self.base.dtype, self.dtype)

    def every(self, plan: PartPlan) -> Iterator[tuple[Batch, tuple[StoredRows, ...]]]:
        for batch, own in super().every(plan):
            self.base.lm.check_ids([int(batch.input_ids.max())])
            yield batch, (*self.base.of_batch(batch), *own)


def check_one_tokenizer(base: "LanguageModel", tuned: "LanguageModel") -> None:
    """Raises UserError for models whose tokens cannot be compared."""
    if base.tokenizer_hash != tuned.tokenizer_hash:
        raise UserError(
            f"models {base.model_id!r} and {tuned.model_id!r} have different tokenizers",
            hint="compare models with one tokenizer",
        )
