"""What the modules below a language model know of it: the running pass, and the model that hook
points are found in."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from mi_crow.language_model.hook_points.point import HookPoint
from mi_crow.language_model.hook_points.rows import Layout


@dataclass(frozen=True)
class ForwardContext:
    """The tokens of the running forward pass; steering reads it inside hooks."""

    input_ids: Tensor  # [batch, length]: the tokens of this pass only
    attention_mask: Tensor  # [batch, past + length]
    special: Tensor  # [batch, length] bool: special tokens and padding
    position: int  # tokens in the cache before this pass
    prompt_length: int | None  # tokens of the prompt while generating, else None
    controlled: Tensor | None = None  # [batch] bool: texts that controllers change; None: all
    strengths: Tensor | None = None  # [batch]: what amounts are multiplied by in each; None: 1


class KnownPoints(Protocol):
    """What is known about a model's hook points so far."""

    resting: bool  # during a probe: no hook runs

    def blocks(self) -> list[str]: ...
    def known_layout(self, point: HookPoint) -> Layout | None: ...
    def width(self, signature: str | int | HookPoint) -> int: ...


class HookedModel(Protocol):
    """As much of a `LanguageModel` as finding, reading and changing its hook points needs."""

    model: Any
    tokenizer: Any
    model_id: str
    device: torch.device
    controllers_enabled: bool
    forward_context: ForwardContext | None

    @property
    def layers(self) -> KnownPoints: ...
    def plain(self) -> AbstractContextManager[None]: ...
