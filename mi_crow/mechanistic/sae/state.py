"""What changes during training: weights, Adam's moments, dead counters, the step."""

from typing import Any

import torch
from torch import Tensor

from mi_crow.errors import CorruptDataError
from mi_crow.mechanistic.sae.base import LossContext, SparseAutoencoder
from mi_crow.mechanistic.sae.plan import StartingPoint, TrainingPlan
from mi_crow.mechanistic.sae.sparsity_control import SparsityControl

# As in Gao et al. 2024: latents that fire rarely have gradients near Adam's usual 1e-8.
_ADAM_EPS = 6.25e-10
_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


class TrainState:
    """An SAE in training. Until `finish` it takes inputs times `scale` and gives targets times
    `target_scale`."""

    def __init__(self, sae: SparseAutoencoder, plan: TrainingPlan) -> None:
        self.sae = sae
        self.plan = plan
        self.step = 0
        self.scale = 1.0
        self.target_scale = 1.0
        self.variance = 1.0
        self.seconds = 0.0
        self.control = self._control(0.0 if plan.l1_lambda is None else plan.l1_lambda)
        fused = sae.device.type in ("cpu", "cuda")
        self.optimizer = torch.optim.Adam(_groups(sae), lr=plan.lr, eps=_ADAM_EPS, fused=fused)
        # Tokens since each latent fired; the last, extra place takes what is not active.
        self._idle = torch.zeros(sae.n_latents + 1, dtype=torch.int64, device=sae.device)

    def _control(self, coefficient: float) -> SparsityControl:
        plan = self.plan
        target = None if self.sae.target_in_loss else plan.target_l0
        return SparsityControl(
            coefficient, target, plan.sparsity_warmup_steps, plan.steps, self.sae.device
        )

    def start(self, point: StartingPoint) -> None:
        """Scales and centres a fresh or loaded SAE for the inputs of `point`."""
        sae, target = self.sae, self.plan.target_l0
        self.scale, self.target_scale = point.scale, point.target_scale
        self.variance = point.variance
        fresh = not bool(sae.b_dec.any())
        # A fresh transcoder's matrices fit the scaled tokens as they are.
        sae.fold_scale(1 / point.scale, None if fresh else 1 / point.target_scale)
        # A loaded SAE may have rows of any length: their latents take it over.
        sae.fold_decoder_norms()
        if fresh:
            with torch.no_grad():
                sae.b_dec.copy_(point.centre)
        if target is not None:
            self.control = self._control(sae.starting_coefficient(point.variance, target))
            if fresh:
                sae.calibrate(point.sample.to(sae.device), target)

    def context(self) -> LossContext:
        """What the losses of the next step need to know."""
        return LossContext(
            variance=self.variance,
            dead=self.dead_latents(),
            aux_alpha=self.plan.aux_alpha,
            k_aux=self.plan.k_aux,
            sparsity=self.control.coefficient(self.step),
            target_l0=self.plan.target_l0,
        )

    def dead_latents(self) -> Tensor | None:
        """Ids of the latents that have not fired for long, int64; None when there are none."""
        dead = (self._idle[:-1] > self.plan.dead_tokens).nonzero()[:, 0]
        return dead if dead.numel() else None

    def gradient_norm(self) -> Tensor:
        """Length of the gradient of all parameters, before a step; no dimensions."""
        norms = [
            torch.linalg.vector_norm(parameter.grad)
            for parameter in self.sae.parameters()
            if parameter.grad is not None
        ]
        return torch.linalg.vector_norm(torch.stack(norms))

    @torch.no_grad()
    def apply_gradients(self) -> None:
        """One Adam step on the sphere of unit decoder rows.

        The part of a gradient that lies along its decoder row would only change the row's
        length, which is fixed: it is taken out, so that Adam's moments do not see it.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self.plan.lr_at(self.step) * group["rate"]
        rows, gradient = self.sae.W_dec, self.sae.W_dec.grad
        if gradient is not None:
            along = torch.linalg.vecdot(gradient, rows)
            gradient.addcmul_(rows, along.neg_()[:, None])
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.sae.normalise_decoder()
        self.sae.after_step()

    @torch.no_grad()
    def count_firing(self, fired: Tensor, tokens: int) -> None:
        """Notes what fired on a batch of `tokens`: latents, one entry a firing; n_latents stands
        for none."""
        self._idle += tokens
        self._idle.index_fill_(0, fired.reshape(-1), 0)
        l0 = (fired < self.sae.n_latents).sum() / tokens
        self.control.observe(self.step, l0)

    def finish(self) -> None:
        """Folds the scales into the SAE: from here on it takes plain inputs."""
        self.sae.fold_scale(self.scale, self.target_scale)
        self.scale = self.target_scale = 1.0

    def tensors(self) -> dict[str, Tensor]:
        """Everything that a checkpoint must hold, by name."""
        tensors = {f"sae.{name}": tensor for name, tensor in self.sae.state_dict().items()}
        for name, parameter in self.sae.named_parameters():
            for moment, value in self.optimizer.state[parameter].items():
                tensors[f"adam.{moment}.{name}"] = value
        tensors["idle"] = self._idle
        tensors["sparsity"] = self.control.state
        tensors["rng.cpu"] = torch.get_rng_state()
        if self.sae.device.type == "cuda":
            tensors["rng.cuda"] = torch.cuda.get_rng_state(self.sae.device)
        return tensors

    def facts(self) -> dict[str, Any]:
        """The plain numbers that a checkpoint must hold."""
        return {
            "scale": self.scale,
            "target_scale": self.target_scale,
            "variance": self.variance,
            "seconds": self.seconds,
            "settings": self.settings(),
        }

    def settings(self) -> dict[str, Any]:
        """What has to be the same for a training to go on: the plan and the SAE's shape."""
        sae = self.sae
        return {
            "architecture": sae.architecture,
            "n_latents": sae.n_latents,
            "n_inputs": sae.n_inputs,
            "n_outputs": sae.n_outputs,
            **sae.config(),
            **self.plan.as_json(),
        }

    def restore(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Continues from a checkpoint. Raises CorruptDataError when it does not fit."""
        sae = self.sae
        try:
            weights = {name: tensors[f"sae.{name}"] for name in sae.state_dict()}
            sae.load_state_dict(weights)
            for name, parameter in sae.named_parameters():
                self.optimizer.state[parameter] = {
                    moment: tensors[f"adam.{moment}.{name}"].to(sae.device)
                    for moment in _MOMENTS
                    if f"adam.{moment}.{name}" in tensors
                }
            self._idle.copy_(tensors["idle"])
            self.control.state.copy_(tensors["sparsity"])
            torch.set_rng_state(tensors["rng.cpu"])
            if sae.device.type == "cuda" and "rng.cuda" in tensors:
                torch.cuda.set_rng_state(tensors["rng.cuda"], sae.device)
            self.step = int(facts["step"])
            self.scale, self.target_scale = float(facts["scale"]), float(facts["target_scale"])
            self.variance, self.seconds = float(facts["variance"]), float(facts["seconds"])
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            raise CorruptDataError(
                f"the checkpoint does not fit this SAE ({error})",
                hint="remove the checkpoints folder to train from the beginning",
            ) from error


def _groups(sae: SparseAutoencoder) -> list[dict[str, Any]]:
    """The parameters, those with a learning rate of their own apart; `rate` multiplies."""
    rates = sae.learning_rates
    plain = [value for name, value in sae.named_parameters() if name not in rates]
    apart = [
        {"params": [value], "rate": rates[name]}
        for name, value in sae.named_parameters()
        if name in rates
    ]
    return [{"params": plain, "rate": 1.0}, *apart]
