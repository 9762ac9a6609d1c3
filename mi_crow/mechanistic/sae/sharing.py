"""Several processes train one SAE: each has a share of the tokens, or a share of the latents.

With tokens shared (data parallel) every process holds the whole SAE, works on its part of each
batch, and gradients and firing counts are summed. With latents shared (tensor parallel, for SAEs
too wide for one device) every process sees the whole batch and holds some of the latents: it
encodes with those, the k strongest are chosen among all, and what the shares decode to is summed.
Shoeybi et al. 2019, "Megatron-LM", section 3, has the pair of operators at the borders: one sums on
the way forward and passes gradients on, the other the reverse.

Architectures call a `Sharing` where a sum runs over all tokens of a batch or over all latents; the
one of a single process, `WHOLE`, gives everything back as it came.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from mi_crow.errors import UserError
from mi_crow.ranks import ALONE, Ranks


class Sharing:
    """One process that has all tokens and all latents."""

    alone = True
    latents_apart = False
    first_latent = 0  # number of this process's first latent among all
    device: torch.device | None = None  # where the shares are trained

    def __init__(self, ranks: Ranks = ALONE) -> None:
        self.ranks = ranks

    # What a forward pass asks for.

    def entering(self, x: Tensor) -> Tensor:
        """x on its way into the latents at hand, its gradient summed over all shares of them."""
        return x

    def latent_sum(self, part: Tensor) -> Tensor:
        """A sum over the latents at hand, of any shape, completed to one over all latents."""
        return part

    def batch_mean(self, total: Tensor, n: int) -> Tensor:
        """Mean over all tokens of a batch, from the sum over the n at hand; its gradient is that of
        the mean over those."""
        return total / n

    def strongest(self, values: Tensor, k: int) -> Tensor:
        """values [n, <= k] >= 0 with zeros where they are not among the k largest of their token
        over all latents."""
        return values

    def nth_largest(self, values: Tensor, n: int) -> Tensor:
        """The n-th largest of the values [e] of all processes, which have at least n together."""
        return values.topk(n, sorted=False).values.min()

    def least(self, value: Tensor) -> Tensor:
        """The least of what the processes have."""
        return value

    # Plain sums, without gradients.

    def total(self, value: Tensor) -> Tensor:
        """The sum of what the processes have."""
        return value

    def over_tokens(self, value: Tensor) -> Tensor:
        """A sum over the tokens at hand, completed to one over the batch."""
        return value

    def over_latents(self, value: Tensor) -> Tensor:
        """A sum over the latents at hand, completed to one over all."""
        return value

    # What the trainer asks for.

    def own_tokens(self, batch: Tensor) -> Tensor:
        """This process's part of a batch [n, d]."""
        return batch

    def reduce_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Makes the gradients of the batch from those of its parts."""

    def own_latents(self, tensor: Tensor) -> Tensor:
        """This process's part of a tensor [M, ...]."""
        return tensor

    def all_latents(self, tensor: Tensor) -> Tensor:
        """The whole of a tensor [m, ...] that holds the latents at hand, on every process."""
        return tensor

    def settle(self, tensors: Iterable[Tensor]) -> None:
        """Gives every process the first one's tensors, in place, where all are to be alike."""


WHOLE = Sharing()


class _Shares(Sharing):
    """What both ways have in common: a group of processes that add up tensors."""

    alone = False

    def __init__(self, ranks: Ranks, device: torch.device) -> None:
        """All processes call it, in the same order. CUDA tensors travel by NCCL, others by gloo."""
        import torch.distributed as dist

        super().__init__(ranks)
        self.device = device
        group = dist.new_group(backend="nccl" if device.type == "cuda" else "gloo")
        assert isinstance(group, dist.ProcessGroup)  # every rank is in it
        self._group = group

    def total(self, value: Tensor) -> Tensor:
        import torch.distributed as dist

        summed = value.detach().clone(memory_format=torch.contiguous_format)
        dist.all_reduce(summed, group=self._group)
        return summed

    def least(self, value: Tensor) -> Tensor:
        import torch.distributed as dist

        found = value.detach().clone()
        dist.all_reduce(found, dist.ReduceOp.MIN, group=self._group)
        return found

    def nth_largest(self, values: Tensor, n: int) -> Tensor:
        own = values.detach()
        if own.numel() > n:
            own = own.topk(n, sorted=False).values
        longest = -self.least(torch.tensor(-own.numel(), device=own.device))
        missing = int(longest) - own.numel()
        offered = self._gathered(functional.pad(own, (0, missing), value=-torch.inf))
        return offered.topk(n, sorted=False).values.min()

    def settle(self, tensors: Iterable[Tensor]) -> None:
        import torch.distributed as dist

        for tensor in tensors:
            sent = tensor.detach().contiguous()
            dist.broadcast(sent, 0, group=self._group)
            tensor.detach().copy_(sent)

    def _gathered(self, values: Tensor) -> Tensor:
        """The values [..., e] of all processes side by side."""
        import torch.distributed as dist

        gathered = [torch.empty_like(values) for _ in range(self.ranks.world)]
        dist.all_gather(gathered, values.contiguous(), group=self._group)
        return torch.cat(gathered, dim=-1)


class TokenShares(_Shares):
    """Data parallel: each process has part of every batch and the whole SAE."""

    def batch_mean(self, total: Tensor, n: int) -> Tensor:
        mean = total / n
        sums = self.total(torch.stack([total.detach(), total.new_tensor(float(n))]))
        return mean + (sums[0] / sums[1] - mean).detach()

    def over_tokens(self, value: Tensor) -> Tensor:
        return self.total(value)

    def own_tokens(self, batch: Tensor) -> Tensor:
        return batch.tensor_split(self.ranks.world)[self.ranks.rank]

    def reduce_gradients(self, parameters: Iterable[Tensor]) -> None:
        import torch.distributed as dist

        # All at once, so that a fast network can work on several.
        waiting = [
            dist.all_reduce(parameter.grad, group=self._group, async_op=True)
            for parameter in parameters
            if parameter.grad is not None
        ]
        for work in waiting:
            if work is not None:
                work.wait()


class LatentShares(_Shares):
    """Tensor parallel: each process has some of the latents and the whole of every batch."""

    latents_apart = True

    def __init__(self, ranks: Ranks, device: torch.device, n_latents: int) -> None:
        """Raises UserError for fewer latents than processes."""
        if n_latents < ranks.world:
            raise UserError(
                f"{n_latents} latents cannot be shared by {ranks.world} processes",
                hint="use fewer processes",
            )
        super().__init__(ranks, device)
        numbers = torch.arange(n_latents).tensor_split(ranks.world)
        self.first_latent = int(numbers[ranks.rank][0])
        self._sizes = [len(part) for part in numbers]

    def entering(self, x: Tensor) -> Tensor:
        entered: Tensor = _SumBackward.apply(x, self)
        return entered

    def latent_sum(self, part: Tensor) -> Tensor:
        whole: Tensor = _SumForward.apply(part, self)
        return whole

    def strongest(self, values: Tensor, k: int) -> Tensor:
        own = values.shape[1]
        padded = functional.pad(values.detach(), (0, k - own), value=-1.0)
        offered = self._gathered(padded)  # [n, world * k]
        chosen = offered.topk(k, dim=1, sorted=False).indices
        kept = torch.zeros_like(offered, dtype=torch.bool).scatter_(1, chosen, True)
        begin = self.ranks.rank * k
        return values * kept[:, begin : begin + own]

    def over_latents(self, value: Tensor) -> Tensor:
        return self.total(value)

    def own_latents(self, tensor: Tensor) -> Tensor:
        return tensor.split(self._sizes)[self.ranks.rank]

    def all_latents(self, tensor: Tensor) -> Tensor:
        import torch.distributed as dist

        parts = [tensor.new_empty(size, *tensor.shape[1:]) for size in self._sizes]
        parts[self.ranks.rank] = tensor.detach().contiguous()
        for rank, part in enumerate(parts):
            dist.broadcast(part, rank, group=self._group)
        return torch.cat(parts)


class _SumForward(torch.autograd.Function):
    """The sum over processes; the gradient, the same everywhere, goes to each share."""

    @staticmethod
    def forward(ctx: Any, part: Tensor, shares: _Shares) -> Tensor:
        return shares.total(part)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return grad, None


class _SumBackward(torch.autograd.Function):
    """The same tensor everywhere; its gradient is the sum of what the shares give back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, shares: _Shares) -> Tensor:
        ctx.shares = shares
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return ctx.shares.total(grad), None


def open_sharing(ranks: Ranks, kind: str, device: torch.device, n_latents: int) -> Sharing:
    """How `ranks` share the training of an SAE with `n_latents`; all of them call it together."""
    if ranks.world == 1:
        return WHOLE
    if kind == "latents":
        return LatentShares(ranks, device, n_latents)
    return TokenShares(ranks, device)
