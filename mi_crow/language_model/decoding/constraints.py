"""Keeping a steered model's next token within what the plain model finds possible."""

import math

import torch
from torch import Tensor

_HALVINGS = 20


def plausible_logits(steered: Tensor, plain: Tensor, beta: float) -> Tensor:
    """Logits [n, vocabulary] of the steered model, -inf for tokens whose plain probability is below
    `beta` times that of the likeliest one (the plausible set of Li et al. 2023, "Contrastive
    Decoding", equation 2). The likeliest token of the plain model always stays."""
    floor = plain.amax(dim=-1, keepdim=True) + math.log(beta)
    return steered.masked_fill(plain < floor, -torch.inf)


def budgeted_logits(steered: Tensor, plain: Tensor, nats: float) -> Tensor:
    """Logits [n, vocabulary] of q ~ plain^(1 - a) steered^a with the greatest a in [0, 1] for which
    KL(q || plain) is at most `nats`, by bisection; the KL grows with a."""
    log_p = torch.log_softmax(plain, dim=-1)
    log_s = torch.log_softmax(steered, dim=-1)
    low = torch.zeros_like(log_p[:, :1])
    high = torch.ones_like(low)
    # The whole way where that is within the budget.
    low = torch.where(_divergence(log_s, log_p) <= nats, high, low)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        mixed = torch.log_softmax(torch.lerp(log_p, log_s, middle), dim=-1)
        fits = _divergence(mixed, log_p) <= nats
        low, high = torch.where(fits, middle, low), torch.where(fits, high, middle)
    return torch.lerp(log_p, log_s, low)


def _divergence(log_q: Tensor, log_p: Tensor) -> Tensor:
    """KL(q || p) in nats: [n, 1]."""
    return (log_q.exp() * (log_q - log_p)).sum(dim=-1, keepdim=True)
