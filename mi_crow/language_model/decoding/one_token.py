"""A pass over one new token of every continuation, captured as a CUDA graph where that works.

At every token the same kernels run on the same memory, and Python, which launches them one by one,
takes longer than a GPU that runs them. A graph of them is launched at once. What Python decides is
decided once, when it is captured: only what holds for every token may be captured.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from mi_crow.language_model.base import CausalModel
from mi_crow.language_model.decoding.watched import watching
from mi_crow.language_model.placement.devices import is_spread

OURS = "mi_crow.language_model.layers"  # whose hooks are asked whether they can be captured
_KNOWN = (OURS, "mi_crow.language_model.hook_points.tap", "transformers.")
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
_CHANGING_ROPES = ("dynamic", "longrope")

Run = Callable[[Tensor, Tensor, Tensor, int], Tensor]
"""A pass over tokens [rows, 1], of which some are special [rows, 1], at positions [rows, 1], the
last number: their logits [rows, vocabulary]."""

_log = logging.getLogger(__name__)


class OneToken:
    """The pass, on inputs that stay where they are in memory."""

    def __init__(self, rows: int, device: torch.device, captured: bool) -> None:
        """`captured`: whether it is captured after the first token, which makes it ready."""
        self._captured = captured
        self._ids = torch.zeros(rows, 1, dtype=torch.int64, device=device)
        self._special = torch.zeros(rows, 1, dtype=torch.bool, device=device)
        self._positions = torch.zeros(rows, 1, dtype=torch.int64, device=device)
        self._ready = False
        self._replay: Callable[[], None] | None = None
        self._logits: Tensor | None = None

    def __call__(self, run: Run, ids: Tensor, special: Tensor, position: int) -> Tensor:
        """Logits [rows, vocabulary], which hold until the next token. `run` is always the same; it
        is not kept, since it keeps this."""
        self._ids.copy_(ids)
        self._special.copy_(special)
        self._positions.fill_(position)
        if self._captured and self._ready and self._replay is None:
            self._capture(run, position)
        if self._replay is not None and self._logits is not None:
            self._replay()
            return self._logits
        self._ready = True
        if not self._captured:
            return run(self._ids, self._special, self._positions, position)
        with watching(self._ids.device) as watched:
            logits = run(self._ids, self._special, self._positions, position)
        if watched.reason:
            self._captured = False
            _log.info("decoding token by token: %s", watched.reason)
        return logits

    def _capture(self, run: Run, position: int) -> None:
        def once() -> None:
            self._logits = run(self._ids, self._special, self._positions, position)

        try:
            self._replay = capture(once, self._ids.device)
        except RuntimeError as error:  # CUDA's own errors, and those of what torch cannot capture
            if isinstance(error, torch.OutOfMemoryError):
                raise
            self._captured, self._logits = False, None
            _log.warning("decoding token by token, since no graph could be captured: %s", error)


def capture(run: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """Captures what `run` launches on `device`, without running it; what is returned runs it.
    Raises RuntimeError where that does not work."""
    graph, pool = torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle()
    with torch.cuda.device(device):
        before = torch.cuda.current_stream(device)
        try:
            # Other threads may go on with what they do on the device.
            with torch.cuda.graph(
                graph,
                pool=pool,
                stream=_capturing(torch.device("cuda", torch.cuda.current_device())),
                capture_error_mode="thread_local",
            ):
                run()
        except BaseException:
            _end_recording(pool)
            raise
        finally:
            torch.cuda.set_stream(before)  # which a capture that failed leaves changed
    return graph.replay


@cache
def _capturing(device: torch.device) -> "torch.cuda.Stream":
    """The stream of all captures on a device: cuBLAS keeps memory, in the graph's pool, for each
    stream that it has worked on, and gives it back with none of them."""
    return torch.cuda.Stream(device)


def _end_recording(pool: Any) -> None:
    """After a capture on the current device that failed. In PyTorch to 2.11 (#180395 there) memory
    is given out as if it were still going on: nothing goes back to the device any more, and what
    two streams used is never used again."""
    index = torch.cuda.current_device()
    with suppress(AttributeError, RuntimeError):  # PyTorch has ended it itself
        torch._C._cuda_endAllocateToPool(index, pool)
        torch._C._cuda_releasePool(index, pool)


def why_not_captured(lm: CausalModel, controlled: bool, rows: int) -> str:
    """Why a pass over one token of `rows` continuations is not captured; empty where it can be.
    `controlled`: whether controllers act in any of them."""
    return _why_not_model(lm) or next(_why_not_hooks(lm, controlled, rows), "")


def _why_not_model(lm: CausalModel) -> str:
    model, config = lm.model, lm.model.config.get_text_config()
    if is_spread(model) or getattr(model, "_tp_size", None) or getattr(model, "tp_size", None):
        return "the model is on several devices"
    if getattr(model, "hf_quantizer", None) is not None:
        return "the model is quantized"
    if any((getattr(config, name, None) or 0) > 1 for name in _EXPERTS):
        return "the model's experts are chosen by values"
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None)
    if any(kind in _CHANGING_ROPES for kind in _rope_types(rope)):
        return "the model's positions are scaled by the length of the text"
    return ""


def _rope_types(rope: Any) -> Iterator[Any]:
    """Of all layers: some models have parameters for each kind of layer."""
    if isinstance(rope, dict):
        yield from (rope.get("rope_type"), rope.get("type"))
        for one in rope.values():
            yield from _rope_types(one)


def _why_not_hooks(lm: CausalModel, controlled: bool, rows: int) -> Iterator[str]:
    for one in lm.layers.get_hooks():
        acts = one.hook.enabled and (controlled or not one.hook.is_controller)
        if acts and (reason := one.hook.not_captured(rows)):
            yield f"{type(one.hook).__name__} on layer {one.layer!r}: {reason}"
    for name, module in lm.model.named_modules():
        for hook in _hooks_of(module):
            if not _is_known(hook):
                yield f"a hook of its own is on module {name!r}"


def _hooks_of(module: nn.Module) -> Iterable[Any]:
    return (*module._forward_pre_hooks.values(), *module._forward_hooks.values())


def _is_known(hook: Any) -> bool:
    """Whether it is one of transformers' or of our registered ones, which have been asked."""
    visit = getattr(getattr(hook, "__self__", None), "_visit", None)
    told = hook if visit is None else visit  # of a tap what it shows the values to
    return str(getattr(told, "__module__", "")).startswith(_KNOWN)
