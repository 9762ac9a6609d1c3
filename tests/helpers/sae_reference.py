"""Every architecture written out with [tokens, latents] tensors and nothing clever."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from mi_crow.mechanistic.sae import (
    BatchTopKSae,
    GatedSae,
    JumpReluSae,
    JumpReluTranscoder,
    L1Sae,
    MatryoshkaSae,
    ReluTranscoder,
    SparseAutoencoder,
    TopKSae,
    Transcoder,
)
from mi_crow.mechanistic.sae.base import LossContext
from mi_crow.mechanistic.sae.rules.abstopk import AbsTopKSae
from mi_crow.mechanistic.sae.rules.groupmax import GroupMaxSae, GroupMaxTranscoder

N, D, M, K, OUT = 9, 6, 40, 3, 5

Maker = Callable[..., SparseAutoencoder]

MAKERS: dict[str, Maker] = {
    "topk": lambda **rest: TopKSae(M, D, K, **rest),
    "groupmax": lambda **rest: GroupMaxSae(M, D, 4, **rest),
    "abstopk": lambda **rest: AbsTopKSae(M, D, K, **rest),
    "batchtopk": lambda **rest: BatchTopKSae(M, D, K, **rest),
    "matryoshka": lambda **rest: MatryoshkaSae(M, D, K, **rest),
    "jumprelu": lambda **rest: JumpReluSae(M, D, bandwidth=0.2, **rest),
    "l1": lambda **rest: L1Sae(M, D, **rest),
    "gated": lambda **rest: GatedSae(M, D, **rest),
    "transcoder": lambda **rest: Transcoder(M, D, OUT, K, skip=True, **rest),
    "transcoder-groupmax": lambda **rest: GroupMaxTranscoder(M, D, OUT, 4, **rest),
    "transcoder-l1": lambda **rest: ReluTranscoder(M, D, OUT, **rest),
    "transcoder-jumprelu": lambda **rest: JumpReluTranscoder(
        M, D, OUT, skip=True, bandwidth=0.2, **rest
    ),
}


def noisy(name: str, seed: int = 1) -> SparseAutoencoder:
    """An SAE in double precision with no parameter at a special value."""
    sae = MAKERS[name](dtype=torch.float64, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in sae.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
            parameter.add_(0.3 * noise)
        threshold = getattr(sae, "threshold", None)
        if threshold is not None:
            threshold.fill_(0.4) if isinstance(sae, BatchTopKSae) else threshold.abs_()
    return sae


def tokens(seed: int = 2) -> tuple[Tensor, Tensor]:
    """Inputs [N, D] and targets [N, OUT]."""
    both = torch.randn(
        N, D + OUT, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    return both[:, :D], both[:, D:]


def pre_activations(sae: SparseAutoencoder, x: Tensor) -> Tensor:
    taken = x - sae.b_dec if sae.apply_b_dec_to_input else x
    return taken @ sae.encoder_rows.T + sae.encoder_bias


def dense_latents(sae: SparseAutoencoder, x: Tensor) -> Tensor:
    """The rule of inference: [N, M]."""
    pre = pre_activations(sae, x)
    if isinstance(sae, GroupMaxSae):
        best = pre.unflatten(1, (sae.k, -1)).max(dim=2, keepdim=True)
        groups = torch.zeros(len(x), sae.k, M // sae.k, dtype=pre.dtype)
        return groups.scatter(2, best.indices, best.values.relu()).flatten(1)
    if isinstance(sae, AbsTopKSae):
        largest = pre.abs().topk(sae.k, dim=1).indices
        return torch.zeros_like(pre).scatter(1, largest, pre.gather(1, largest))
    if isinstance(sae, TopKSae):
        top = pre.topk(sae.k, dim=1)
        return torch.zeros_like(pre).scatter(1, top.indices, top.values.relu())
    if isinstance(sae, BatchTopKSae | JumpReluSae):
        return pre.relu() * (pre > sae.threshold)
    if isinstance(sae, GatedSae):
        return (pre > 0) * magnitudes(sae, x)
    return pre.relu()


def magnitudes(sae: GatedSae, x: Tensor) -> Tensor:
    return ((x - sae.b_dec) @ (sae.encoder_rows.T * sae.r_mag.exp()) + sae.b_mag).relu()


def decoded(sae: SparseAutoencoder, z: Tensor, x: Tensor) -> Tensor:
    out = z @ sae.W_dec + sae.b_dec
    return out if sae.W_skip is None else out + x @ sae.W_skip.T


def dense_losses(
    sae: SparseAutoencoder, x: Tensor, target: Tensor, context: LossContext
) -> dict[str, Tensor]:
    """The training losses without AuxK."""
    total = context.variance * len(x)

    def share(rebuilt: Tensor) -> Tensor:
        return (target - rebuilt).square().sum() / total

    pre = pre_activations(sae, x)
    if isinstance(sae, BatchTopKSae):
        flat = pre.relu().flatten()
        top = flat.topk(sae.k * len(x))
        z = torch.zeros_like(flat).scatter(0, top.indices, top.values).view_as(pre)
        if isinstance(sae, MatryoshkaSae):
            parts = [share(decoded_prefix(sae, z, width)) for width in sae.widths]
            return {
                "reconstruction": parts[-1] / len(parts),
                "nested": torch.stack(parts[:-1]).sum() / len(parts),
            }
        return {"reconstruction": share(decoded(sae, z, x))}
    if isinstance(sae, JumpReluSae):
        z, step = surrogate_jump(pre, sae.threshold, sae.bandwidth * math.sqrt(D))
        l0 = step.sum() / len(x)
        if context.target_l0 is not None:
            l0 = (l0 / context.target_l0 - 1).square()
        return {"reconstruction": share(decoded(sae, z, x)), "sparsity": context.sparsity * l0}
    z = dense_latents(sae, x)
    losses = {"reconstruction": share(decoded(sae, z, x))}
    if isinstance(sae, L1Sae):
        losses["sparsity"] = context.sparsity * z.sum() / total
    if isinstance(sae, GatedSae):
        gate = pre.relu()
        losses["via_gate"] = share(gate @ sae.W_dec.detach() + sae.b_dec.detach())
        losses["sparsity"] = context.sparsity * gate.sum() / total
    return losses


def decoded_prefix(sae: SparseAutoencoder, z: Tensor, width: int) -> Tensor:
    return z[:, :width] @ sae.W_dec[:width] + sae.b_dec


def surrogate_jump(pre: Tensor, threshold: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """JumpReLU and its step with the pseudo-derivatives as straight-through terms."""
    window = ((pre - threshold).abs() <= epsilon / 2).to(pre.dtype).detach()
    moved = threshold - threshold.detach()
    on = (pre > threshold).to(pre.dtype).detach()
    z = pre * on - (threshold.detach() / epsilon) * window * moved
    return z, on - window / epsilon * moved
