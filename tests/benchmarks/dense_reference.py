"""TopK training as one writes it first: dense tensors, autograd throughout, an optimizer as it is.

The recipe is ours to the letter (start, schedule, AuxK, gradients along decoder rows taken out,
unit rows), so that speed and quality can be compared with nothing else in between.
"""

import torch
from torch import Tensor
from torch.nn import functional

from mi_crow.mechanistic.sae.rules.topk import TopKSae
from mi_crow.mechanistic.sae.train.plan import StartingPoint, TrainingPlan

_ADAM_EPS = 6.25e-10


class DenseReference:
    """A TopK SAE in training, in plain PyTorch. Starts from the weights of a fresh `sae`."""

    def __init__(self, sae: TopKSae, plan: TrainingPlan, point: StartingPoint) -> None:
        self.plan, self.point, self.k = plan, point, sae.k
        device = sae.device
        self.W_enc = sae.encoder_rows.detach().clone().requires_grad_()  # [M, d]
        self.W_dec = sae.W_dec.detach().clone().requires_grad_()  # [M, d]
        self.b_enc = torch.zeros(sae.n_latents, device=device, requires_grad=True)
        self.b_dec = point.centre.to(device, sae.b_dec.dtype).clone().requires_grad_()
        parameters = [self.W_enc, self.W_dec, self.b_enc, self.b_dec]
        self.optimizer = torch.optim.Adam(parameters, lr=plan.lr, eps=_ADAM_EPS)
        self.idle = torch.zeros(sae.n_latents, dtype=torch.int64, device=device)
        self.steps = 0

    def step(self, tokens: Tensor) -> None:
        """One optimizer step on tokens [n, d] in plain units."""
        x = tokens * self.point.scale
        pre = (x - self.b_dec) @ self.W_enc.T + self.b_enc  # [n, M]
        top = pre.topk(self.k, dim=1)
        z = torch.zeros_like(pre).scatter(1, top.indices, top.values.relu())  # [n, M]
        residual = x - (z @ self.W_dec + self.b_dec)
        loss = residual.square().sum() / (self.point.variance * len(x))
        (loss + self._auxk(x, residual)).backward()
        self._update()
        self.idle += len(x)
        self.idle[top.indices[top.values > 0]] = 0
        self.steps += 1

    def _auxk(self, x: Tensor, residual: Tensor) -> Tensor:
        """The loss that revives latents: the strongest dead ones reconstruct the residual."""
        dead = self.idle > self.plan.dead_tokens
        if not bool(dead.any()):
            return x.new_zeros(())
        k = min(self.plan.k_aux, int(dead.sum()))
        pre = (x - self.b_dec).detach() @ self.W_enc.T + self.b_enc
        top = pre.masked_fill(~dead, -torch.inf).topk(k, dim=1)
        z = torch.zeros_like(pre).scatter(1, top.indices, top.values.relu())
        error = residual.detach() - z @ self.W_dec
        weight = self.plan.aux_alpha * k / self.plan.k_aux
        return weight * error.square().sum() / (self.point.variance * len(x))

    def _update(self) -> None:
        gradient = self.W_dec.grad
        assert gradient is not None
        with torch.no_grad():
            gradient -= (gradient * self.W_dec).sum(1, keepdim=True) * self.W_dec
        for group in self.optimizer.param_groups:
            group["lr"] = self.plan.lr_at(self.steps)
        self.optimizer.step()
        self.optimizer.zero_grad()
        with torch.no_grad():
            self.W_dec.copy_(functional.normalize(self.W_dec, dim=1))

    def finished(self) -> TopKSae:
        """The SAE that came of it, for plain inputs."""
        n_latents, width = self.W_dec.shape
        sae = TopKSae(n_latents, width, self.k, device=self.W_dec.device)
        with torch.no_grad():
            sae.encoder_rows.copy_(self.W_enc)
            sae.W_dec.copy_(self.W_dec)
            sae.b_enc.copy_(self.b_enc)
            sae.b_dec.copy_(self.b_dec)
        sae.fold_scale(self.point.scale, self.point.scale)
        return sae.eval().requires_grad_(False)
