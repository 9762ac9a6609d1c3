"""Steering a forward pass: the change that interventions make to a layer's activations.

x' = x + sum_i (z'_i - z_i) W_dec[i] over the touched latents i: the difference of two decodings,
never the reconstruction, so that what nobody touched stays as it is, bit for bit.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mi_crow.errors import UserError
from mi_crow.hooks import Controller
from mi_crow.mechanistic.sae.substitute import changeable
from mi_crow.mechanistic.steering.interventions import Intervention

if TYPE_CHECKING:
    from mi_crow.language_model import LanguageModel
    from mi_crow.language_model.language_model import ForwardContext
    from mi_crow.mechanistic.sae import SparseAutoencoder


class FeatureSteering(Controller):
    """Applies feature interventions at the SAE's layer."""

    def __init__(
        self,
        lm: "LanguageModel",
        sae: "SparseAutoencoder",
        interventions: Sequence[Intervention],
        max_acts: Mapping[int, float] | None = None,
    ) -> None:
        """Raises UserError for a feature out of range, or `max` units without its maximum."""
        super().__init__()
        self._lm, self._sae = lm, sae
        self._work = [one for one in interventions if not one.changes_nothing]
        self._max_acts = dict(max_acts or {})
        for one in interventions:
            feature = one.feature
            if feature is None or feature >= sae.n_latents:
                raise UserError(
                    f"{one.target!r} is no feature of this SAE",
                    hint=f"it has features 0 to {sae.n_latents - 1}",
                )
            if one.unit == "max" and not self._max_acts.get(feature):
                raise UserError(
                    f"feature {feature} has no known maximum",
                    hint="build the index (mi-crow index), or give the strength in latent units",
                )

    @torch.no_grad()
    def modify_activations(self, module: object, inputs: Tensor | None, output: Tensor | None):
        x = output if output is not None else inputs
        if x is None or not self._work:
            return x
        where = changeable(x, kept_positions(self._lm, x), self._sae.metadata.outlier_norm)
        features = sorted({int(one.feature or 0) for one in self._work})
        before = self._latents(x, features)
        after = before.clone()
        norms = torch.linalg.vector_norm(x.float(), dim=-1)
        for one in self._work:
            column = features.index(int(one.feature or 0))
            changed = self._changed(one, after[..., column], norms)
            scope = scope_positions(self._lm.forward_context, x, one.scope)
            after[..., column] = torch.where(where & scope, changed, after[..., column])
        difference = after - before
        if not bool(difference.any()):
            return x
        rows = self._sae.decoder_rows[features].to(difference.dtype)
        return x + (difference @ rows).to(x.dtype)

    def _latents(self, x: Tensor, features: list[int]) -> Tensor:
        """The SAE's own latents of x, the named ones alone: [..., len(features)]."""
        sparse = self._sae.encode_sparse(x)
        wanted = torch.tensor(features, device=x.device)
        hits = sparse.indices[..., None, :] == wanted[:, None]
        return (sparse.values[..., None, :] * hits).sum(-1)

    def _changed(self, one: Intervention, z: Tensor, norms: Tensor) -> Tensor:
        amount: float | Tensor = one.value
        if one.unit == "max":
            amount = one.value * self._max_acts[int(one.feature or 0)]
        elif one.unit == "norm":
            amount = one.value * norms.to(z.dtype)
        if one.op == "add":
            return z + amount
        if one.op == "scale":
            return z * one.value
        return torch.zeros_like(z) + (amount if one.op == "clamp" else 0.0)


class LayerSteering(Controller):
    """Applies one intervention to a raw layer: scale it, clamp each token's norm, or ablate it."""

    def __init__(self, lm: "LanguageModel", intervention: Intervention) -> None:
        super().__init__(intervention.layer)
        self._lm, self._one = lm, intervention

    @torch.no_grad()
    def modify_activations(self, module: object, inputs: Tensor | None, output: Tensor | None):
        x = output if output is not None else inputs
        if x is None or self._one.changes_nothing:
            return x
        where = kept_positions(self._lm, x)
        where = where & scope_positions(self._lm.forward_context, x, self._one.scope)
        if self._one.op == "scale":
            changed = x * self._one.value
        elif self._one.op == "ablate":
            changed = torch.zeros_like(x)
        else:
            norms = torch.linalg.vector_norm(x.float(), dim=-1, keepdim=True).clamp_min(1e-12)
            target = self._one.value * (norms if self._one.unit == "norm" else 1.0)
            changed = (x * (target / norms)).to(x.dtype)
        return torch.where(where[..., None], changed, x)


@contextmanager
def steering(
    lm: "LanguageModel",
    sae: "SparseAutoencoder",
    layer: str,
    interventions: Sequence[Intervention],
    max_acts: Mapping[int, float] | None = None,
) -> Iterator[None]:
    """Inside the block the model runs under `interventions`, applied in their order.

    Raises UserError for an unknown feature, NotFoundError for an unknown layer.
    """
    features = [one for one in interventions if one.feature is not None]
    controllers: list[tuple[str, Controller]] = [
        (str(one.layer), LayerSteering(lm, one)) for one in interventions if one.layer is not None
    ]
    if features:
        controllers.insert(0, (layer, FeatureSteering(lm, sae, features, max_acts)))
    with ExitStack() as stack:
        for name, controller in controllers:
            stack.callback(lm.layers.unregister_hook, lm.layers.register_hook(name, controller))
        yield


def kept_positions(lm: "LanguageModel", x: Tensor) -> Tensor:
    """Positions of x [batch, length, d] that hold ordinary tokens: bool [batch, length].

    Outside inference and generation, where nobody knows the tokens, that is all of them.
    """
    context = lm.forward_context
    if context is None or context.special.shape != x.shape[:-1]:
        return torch.ones(x.shape[:-1], dtype=torch.bool, device=x.device)
    return ~context.special.to(x.device)


def scope_positions(context: "ForwardContext | None", x: Tensor, scope: str) -> Tensor:
    """Positions that a scope covers. Without a prompt every token is one of the prompt's."""
    everywhere = torch.ones(x.shape[:-1], dtype=torch.bool, device=x.device)
    if scope == "all":
        return everywhere
    if context is None or context.prompt_length is None:
        return everywhere if scope == "prompt" else ~everywhere
    positions = context.position + torch.arange(x.shape[-2], device=x.device)
    prompt = (positions < context.prompt_length).expand(x.shape[:-1])
    return prompt if scope == "prompt" else ~prompt
