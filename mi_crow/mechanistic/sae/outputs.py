"""What an SAE gives back: sparse latents, reconstructions, training losses and their context."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from mi_crow.mechanistic.sae.kernels.bags import dense_latents


class SparseLatents(NamedTuple):
    """The latents of n tokens, only those that may be active.

    A zero means inactive; only a `signed` SAE has values below it. TopK holds k places a token, no
    index twice; rules that keep different numbers of latents hold as many places as the fullest
    token needs, and the places that a token does not use point at latent 0 with the value 0.
    """

    values: Tensor  # [..., k]
    indices: Tensor  # int64 [..., k]

    def dense(self, n_latents: int) -> Tensor:
        """[..., M] with zeros where nothing is active."""
        shape = self.values.shape
        flat = dense_latents(
            self.values.reshape(-1, shape[-1]), self.indices.reshape(-1, shape[-1]), n_latents
        )
        return flat.view(*shape[:-1], n_latents)


def activations_of(latents: SparseLatents, features: Tensor) -> Tensor:
    """Activations [..., f] of the latents `features`, int64 [f], from sparse ones [..., k]."""
    columns = [
        (latents.values * (latents.indices == feature)).sum(-1) for feature in features.unbind()
    ]
    if not columns:
        return latents.values.new_zeros(*latents.values.shape[:-1], 0)
    return torch.stack(columns, dim=-1)


class Weights(NamedTuple):
    """Weights under a linear layer's names; views of the parameters."""

    weight: Tensor
    bias: Tensor


class SaeOutput(NamedTuple):
    """One pass over n tokens at inference."""

    reconstruction: Tensor  # [..., d]
    latents: SparseLatents


class TrainingOutput(NamedTuple):
    """One pass over n tokens in training."""

    losses: dict[str, Tensor]  # named scalars that add up to the training loss
    fvu: Tensor  # squared error by the variance of the targets: the part everyone compares
    fired: Tensor  # int64, any shape: the latents that fired, n_latents in place of none


@dataclass(frozen=True)
class LossContext:
    """What a training loss needs to know besides the batch."""

    variance: float  # mean squared distance of a target from the mean target, training units
    dead: Tensor | None = None  # int64 ids of latents that count as dead; None without any
    n_dead: int | None = None  # how many count as dead where `dead` has only some of them
    aux_alpha: float = 0.0
    k_aux: int = 1
    sparsity: Tensor | float = 0.0  # coefficient of the sparsity loss
    target_l0: float | None = None  # latents a token that the sparsity loss is to lead to
