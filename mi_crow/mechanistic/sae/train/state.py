"""What changes during training: weights, Adam's moments, dead counters, the step."""

from typing import Any

import torch
from torch import Tensor

from mi_crow.causes import machine_error
from mi_crow.errors import CorruptDataError
from mi_crow.mechanistic.sae.base import LossContext, SparseAutoencoder, is_by_latent
from mi_crow.mechanistic.sae.rules.sparsity_control import SparsityControl
from mi_crow.mechanistic.sae.sharing import Sharing
from mi_crow.mechanistic.sae.train.plan import StartingPoint, TrainingPlan

# As in Gao et al. 2024: latents that fire rarely have gradients near Adam's usual 1e-8.
_ADAM_EPS = 6.25e-10
# On a device that would have to be waited for, steps between two looks at which latents are dead.
_LOOK_EVERY = 10
_ROWS_AT_ONCE = 1024
_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


class TrainState:
    """An SAE in training. Until `finish` it takes inputs times `scale` and gives targets times
    `target_scale`.

    Where latents are shared among processes this is the state of those at hand; what it writes
    down and takes up (`tensors`, `restore`) is of all of them.
    """

    def __init__(self, sae: SparseAutoencoder, plan: TrainingPlan) -> None:
        self.sae = sae
        self.plan = plan
        self.n_latents: int = sae.n_latents  # of all processes
        self.step: int = 0
        self.scale: float = 1.0
        self.target_scale: float = 1.0
        self.variance: float = 1.0
        self.seconds: float = 0.0
        self.control: SparsityControl = self._control(
            0.0 if plan.l1_lambda is None else plan.l1_lambda
        )
        fused = sae.device.type in ("cpu", "cuda")
        self.optimizer: torch.optim.Adam = torch.optim.Adam(
            _groups(sae), lr=plan.lr, eps=_ADAM_EPS, fused=fused
        )
        # Tokens since each latent fired.
        self._idle = torch.zeros(sae.n_latents, dtype=torch.int64, device=sae.device)
        self._dead: tuple[Tensor | None, int] | None = None  # None: to be looked up

    @property
    def sharing(self) -> Sharing:
        return self.sae.sharing

    def share(self, sharing: Sharing) -> "TrainState":
        """This process's share of the state: all of it unless latents are shared. Every process
        goes on from what the first one has."""
        if sharing.single_process:
            return self
        facts = sharing.ranks.agree({"step": self.step, **self.facts()})
        part = self
        if sharing.splits_latents:
            part = TrainState(self.sae.part_of_latents(sharing), self.plan)
            part.n_latents = self.n_latents
            part.restore(self.tensors(), facts)
        else:
            self.sae.sharing = sharing
            self._take_up(facts)
            sharing.broadcast([*self.sae.state_dict().values(), self.control.state])
        return part

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
        dead, n_dead = self._dead_now()
        return LossContext(
            variance=self.variance,
            dead=dead,
            n_dead=n_dead,
            aux_alpha=self.plan.aux_alpha,
            k_aux=self.plan.k_aux,
            sparsity=self.control.coefficient(self.step),
            target_l0=self.plan.target_l0,
        )

    def n_dead(self) -> int:
        """How many latents have not fired for long, of all processes."""
        return self._dead_now()[1]

    def _dead_now(self) -> tuple[Tensor | None, int]:
        """Ids of the latents at hand that have not fired for long, int64, and how many there are in
        all processes; None when there are none at all."""
        if self._dead is None:
            dead = (self._idle > self.plan.dead_tokens).nonzero()[:, 0]
            count = torch.tensor(dead.numel(), device=dead.device)
            n_dead = int(self.sharing.total_over_latents(count))
            self._dead = (dead if n_dead else None, n_dead)
        return self._dead

    def reduce_gradients(self) -> None:
        """Makes the gradients those of the whole batch."""
        self.sharing.reduce_gradients(self.sae.parameters())

    def gradient_norm(self) -> Tensor:
        """Length of the gradient of all parameters, before a step; no dimensions."""
        squares: dict[bool, list[Tensor]] = {True: [], False: []}
        for name, parameter in self.sae.named_parameters():
            if parameter.grad is not None:
                length = torch.linalg.vector_norm(parameter.grad)
                squares[is_by_latent(name)].append(length.square())
        by_latent, rest = (torch.stack(squares[kind]).sum() for kind in (True, False))
        return (self.sharing.total_over_latents(by_latent) + rest).sqrt()

    @torch.no_grad()
    def apply_gradients(self) -> None:
        """One Adam step on the sphere of unit decoder rows.

        The part of a gradient that lies along its decoder row would only change the row's
        length, which is fixed: it is taken out, so that Adam's moments do not see it.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self.plan.lr_at(self.step) * group["rate"]
        if self.sae.W_dec.grad is not None:
            _take_out_lengths(self.sae.W_dec.grad, self.sae.W_dec)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.sae.normalise_decoder()
        self.sae.after_step()

    @torch.no_grad()
    def count_firing(self, firings: Tensor) -> Tensor:
        """Notes how often each latent fired on this process's part of a batch, int64 [M]; gives how
        often on the whole batch."""
        firings = self.sharing.total_over_tokens(firings)
        self._idle += self.plan.batch_size
        self._idle.masked_fill_(firings > 0, 0)
        if self.sae.device.type == "cpu" or (self.step + 1) % _LOOK_EVERY == 0:
            self._dead = None
        active = self.sharing.total_over_latents(firings.sum())
        self.control.observe(self.step, active / self.plan.batch_size)
        return firings

    def finish(self) -> None:
        """Folds the scales into the SAE: from here on it takes plain inputs."""
        self.sae.fold_scale(self.scale, self.target_scale)
        self.scale = self.target_scale = 1.0

    def tensors(self) -> dict[str, Tensor]:
        """Everything that a checkpoint must hold, by name. All processes call it."""
        tensors = {f"sae.{name}": tensor for name, tensor in self.sae.state_dict().items()}
        for name, parameter in self.sae.named_parameters():
            for moment, value in self.optimizer.state[parameter].items():
                tensors[f"adam.{moment}.{name}"] = value
        tensors["idle"] = self._idle
        for name, tensor in tensors.items():
            if _is_by_latent(name):
                tensors[name] = self.sharing.gather_latents(tensor)
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
            "n_latents": self.n_latents,
            "n_inputs": sae.n_inputs,
            "n_outputs": sae.n_outputs,
            **sae.config(),
            **self.plan.as_json(),
        }

    def restore(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Continues from a checkpoint. Raises CorruptDataError when it does not fit."""
        sae = self.sae
        try:
            tensors = {
                name: self.sharing.own_latents(tensor) if _is_by_latent(name) else tensor
                for name, tensor in tensors.items()
            }
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
            self._take_up(facts)
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            raise machine_error(error) or CorruptDataError(
                f"the checkpoint does not fit this SAE ({error})",
                hint="remove the checkpoints folder to train from the beginning",
            ) from error

    def _take_up(self, facts: dict[str, Any]) -> None:
        self.step = int(facts["step"])
        self.scale, self.target_scale = float(facts["scale"]), float(facts["target_scale"])
        self.variance, self.seconds = float(facts["variance"]), float(facts["seconds"])


def _take_out_lengths(gradient: Tensor, rows: Tensor) -> None:
    """Leaves of each gradient row what is at right angles to its row of unit length, in place."""
    # Some rows at a time stay in the cache, and their products need no [M, d] of their own.
    some = _ROWS_AT_ONCE if rows.device.type == "cpu" else max(len(rows), 1)
    for part, unit in zip(gradient.split(some), rows.split(some), strict=True):
        along = torch.linalg.vecdot(part, unit)
        part.addcmul_(unit, along.neg_()[:, None])


def _is_by_latent(name: str) -> bool:
    """Whether a checkpoint's tensor of this name has one row a latent."""
    if name.startswith(("rng.", "sparsity", "adam.step.")):
        return False
    return is_by_latent(name.rpartition(".")[2])


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
