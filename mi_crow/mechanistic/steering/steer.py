"""Steering a forward pass: the change that interventions make to a layer's activations.

x' = x + sum_i (z'_i - z_i) W_dec[i] over the changed latents i: the difference of two decodings,
never the reconstruction, so that untouched tokens stay as they are, bit for bit.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mi_crow.errors import UserError
from mi_crow.hooks import Controller
from mi_crow.mechanistic.sae.substitute import replaceable
from mi_crow.mechanistic.steering.inspection import activations_of
from mi_crow.mechanistic.steering.interventions import Intervention
from mi_crow.mechanistic.steering.pace import Pace

if TYPE_CHECKING:
    from mi_crow.language_model import HookPoint, LanguageModel
    from mi_crow.mechanistic.sae.base import SparseAutoencoder


class FeatureSteering(Controller):
    """Applies feature interventions at the SAE's layer, in their order; projections come last.

    Latents are the SAE's own encoding: one that does not fire is 0. Special tokens, padding and
    outliers (norm above the SAE's `outlier_norm`) stay unchanged.
    """

    def __init__(
        self,
        lm: "LanguageModel",
        sae: "SparseAutoencoder",
        interventions: Sequence[Intervention],
        max_acts: Mapping[int, float] | None = None,
    ) -> None:
        """Raises UserError for a feature out of range, or one that is measured by its maximum where
        that is not known."""
        super().__init__()
        self._lm, self._sae = lm, sae
        self._max_acts = dict(max_acts or {})
        for one in interventions:
            self._check(one)
        self._work = [one for one in interventions if not one.changes_nothing]
        changed = {one.feature for one in self._work if one.feature is not None}
        read = {one.condition.feature for one in self._work if one.condition is not None}
        self._features = sorted(changed | read)
        self._column = {feature: column for column, feature in enumerate(self._features)}
        self._rows = sae.decoder_rows.detach()[self._features].float()  # [f, d]
        self._row_norms = torch.linalg.vector_norm(self._rows, dim=1).clamp_min(1e-12)
        # Adding moves a latent by the same amount whatever its activation: no need to encode.
        self._reads = any(
            one.op not in ("add", "project")
            or one.schedule.kind == "feedback"
            or one.condition is not None
            for one in self._work
        )
        self._pace = [Pace(lm, one.schedule) for one in self._work]

    @torch.no_grad()
    def modify_activations(self, module: Any, inputs: Tensor | None, output: Tensor | None) -> Any:
        x = output if output is not None else inputs
        if x is None or not self._work:
            return x
        where = replaceable(x, ordinary_tokens(self._lm, x), self._sae.metadata.outlier_norm)
        before = self._latents(x)
        after = list(before.unbind(-1))
        # What one unit of a latent adds, for SAEs that normalise each token.
        units = self._sae.latent_units(x.float())
        norms = (torch.linalg.vector_norm(x.float(), dim=-1, keepdim=True) / units)[..., 0]
        along: list[tuple[int, Tensor]] = []
        for one, pace in zip(self._work, self._pace, strict=True):
            column = self._column[one.feature or 0]
            touched = where & scope_tokens(self._lm, x, one.scope) & self._holds(one, before)
            share = before[..., column] / self._max_acts.get(self._features[column], 1.0)
            factor = pace(share)
            if one.op == "project":
                along.append((column, (one.value - 1) * factor * touched))
                continue
            changed = self._changed(one, column, after[column], norms, factor)
            after[column] = torch.where(touched, changed, after[column])
        # No branch on values from here on: a GPU would have to be waited for at every token.
        difference = torch.stack(after, dim=-1) - before
        moved = (difference != 0).any(-1, keepdim=True)
        steered = x.float() + difference @ self._rows * units
        for column, factor in along:
            direction = self._rows[column] / self._row_norms[column]
            steered = steered + (factor * (steered @ direction))[..., None] * direction
            moved = moved | (factor != 0)[..., None]
        return torch.where(moved, steered.to(x.dtype), x)

    def _latents(self, x: Tensor) -> Tensor:
        """The SAE's own activations of the features in use: [..., f] fp32."""
        if not self._reads:
            return torch.zeros(*x.shape[:-1], len(self._features), device=x.device)
        features = torch.tensor(self._features, device=x.device)
        return activations_of(self._sae.encode_sparse(x), features).float()

    def _holds(self, one: Intervention, z: Tensor) -> Tensor:
        """On which tokens its condition holds, by latents z [..., f] before any change: [...]."""
        condition = one.condition
        if condition is None:
            return torch.ones(z.shape[:-1], dtype=torch.bool, device=z.device)
        unit = self._max_acts[condition.feature] if condition.unit == "max" else 1.0
        own = z[..., self._column[condition.feature]]
        limit = condition.value * unit
        return own > limit if condition.side == "above" else own < limit

    def _changed(
        self, one: Intervention, column: int, z: Tensor, norms: Tensor, factor: Tensor | float
    ) -> Tensor:
        """Latent z [...] after one intervention of strength `factor`."""
        if one.op == "ablate":
            return z - factor * z
        if one.op == "scale":
            return z + factor * (one.value - 1) * z
        amount: Tensor = torch.full_like(z, one.value)
        if one.unit == "max":
            amount = amount * self._max_acts[self._features[column]]
        elif one.unit == "norm":
            # What the latent adds then has `value` times the token's norm.
            amount = amount * norms / self._row_norms[column]
        if one.op == "add":
            return z + factor * amount
        if one.op == "floor":  # a weaker floor is a lower one
            return torch.maximum(z, factor * amount)
        bounded = torch.minimum(z, amount) if one.op == "cap" else amount
        return z + factor * (bounded - z)

    def _check(self, one: Intervention) -> None:
        for feature in (one.feature, *((one.condition.feature,) if one.condition else ())):
            if feature is None or feature >= self._sae.n_latents:
                name = one.target if feature == one.feature else f"feature {feature}"
                raise UserError(
                    f"{name!r} is not a feature of this SAE",
                    hint=f"it has features 0 to {self._sae.n_latents - 1}",
                )
        for feature in sorted(one.uses_maxima):
            if not self._max_acts.get(feature):
                raise UserError(
                    f"feature {feature} has no known maximum",
                    hint="build the index (mi-crow index), or give the strength in latent units, "
                    "without feedback",
                )


class LayerSteering(Controller):
    """Changes the length of a raw layer's activations: scales it, clamps it, or ablates to zero.

    Special tokens and padding stay unchanged, and outliers where `outlier_norm` is known.
    """

    def __init__(
        self, lm: "LanguageModel", intervention: Intervention, outlier_norm: float | None = None
    ) -> None:
        super().__init__(intervention.layer)
        self._lm, self._one, self._outlier_norm = lm, intervention, outlier_norm
        constant = intervention.schedule.kind == "constant"
        self._pace = None if constant else Pace(lm, intervention.schedule)

    @torch.no_grad()
    def modify_activations(self, module: Any, inputs: Tensor | None, output: Tensor | None) -> Any:
        x = output if output is not None else inputs
        if x is None or self._one.changes_nothing:
            return x
        where = replaceable(x, ordinary_tokens(self._lm, x), self._outlier_norm)
        where = where & scope_tokens(self._lm, x, self._one.scope)
        changed = self._changed(x).float()
        if self._pace is not None:
            share = torch.zeros(x.shape[:-1], device=x.device)
            changed = torch.lerp(x.float(), changed, self._pace(share)[..., None])
        return torch.where(where[..., None], changed.to(x.dtype), x)

    def _changed(self, x: Tensor) -> Tensor:
        if self._one.op == "ablate":
            return torch.zeros_like(x)
        if self._one.op == "scale" or self._one.unit == "norm":
            return x * self._one.value
        norms = torch.linalg.vector_norm(x.float(), dim=-1, keepdim=True).clamp_min(1e-12)
        return x.float() * (self._one.value / norms)


@contextmanager
def steering(
    lm: "LanguageModel",
    sae: "SparseAutoencoder",
    layer: "str | int | HookPoint",
    interventions: Sequence[Intervention],
    max_acts: Mapping[int, float] | None = None,
) -> Iterator[None]:
    """Inside the block the model runs under `interventions`: features first, at `layer`, then raw
    layers in their order. The SAE moves to the model's device.

    Raises UserError for an unknown feature, NotFoundError for an unknown layer.
    """
    point = lm.layers.resolve(layer)
    features = [one for one in interventions if one.feature is not None]
    controllers: list[tuple[str | int | HookPoint, Controller]] = []
    if features:
        controllers.append((point, FeatureSteering(lm, sae.to(lm.device), features, max_acts)))
    for one in interventions:
        if one.layer is not None:
            same = lm.layers.resolve(one.layer).same_tensor(point)
            limit = sae.metadata.outlier_norm if same else None
            controllers.append((one.layer, LayerSteering(lm, one, limit)))
    with ExitStack() as stack:
        for name, controller in controllers:
            stack.callback(lm.layers.unregister_hook, lm.layers.register_hook(name, controller))
        yield


def ordinary_tokens(lm: "LanguageModel", x: Tensor) -> Tensor:
    """Which rows of x [..., d] belong to ordinary tokens: bool [...].

    Outside inference and generation, where the tokens are not known, that is all of them.
    """
    context = lm.forward_context
    if context is not None and context.special.numel() == x.shape[:-1].numel():
        return ~context.special.to(x.device).view(x.shape[:-1])
    return torch.ones(x.shape[:-1], dtype=torch.bool, device=x.device)


def scope_tokens(lm: "LanguageModel", x: Tensor, scope: str) -> Tensor:
    """Which rows of x [..., d] a scope covers: bool [...]. Outside generation every token belongs
    to the prompt.

    Raises UserError where the layer does not have one row per token and the scope is not `all`.
    """
    context = lm.forward_context
    rows = x.shape[:-1]
    if scope == "all":
        return torch.ones(rows, dtype=torch.bool, device=x.device)
    if context is None or context.prompt_length is None:
        return torch.full(rows, scope == "prompt", dtype=torch.bool, device=x.device)
    if context.input_ids.numel() != rows.numel():
        raise UserError(
            f"the layer gives {list(x.shape)}, not one row per token",
            hint="steer all tokens there, or choose a residual block",
        )
    positions = context.position + torch.arange(context.input_ids.shape[1], device=x.device)
    inside = (positions < context.prompt_length) == (scope == "prompt")
    return inside.expand(context.input_ids.shape).reshape(rows)
