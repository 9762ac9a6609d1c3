"""Gradients summed over processes in buckets, each as soon as the backward pass has made it.

Li et al. 2020, "PyTorch Distributed", section 3.2. An SAE has few parameters, two of them large: a
bucket is a stretch of a large one, or all small ones together.
"""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import ProcessGroup

BUCKET_BYTES = 64 << 20
_SMALL_BYTES = 1 << 20


class GradientBuckets:
    """Sums the gradients of a step. All processes make the same calls in the same order."""

    def __init__(
        self,
        group: "ProcessGroup",
        agree: Callable[[Any], Any],
        kind: torch.dtype | None = None,
        bucket_bytes: int = BUCKET_BYTES,
    ) -> None:
        """`agree`: see `Ranks.agree`. `kind`: what gradients are sent in; None: as they are."""
        self._group, self._agree, self._kind = group, agree, kind
        self._bucket_bytes = bucket_bytes
        self._parameters: list[Tensor] = []
        self._order: list[int] = []  # in which they become ready; known from the second step on
        self._ready: list[int] = []
        self._launched = 0
        self._awaited = False
        self._pending: list[tuple[Any, Tensor, Tensor]] = []  # work, what was sent, where it goes
        self._small: list[Tensor] = []

    def watch(self, parameters: Iterable[Tensor]) -> None:
        """From the next `begin` on, sums these as soon as they have their gradients."""
        self._parameters = list(parameters)
        for number, parameter in enumerate(self._parameters):
            parameter.register_post_accumulate_grad_hook(self._hook(number))

    def begin(self) -> None:
        """The backward pass that follows completes the gradients of the step."""
        self._ready, self._launched, self._awaited = [], 0, True

    def finish(self, parameters: Iterable[Tensor]) -> None:
        """Returns when the gradients of all parameters are sums over processes."""
        self._awaited = False
        if not self._parameters:
            self.watch(parameters)
        elif not self._order:
            rest = [one for one in range(len(self._parameters)) if one not in self._ready]
            self._order = [int(number) for number in self._agree([*self._ready, *rest])]
        for number in (self._order or range(len(self._parameters)))[self._launched :]:
            self._launch(self._parameters[number])
        self._launch_small()
        for work, sent, target in self._pending:
            work.wait()
            if sent is not target:
                target.copy_(sent)
        self._pending.clear()

    def _hook(self, number: int) -> Callable[[Tensor], None]:
        def ready(_: Tensor) -> None:
            if not self._awaited:
                return
            self._ready.append(number)
            # In the order that all have agreed on, whatever this process's was.
            while self._launched < len(self._order):
                following = self._order[self._launched]
                if following not in self._ready:
                    return
                self._launch(self._parameters[following])
                self._launched += 1

        return ready

    def _launch(self, parameter: Tensor) -> None:
        gradient = parameter.grad
        if gradient is None:
            return
        if gradient.nbytes < _SMALL_BYTES:
            self._small.append(gradient)
        elif not gradient.is_contiguous():
            self._send(gradient)
        else:
            for stretch in gradient.view(-1).split(self._bucket_bytes // gradient.itemsize):
                self._send(stretch)

    def _launch_small(self) -> None:
        if not self._small:
            return
        together = torch.cat([one.reshape(-1) for one in self._small])
        self._send(together)
        sizes = [one.numel() for one in self._small]
        for one, part in zip(self._small, together.split(sizes), strict=True):
            self._pending.append((_Done(), part.view(one.shape), one))
        self._small = []

    def _send(self, values: Tensor) -> None:
        import torch.distributed as dist

        sent = values if self._kind is None else values.to(self._kind)
        work = dist.all_reduce(sent, group=self._group, async_op=True)
        self._pending.append((work or _Done(), sent, values))


class _Done:
    """Work that needs no waiting for."""

    def wait(self) -> None:
        pass
