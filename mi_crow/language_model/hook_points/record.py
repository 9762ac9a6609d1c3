"""A record of one block during a probe: inputs and outputs of its modules, in order."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from mi_crow.errors import UserError
from mi_crow.hooks.tensors import first_tensor, input_tensor, replace_tensor
from mi_crow.language_model.context import HookedModel
from mi_crow.language_model.hook_points.probe import StopPass, probe_ids, run_probe

_DEEPEST = 3  # levels below the block
_EXPERTS = 8  # a longer list of modules is experts, none of which sees every token


@dataclass
class Call:
    """One module's run. Tensors are copies in fp32 on the CPU, [batch * length, width]; None for
    those without one row per token."""

    name: str  # below the block
    module: nn.Module
    begun: int  # time of its start, counted in events
    x: Tensor | None
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    ended: int = -1
    y: Tensor | None = None
    whole: tuple[bool, bool] = (False, False)  # x and y were [batch, length, width]

    @property
    def root(self) -> str:
        """The block's child that it is, or is inside."""
        return self.name.partition(".")[0]

    @property
    def depth(self) -> int:
        return self.name.count(".")

    @property
    def has_matrices(self) -> bool:
        """Whether it computes more than a norm, an activation function or a dropout does."""
        return holds_matrices(self.module)

    @property
    def has_parameters(self) -> bool:
        return self.has_matrices or next(self.module.parameters(), None) is not None


def holds_matrices(module: nn.Module) -> bool:
    """Whether a module contains matrices; quantised ones may be buffers."""
    tensors = chain(module.parameters(), module.buffers())
    return any(tensor.ndim > 1 for tensor in tensors)


@dataclass
class BlockRecord:
    """A block's stream before and after, and the calls inside."""

    name: str
    pre: Tensor | None  # as in `Call`
    post: Tensor | None
    pre_shape: tuple[int, ...]
    post_shape: tuple[int, ...]
    rounding: float  # eps of the model's dtype
    calls: list[Call] = field(default_factory=list)

    def width(self, call_name: str, of_input: bool) -> int | None:
        """The width of a module's input or output, if that is [batch, length, width]."""
        for call in self.calls:
            tensor = call.x if of_input else call.y
            if call.name == call_name and tensor is not None and call.whole[not of_input]:
                return tensor.shape[1]
        return None

    def roots(self) -> list[Call]:
        """The calls of the block's own children."""
        return [call for call in self.calls if not call.depth]


def record_blocks(lm: HookedModel, blocks: Sequence[str], visit: Any) -> None:
    """Runs a probe to the last of `blocks` and passes each one's record to `visit`, which must not
    keep it: only one block's tensors are held at a time."""
    ids = probe_ids(lm)
    left = set(blocks)
    handles: list[Any] = []
    for name in blocks:
        recorder = _Recorder(lm.model.get_submodule(name), name, ids.shape[0], ids.shape[1])

        def done(record: BlockRecord) -> None:
            visit(record)
            left.discard(record.name)
            if not left:
                raise StopPass

        handles += recorder.register(done)
    try:
        run_probe(lm, ids)
    finally:
        for handle in handles:
            handle.remove()


class _Recorder:
    def __init__(self, block: nn.Module, name: str, batch: int, length: int) -> None:
        self._block, self._name = block, name
        self._batch, self._length = batch, length
        self._clock = 0
        self._open: dict[str, Call] = {}
        self._record: BlockRecord | None = None

    def register(self, done: Any) -> list[Any]:
        handles = [
            self._block.register_forward_pre_hook(self._begin, with_kwargs=True),
            self._block.register_forward_hook(lambda _, __, out: self._end(out, done)),
        ]
        for name, module in inside(self._block):
            handles.append(
                module.register_forward_pre_hook(
                    lambda module, args, kwargs, name=name: self._enter(name, module, args, kwargs),
                    with_kwargs=True,
                )
            )
            handles.append(
                module.register_forward_hook(lambda _, __, out, name=name: self._leave(name, out))
            )
        return handles

    def _begin(self, _: nn.Module, args: Any, kwargs: Any) -> None:
        if self._record is not None:  # replayed, or a block that runs twice
            return
        x = input_tensor(args, kwargs)
        eps = torch.finfo(x.dtype).eps if x.is_floating_point() else 0.0
        self._record = BlockRecord(self._name, self._rows(x), None, tuple(x.shape), (), eps)

    def _end(self, output: Any, done: Any) -> None:
        record = self._record
        if record is None or record.post_shape:
            return
        y = first_tensor(output)
        record.post, record.post_shape = self._rows(y), tuple(y.shape)
        self._open.clear()
        done(record)
        record.calls.clear()

    def _enter(self, name: str, module: nn.Module, args: Any, kwargs: Any) -> None:
        if self._record is None or self._record.post_shape or name in self._open:
            return
        try:
            tensor = input_tensor(args, kwargs)
        except UserError:
            return
        kept = (args, dict(kwargs)) if name.count(".") < 2 else ((), {})
        call = Call(name, module, self._tick(), self._rows(tensor), *kept)
        call.whole = tensor.ndim == 3, False
        self._open[name] = call
        self._record.calls.append(call)

    def _leave(self, name: str, output: Any) -> Any:
        """The output that the pass continues with; None for the module's own."""
        call = self._open.get(name)
        if self._record is None or call is None or call.ended >= 0:
            return None
        call.ended = self._tick()
        try:
            tensor = first_tensor(output)
        except UserError:
            return None
        call.y, call.whole = self._rows(tensor), (call.whole[0], tensor.ndim == 3)
        if call.y is None or bool(call.y.any()):
            return None
        # A pruned or new module adds zeros: only other values show what it would add to.
        filled = self._noise(tensor)
        call.y = self._rows(filled)
        return replace_tensor(output, filled)

    def _noise(self, like: Tensor) -> Tensor:
        """Random values as large as the stream's, the same every time."""
        pre = self._record.pre if self._record is not None else None
        size = float(pre.std()) if pre is not None else 1.0
        noise = torch.randn(like.shape, generator=torch.Generator().manual_seed(self._clock))
        return (noise * (size or 1.0)).to(like.device, like.dtype)

    def _tick(self) -> int:
        self._clock += 1
        return self._clock

    def _rows(self, tensor: Tensor) -> Tensor | None:
        """A copy: some blocks add to a sub-layer's output in place."""
        tokens = self._batch * self._length
        whole = tuple(tensor.shape[:2]) == (self._batch, self._length) and tensor.ndim == 3
        if not whole and not (tensor.ndim == 2 and tensor.shape[0] == tokens):
            return None
        return tensor.detach().reshape(tokens, -1).to("cpu", torch.float32, copy=True)


def inside(block: nn.Module) -> list[tuple[str, nn.Module]]:
    """Modules below a block by their names in it; not too deep, and no experts."""
    found = []
    experts = [
        name
        for name, module in block.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) > _EXPERTS
    ]
    for name, module in block.named_modules():
        if not name or name.count(".") >= _DEEPEST or isinstance(module, nn.ModuleList):
            continue
        if any(name.startswith(f"{one}.") for one in experts):
            continue
        found.append((name, module))
    return found
