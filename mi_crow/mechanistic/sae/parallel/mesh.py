"""Processes in two dimensions: several copies of an SAE share the tokens of each batch, and the
processes of each copy share its latents.

Neighbours share latents, which takes more messages a step; with a GPU each they are on one machine.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from mi_crow.mechanistic.sae.parallel.settings import check_copies
from mi_crow.mechanistic.sae.sharing import (
    SINGLE_PROCESS,
    GroupSharing,
    LatentSharing,
    Sharing,
    TokenSharing,
    new_group,
)
from mi_crow.ranks import Ranks
from mi_crow.store.runs.reads import Reads

GRADIENT_DTYPES: dict[str, torch.dtype | None] = {"fp32": None, "bf16": torch.bfloat16}


class MeshSharing(Sharing):
    """Each process has some of the latents and part of every batch."""

    single_process = False
    splits_latents = True

    def __init__(
        self,
        ranks: Ranks,
        device: torch.device,
        n_latents: int,
        copies: int,
        gradients: torch.dtype | None = None,
    ) -> None:
        """Collective. `copies` divides the number of processes. Raises UserError for fewer latents
        than processes of a copy."""
        super().__init__(ranks)
        self.device: torch.device | None = device
        shards = ranks.world // copies
        copy, shard = divmod(ranks.rank, shards)
        self._all = GroupSharing(ranks, device)
        of_tokens = [list(range(one, ranks.world, shards)) for one in range(shards)]
        of_latents = [list(range(one * shards, (one + 1) * shards)) for one in range(copies)]
        groups = [[new_group(device, members) for members in of] for of in (of_tokens, of_latents)]
        self._tokens = TokenSharing(ranks, device, gradients, (groups[0][shard], copy, copies))
        self._latents = LatentSharing(ranks, device, n_latents, (groups[1][copy], shard, shards))
        self.first_latent: int = self._latents.first_latent

    def sum_gradient(self, x: Tensor) -> Tensor:
        return self._latents.sum_gradient(x)

    def sum_over_latents(self, part: Tensor) -> Tensor:
        return self._latents.sum_over_latents(part)

    def batch_mean(self, total: Tensor, n: int) -> Tensor:
        return self._tokens.batch_mean(total, n)

    def keep_top_k(self, values: Tensor, k: int) -> Tensor:
        return self._latents.keep_top_k(values, k)

    def nth_largest(self, values: Tensor, n: int) -> Tensor:
        return self._all.nth_largest(values, n)

    def minimum(self, value: Tensor) -> Tensor:
        return self._all.minimum(value)

    def total(self, value: Tensor) -> Tensor:
        return self._all.total(value)

    def total_over_tokens(self, value: Tensor) -> Tensor:
        return self._tokens.total(value)

    def total_over_latents(self, value: Tensor) -> Tensor:
        return self._latents.total(value)

    def reads(self, *, pinned: bool = False) -> Reads:
        return self._tokens.reads(pinned=pinned)

    def begin_last_piece(self) -> None:
        self._tokens.begin_last_piece()

    def reduce_gradients(self, parameters: Iterable[Tensor]) -> None:
        self._tokens.reduce_gradients(parameters)

    def own_latents(self, tensor: Tensor) -> Tensor:
        return self._latents.own_latents(tensor)

    def gather_latents(self, tensor: Tensor) -> Tensor:
        return self._latents.gather_latents(tensor)

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        self._all.broadcast(tensors)


def open_sharing(
    ranks: Ranks,
    kind: str,
    device: torch.device,
    n_latents: int,
    copies: int = 1,
    gradients: str = "fp32",
) -> Sharing:
    """How `ranks` split the training of an SAE with `n_latents`: its tokens, its latents, or with
    several `copies` both. `gradients` is what they are sent in. Collective. Raises UserError."""
    if ranks.world == 1:
        return SINGLE_PROCESS
    sent_in = GRADIENT_DTYPES[gradients]
    if kind == "tokens":
        return TokenSharing(ranks, device, sent_in)
    check_copies(ranks.world, copies)
    if copies == 1:
        return LatentSharing(ranks, device, n_latents)
    return MeshSharing(ranks, device, n_latents, copies, sent_in)
