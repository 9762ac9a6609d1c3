"""Several processes train one SAE: they split the tokens of each batch, or the latents.

With tokens split (data parallel) every process holds the whole SAE, works on its part of each
batch, and gradients and firing counts are summed. With latents split (tensor parallel, for SAEs
too wide for one device) every process sees the whole batch and holds some of the latents: it
encodes with those, the top k are chosen among all, and the partial reconstructions are summed.
Shoeybi et al. 2019, "Megatron-LM", section 3, gives the pair of operators at the boundaries: one
sums in the forward pass and passes gradients through, the other the reverse.

Architectures call a `Sharing` wherever a sum runs over all tokens of a batch or over all latents;
that of a single process, `SINGLE_PROCESS`, returns everything unchanged.
"""

# `backward` names its gradients, where torch declares `*grad_outputs`.
# pyright: reportIncompatibleMethodOverride=false

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from torch.nn import functional

from mi_crow.mechanistic.sae.parallel.buckets import GradientBuckets
from mi_crow.mechanistic.sae.parallel.settings import check_latents
from mi_crow.ranks import ALONE, Ranks
from mi_crow.store.runs.reads import Reads

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import ProcessGroup


class Sharing:
    """A single process, which has all tokens and all latents."""

    single_process = True
    splits_latents = False
    first_latent = 0  # index of this process's first latent among all
    device: torch.device | None = None  # where each process trains its part

    def __init__(self, ranks: Ranks = ALONE) -> None:
        self.ranks = ranks

    # Called in the forward pass; differentiable.

    def sum_gradient(self, x: Tensor) -> Tensor:
        """x unchanged, for this process's latents; its gradient is summed over processes."""
        return x

    def sum_over_latents(self, part: Tensor) -> Tensor:
        """A sum over this process's latents, of any shape, completed to all latents."""
        return part

    def batch_mean(self, total: Tensor, n: int) -> Tensor:
        """Mean over all tokens of a batch, from the sum over this process's n; its gradient is that
        of the mean over those n."""
        return total / n

    def keep_top_k(self, values: Tensor, k: int) -> Tensor:
        """values [n, <= k] >= 0, set to zero where they are not among their token's k largest over
        all latents."""
        return values

    def nth_largest(self, values: Tensor, n: int) -> Tensor:
        """The n-th largest of all processes' values [e], of which there are at least n in total."""
        return values.topk(n, sorted=False).values.min()

    def minimum(self, value: Tensor) -> Tensor:
        """The minimum over processes."""
        return value

    # Plain sums, without gradients.

    def total(self, value: Tensor) -> Tensor:
        """The sum over processes."""
        return value

    def total_over_tokens(self, value: Tensor) -> Tensor:
        """A sum over this process's tokens, completed to the whole batch."""
        return value

    def total_over_latents(self, value: Tensor) -> Tensor:
        """A sum over this process's latents, completed to all latents."""
        return value

    # Called by the trainer.

    def reads(self, *, pinned: bool = False) -> Reads:
        """Which rows of each batch this process reads; `pinned`: for a GPU."""
        return Reads(pinned=pinned)

    def begin_last_piece(self) -> None:
        """The next backward pass completes the gradients of a batch: they may be summed as soon as
        they are there."""

    def reduce_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Sums the gradients of the parts of a batch, in place."""

    def own_latents(self, tensor: Tensor) -> Tensor:
        """This process's part of a tensor [M, ...]."""
        return tensor

    def gather_latents(self, tensor: Tensor) -> Tensor:
        """All latents' tensor [M, ...], on every process, from the parts [m, ...]."""
        return tensor

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Overwrites the tensors with those of the first process, in place."""


SINGLE_PROCESS = Sharing()


def new_group(device: torch.device, members: Sequence[int] | None = None) -> "ProcessGroup":
    """A group of processes (None: all) that tensors of `device` go around in: CUDA by NCCL, else
    gloo. All processes call it, also those that are no members."""
    import torch.distributed as dist

    kind = "nccl" if device.type == "cuda" else "gloo"
    group = dist.new_group(None if members is None else list(members), backend=kind)
    assert group is not None
    return cast("ProcessGroup", group)


class GroupSharing(Sharing):
    """What both ways of splitting share: a process group with collectives."""

    single_process = False

    def __init__(
        self, ranks: Ranks, device: torch.device, of: "tuple[ProcessGroup, int, int] | None" = None
    ) -> None:
        """Collective: all processes call it, in the same order. `of`: the group of processes that
        split, this one's number in it, and how many they are; None: a new one of all."""
        super().__init__(ranks)
        self.device: torch.device | None = device
        self._group, self._rank, self._size = of or (new_group(device), ranks.rank, ranks.world)

    def total(self, value: Tensor) -> Tensor:
        import torch.distributed as dist

        summed = value.detach().clone(memory_format=torch.contiguous_format)
        dist.all_reduce(summed, group=self._group)
        return summed

    def minimum(self, value: Tensor) -> Tensor:
        import torch.distributed as dist

        found = value.detach().clone()
        dist.all_reduce(found, dist.ReduceOp.MIN, group=self._group)
        return found

    def nth_largest(self, values: Tensor, n: int) -> Tensor:
        own = values.detach()
        if own.numel() > n:
            own = own.topk(n, sorted=False).values
        longest = -self.minimum(torch.tensor(-own.numel(), device=own.device))
        missing = int(longest) - own.numel()
        offered = self._gathered(functional.pad(own, (0, missing), value=-torch.inf))
        return offered.topk(n, sorted=False).values.min()

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        import torch.distributed as dist

        for tensor in tensors:
            sent = tensor.detach().contiguous()
            dist.broadcast(sent, group=self._group, group_src=0)
            tensor.detach().copy_(sent)

    def _gathered(self, values: Tensor) -> Tensor:
        """The values [..., e] of all processes, concatenated."""
        import torch.distributed as dist

        gathered = [torch.empty_like(values) for _ in range(self._size)]
        dist.all_gather(gathered, values.contiguous(), group=self._group)
        return torch.cat(gathered, dim=-1)


class TokenSharing(GroupSharing):
    """Data parallel: each process has part of every batch and the whole SAE."""

    def __init__(
        self,
        ranks: Ranks,
        device: torch.device,
        gradients: torch.dtype | None = None,
        of: "tuple[ProcessGroup, int, int] | None" = None,
    ) -> None:
        """`gradients`: what they are sent in; None: in their own dtype."""
        super().__init__(ranks, device, of)
        self._buckets = GradientBuckets(self._group, ranks.agree, gradients)

    def batch_mean(self, total: Tensor, n: int) -> Tensor:
        mean = total / n
        sums = self.total(torch.stack([total.detach(), total.new_tensor(float(n))]))
        return mean + (sums[0] / sums[1] - mean).detach()

    def total_over_tokens(self, value: Tensor) -> Tensor:
        return self.total(value)

    def reads(self, *, pinned: bool = False) -> Reads:
        return Reads(self._rank, self._size, pinned)

    def begin_last_piece(self) -> None:
        self._buckets.begin()

    def reduce_gradients(self, parameters: Iterable[Tensor]) -> None:
        self._buckets.finish(parameters)


class LatentSharing(GroupSharing):
    """Tensor parallel: each process has some of the latents and every batch in full."""

    splits_latents = True

    def __init__(
        self,
        ranks: Ranks,
        device: torch.device,
        n_latents: int,
        of: "tuple[ProcessGroup, int, int] | None" = None,
    ) -> None:
        """Raises UserError for fewer latents than processes."""
        world = ranks.world if of is None else of[2]
        check_latents(n_latents, world)
        super().__init__(ranks, device, of)
        numbers = torch.arange(n_latents).tensor_split(world)
        self.first_latent: int = int(numbers[self._rank][0])
        self._sizes = [len(part) for part in numbers]

    def sum_gradient(self, x: Tensor) -> Tensor:
        entered: Tensor = _SumBackward.apply(x, self)
        return entered

    def sum_over_latents(self, part: Tensor) -> Tensor:
        whole: Tensor = _SumForward.apply(part, self)
        return whole

    def keep_top_k(self, values: Tensor, k: int) -> Tensor:
        own = values.shape[1]
        padded = functional.pad(values.detach(), (0, k - own), value=-1.0)
        offered = self._gathered(padded)  # [n, world * k]
        chosen = offered.topk(k, dim=1, sorted=False).indices
        kept = torch.zeros_like(offered, dtype=torch.bool).scatter_(1, chosen, True)
        begin = self._rank * k
        return values * kept[:, begin : begin + own]

    def total_over_latents(self, value: Tensor) -> Tensor:
        return self.total(value)

    def own_latents(self, tensor: Tensor) -> Tensor:
        return tensor.split(self._sizes)[self._rank]

    def gather_latents(self, tensor: Tensor) -> Tensor:
        import torch.distributed as dist

        parts = [tensor.new_empty(size, *tensor.shape[1:]) for size in self._sizes]
        parts[self._rank] = tensor.detach().contiguous()
        for rank, part in enumerate(parts):
            dist.broadcast(part, group=self._group, group_src=rank)
        return torch.cat(parts)


class _SumForward(torch.autograd.Function):
    """The sum over processes; the gradient, equal on all of them, passes through."""

    @staticmethod
    def forward(ctx: Any, part: Tensor, shares: GroupSharing) -> Tensor:
        return shares.total(part)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return grad, None


class _SumBackward(torch.autograd.Function):
    """The identity; its gradient is the sum over processes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, shares: GroupSharing) -> Tensor:
        ctx.shares = shares
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return ctx.shares.total(grad), None
