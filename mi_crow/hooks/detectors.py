"""Ready-made detectors: a layer's activations, the model's inputs, the model's outputs."""

from typing import Any

import torch
from torch import Tensor

from mi_crow.errors import UserError
from mi_crow.hooks.hook import Detector, HookType, HookWhen
from mi_crow.hooks.tensors import first_tensor

MODEL_ROOT = ""  # the module name of the whole model


class LayerActivationDetector(Detector):
    """Keeps the last activations [batch, length, d] of a layer, detached."""

    def __init__(self, layer_signature: str | int, hook_id: str | None = None) -> None:
        super().__init__(layer_signature, "forward", hook_id)

    def process_activations(self, module: Any, inputs: Any, output: Any) -> None:
        self.tensor_metadata["activations"] = first_tensor(output).detach()
        self.metadata["activations_shape"] = tuple(self.tensor_metadata["activations"].shape)

    def get_captured(self) -> Tensor | None:
        return self.tensor_metadata.get("activations")


class ModelInputDetector(Detector):
    """Keeps the token ids [batch, length] of every pass, and which of them are real.

    Passes of different length are padded on the right with `pad_id` when read together.
    """

    def __init__(self, hook_id: str | None = None, pad_id: int = 0) -> None:
        super().__init__(MODEL_ROOT, "pre_forward", hook_id)
        self.pad_id = pad_id
        self._passes: list[Tensor] = []
        self._masks: list[Tensor] = []

    def pre_forward(self, module: Any, args: tuple[Any, ...], kwargs: Any) -> None:
        ids = kwargs.get("input_ids")
        if ids is None:
            ids = first_tensor(args)
        mask = kwargs.get("attention_mask")
        self.tensor_metadata["inputs"] = ids.detach().cpu()
        self._passes.append(self.tensor_metadata["inputs"])
        self._masks.append((torch.ones_like(ids) if mask is None else mask).detach().cpu())

    def get_captured(self) -> Tensor | None:
        return _joined(self._passes, self.pad_id)

    def get_captured_input_ids(self) -> Tensor | None:
        """The same as `get_captured`."""
        return self.get_captured()

    def get_captured_attention_mask(self) -> Tensor | None:
        """1 where `get_captured` has a real token, else 0."""
        return _joined(self._masks, 0)

    def clear_captured(self) -> None:
        super().clear_captured()
        self._passes.clear()
        self._masks.clear()


class ModelOutputDetector(Detector):
    """Keeps the model's last output tensor: logits [batch, length, vocabulary], detached."""

    def __init__(self, hook_id: str | None = None, hook_type: HookWhen = HookType.FORWARD) -> None:
        super().__init__(MODEL_ROOT, hook_type, hook_id)

    def process_activations(self, module: Any, inputs: Any, output: Any) -> None:
        if output is None:
            raise UserError("only a forward hook sees a model's output")
        logits = getattr(output, "logits", None)
        kept = (logits if logits is not None else first_tensor(output)).detach()
        self.tensor_metadata["output"] = self.tensor_metadata["outputs"] = kept

    def get_captured(self) -> Tensor | None:
        return self.tensor_metadata.get("output")

    def get_captured_output_logits(self) -> Tensor | None:
        """The same as `get_captured`."""
        return self.get_captured()


def _joined(rows: list[Tensor], fill: int) -> Tensor | None:
    if not rows:
        return None
    width = max(row.shape[-1] for row in rows)
    padded = [torch.nn.functional.pad(row, (0, width - row.shape[-1]), value=fill) for row in rows]
    return torch.cat(padded)
