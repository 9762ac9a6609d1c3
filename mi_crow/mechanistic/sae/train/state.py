"""The state of a training: weights, Adam's moments, dead counters, the step."""

import copy
from typing import Any

import torch
from torch import Tensor

from mi_crow.causes import machine_error
from mi_crow.errors import CorruptDataError
from mi_crow.mechanistic.sae.architectures import TANH
from mi_crow.mechanistic.sae.base import LossContext, SparseAutoencoder, is_by_latent
from mi_crow.mechanistic.sae.rules.sparsity_control import SparsityControl
from mi_crow.mechanistic.sae.sharing import Sharing
from mi_crow.mechanistic.sae.train.decoder_geometry import align_encoder, orthogonality_loss
from mi_crow.mechanistic.sae.train.plan import DEFAULT_L0, StartingPoint, TrainingPlan
from mi_crow.mechanistic.sae.train.whitening import Whitening

# As in Gao et al. 2024: latents that fire rarely have gradients near Adam's usual 1e-8.
_ADAM_EPS = 6.25e-10
# On CUDA, where reading a value waits for the device, dead latents are looked up this rarely.
_DEAD_LOOKUP_STEPS = 10
# Rows that one product looks at: on a CPU they stay in its cache; elsewhere fewer would be more
# kernels than there is memory to save.
_ROWS_AT_ONCE = {"cpu": 1024}
_ROWS_AT_ONCE_ELSEWHERE = 8192
_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


class TrainState:
    """An SAE in training. Until `finish` it maps inputs times `scale` to targets times
    `target_scale`.

    Where processes split the latents, this is the state of one process's latents; `tensors` and
    `restore` are about all of them.
    """

    def __init__(self, sae: SparseAutoencoder, plan: TrainingPlan) -> None:
        self.sae = sae
        sae.penalty = plan.penalty
        self.plan = plan
        self.n_latents: int = sae.n_latents  # of all processes
        self.step: int = 0
        self.scale: float = 1.0
        self.target_scale: float = 1.0
        self.variance: float = 1.0
        self.whitening: Whitening | None = None
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
        self._dead: tuple[Tensor | None, int] | None = None  # None: look up again

    @property
    def sharing(self) -> Sharing:
        return self.sae.sharing

    def share(self, sharing: Sharing) -> "TrainState":
        """This process's part of the state: all of it unless latents are split. Every process
        continues from the state of the first one."""
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
            self._restore_facts(facts)
            sharing.broadcast([*self.sae.state_dict().values(), self.control.state])
        return part

    def _control(self, coefficient: float) -> SparsityControl:
        plan = self.plan
        target = None if self.sae.target_in_loss else plan.target_l0
        return SparsityControl(
            coefficient, target, plan.sparsity_warmup_steps, plan.steps, self.sae.device
        )

    def start(self, point: StartingPoint) -> None:
        """Prepares a fresh or loaded SAE: scale, centre and rule-specific initialisation."""
        sae, target = self.sae, self.plan.target_l0
        self.scale, self.target_scale = point.scale, point.target_scale
        self.variance = point.variance
        fresh = not bool(sae.b_dec.any())
        if self.whitening is not None and not fresh:
            self.whitening.unfold(sae)
        # A fresh transcoder's matrices already fit scaled targets.
        sae.fold_scale(1 / point.scale, None if fresh else 1 / point.target_scale)
        # A loaded SAE may have decoder rows of any norm: move it into the latents.
        sae.fold_decoder_norms()
        if fresh:
            with torch.no_grad():
                sae.b_dec.copy_(point.centre)
        if self.plan.aligned:
            align_encoder(sae.encoder_rows, sae.W_dec)
        if target is not None:
            self.control = self._control(sae.starting_coefficient(point.variance, target))
        # With a fixed coefficient a threshold of zero may rise, but not by the tanh penalty.
        if fresh and (target is not None or sae.penalty == TANH):
            sae.calibrate(point.sample.to(sae.device), target or DEFAULT_L0)

    def context(self) -> LossContext:
        """The context of the next step's losses."""
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
        """Number of dead latents over all processes."""
        return self._dead_now()[1]

    def _dead_now(self) -> tuple[Tensor | None, int]:
        """Ids of this process's dead latents, int64, and their number over all processes; None when
        no process has any."""
        if self._dead is None:
            dead = (self._idle > self.plan.dead_tokens).nonzero()[:, 0]
            count = torch.tensor(dead.numel(), device=dead.device)
            n_dead = int(self.sharing.total_over_latents(count))
            self._dead = (dead if n_dead else None, n_dead)
        return self._dead

    def reduce_gradients(self) -> None:
        """Sums the gradients to those of the whole batch."""
        self.sharing.reduce_gradients(self.sae.parameters())

    def orthogonality_loss(self) -> Tensor | None:
        """This process's part of the loss of the decoder's rows among themselves, weighted; None
        where the plan has none."""
        if not self.plan.orthogonality:
            return None
        loss = orthogonality_loss(self.sae.W_dec, self.plan.seed, self.step)
        if self.sharing.splits_latents:
            share = self.sae.n_latents / self.n_latents
        else:  # every process has all rows, and the gradients are summed
            share = 1 / self.sharing.ranks.world
        return self.plan.orthogonality * share * loss

    def gradient_norm(self) -> Tensor:
        """L2 norm of the gradient of all parameters, before a step: a scalar."""
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

        The component of a gradient along its decoder row would only change the row's norm, which
        is fixed: it is removed, so that Adam's moments do not see it.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self.plan.lr_at(self.step) * group["rate"]
        for rows in self.sae.unit_rows():
            if rows.grad is not None:
                _remove_parallel(rows.grad, rows)
        if self.plan.aligned and self.sae.encoder_rows.grad is not None:
            _remove_parallel(self.sae.encoder_rows.grad, self.sae.W_dec)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.sae.normalise_decoder()
        if self.plan.aligned:
            align_encoder(self.sae.encoder_rows, self.sae.W_dec)
        self.sae.after_step()

    @torch.no_grad()
    def count_firing(self, firings: Tensor) -> Tensor:
        """Counts the firings of each latent on this process's part of a batch, int64 [M]; returns
        those on the whole batch."""
        firings = self.sharing.total_over_tokens(firings)
        self._idle += self.plan.batch_size
        self._idle.masked_fill_(firings > 0, 0)
        if self.sae.device.type == "cpu" or (self.step + 1) % _DEAD_LOOKUP_STEPS == 0:
            self._dead = None
        active = self.sharing.total_over_latents(firings.sum())
        self.control.observe(self.step, active / self.plan.batch_size)
        return firings

    def finish(self) -> None:
        """Folds scales and whitening into the SAE, which takes plain inputs from here on."""
        self._fold(self.sae)
        self.scale = self.target_scale = 1.0
        self.whitening = None

    def _fold(self, sae: SparseAutoencoder) -> None:
        sae.fold_scale(self.scale, self.target_scale)
        if self.whitening is not None:
            self.whitening.fold(sae)

    @torch.no_grad()
    def on_plain_inputs(self) -> SparseAutoencoder:
        """A copy of the SAE as `finish` will leave it."""
        sae = copy.deepcopy(self.sae)
        self._fold(sae)
        return sae

    def tensors(self) -> dict[str, Tensor]:
        """All tensors of a checkpoint by name. Collective: all processes call it."""
        tensors = {f"sae.{name}": tensor for name, tensor in self.sae.state_dict().items()}
        for name, parameter in self.sae.named_parameters():
            for moment, value in self.optimizer.state[parameter].items():
                tensors[f"adam.{moment}.{name}"] = value
        tensors["idle"] = self._idle
        for name, tensor in tensors.items():
            if _is_by_latent(name):
                tensors[name] = self.sharing.gather_latents(tensor)
        tensors["sparsity"] = self.control.state
        if self.whitening is not None:
            for name, tensor in self.whitening.tensors().items():
                tensors[f"whitening.{name}"] = tensor
        tensors["rng.cpu"] = torch.get_rng_state()
        if self.sae.device.type == "cuda":
            tensors["rng.cuda"] = torch.cuda.get_rng_state(self.sae.device)
        return tensors

    def facts(self) -> dict[str, Any]:
        """The numbers and settings of a checkpoint."""
        return {
            "scale": self.scale,
            "target_scale": self.target_scale,
            "variance": self.variance,
            "seconds": self.seconds,
            "settings": self.settings(),
        }

    def settings(self) -> dict[str, Any]:
        """What a resumed training must agree with: the plan and the SAE's shape."""
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
            if self.plan.whiten:
                self.whitening = Whitening(
                    *(tensors[f"whitening.{name}"] for name in ("mean", "matrix", "inverse"))
                )
            torch.set_rng_state(tensors["rng.cpu"])
            if sae.device.type == "cuda" and "rng.cuda" in tensors:
                torch.cuda.set_rng_state(tensors["rng.cuda"], sae.device)
            self._restore_facts(facts)
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            raise machine_error(error) or CorruptDataError(
                f"the checkpoint does not fit this SAE ({error})",
                hint="remove the checkpoints folder to train from the beginning",
            ) from error

    def _restore_facts(self, facts: dict[str, Any]) -> None:
        self.step = int(facts["step"])
        self.scale, self.target_scale = float(facts["scale"]), float(facts["target_scale"])
        self.variance, self.seconds = float(facts["variance"]), float(facts["seconds"])


def _remove_parallel(gradient: Tensor, rows: Tensor) -> None:
    """Removes from each gradient row its component along the unit row, in place."""
    # In blocks of rows, since `vecdot` holds a product of the size of its operands.
    some = _ROWS_AT_ONCE.get(rows.device.type, _ROWS_AT_ONCE_ELSEWHERE)
    for part, unit in zip(gradient.split(some), rows.split(some), strict=True):
        along = torch.linalg.vecdot(part, unit)
        part.addcmul_(unit, along.neg_()[:, None])


def _is_by_latent(name: str) -> bool:
    """Whether a checkpoint's tensor of this name has one row per latent."""
    if name.startswith(("rng.", "sparsity", "adam.step.", "whitening.")):
        return False
    return is_by_latent(name.rpartition(".")[2])


def _groups(sae: SparseAutoencoder) -> list[dict[str, Any]]:
    """Parameter groups: `rate` multiplies the learning rate, 1 unless the SAE names another."""
    rates = sae.learning_rates
    plain = [value for name, value in sae.named_parameters() if name not in rates]
    own = [
        {"params": [value], "rate": rates[name]}
        for name, value in sae.named_parameters()
        if name in rates
    ]
    return [{"params": plain, "rate": 1.0}, *own]
