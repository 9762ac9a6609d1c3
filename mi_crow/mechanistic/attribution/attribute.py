"""Attribution of one number of a forward pass to the features of SAEs.

The effect of feature i at token t on a target m is z_i(t) (d m / d y(t) . W_dec[i]), its share of
the first-order change along the activation y = sum_i z_i W_dec[i] + bias + error: one backward pass
for all of them (Marks et al. 2024, 2403.19647, equation 3; Syed et al. 2023, 2310.10348). The bias,
the error and the tokens that the SAE does not read are nodes of their own, so that the parts add up
to sum_t y(t) . d m / d y(t); `outside` is the rest of the target's value. With `steps` the gradient
is the mean over that many points between the state without features and the real one (integrated
gradients, equation 4 there): only the features move along it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mi_crow.errors import UserError
from mi_crow.mechanistic.attribution.check import Check, check_causes
from mi_crow.mechanistic.attribution.passes import (
    Graph,
    activation_at,
    check_order,
    gradient,
    gradient_under,
    graph_pass,
)
from mi_crow.mechanistic.attribution.site import Reading, SaeSite
from mi_crow.mechanistic.attribution.target import Target
from mi_crow.mechanistic.attribution.tree import Influence, influences

if TYPE_CHECKING:
    from mi_crow.language_model import LanguageModel
    from mi_crow.language_model.tokenize import Encoding

_ROWS = 8  # states of integrated gradients in one batch


@dataclass(frozen=True)
class Parts:
    """The target's value taken apart at one SAE's layer."""

    features: float
    error: float  # what the SAE does not reconstruct
    bias: float  # of the decoder; for some SAEs also a token's mean, or a skip connection
    other_tokens: float  # special tokens and outliers, which the SAE does not read
    outside: float  # the rest of the value: not first order in this layer

    @property
    def first_order(self) -> float:
        """sum_t y(t) . d m / d y(t): what the four parts add up to."""
        return self.features + self.error + self.bias + self.other_tokens


@dataclass(frozen=True)
class Cause:
    """One feature's effect on the target, summed over the tokens on which it fires."""

    feature: int
    effect: float
    share: float  # of the effects of all features, in absolute value
    activation: float  # the greatest on the text
    tokens: tuple[tuple[int, float], ...]  # (token, effect there), the strongest first


@dataclass(frozen=True)
class Attributed:
    """What one SAE has to say about the target."""

    site: SaeSite
    causes: tuple[Cause, ...]  # the strongest first, by absolute effect
    parts: Parts
    per_token: tuple[float, ...]  # y(t) . d m / d y(t): adds up to the first-order change
    check: Check | None  # None without any cause
    firing: int  # features that fire on the text


@dataclass(frozen=True)
class Attribution:
    """The answer of `attribute`."""

    target: Target
    value: float
    logits: Tensor  # [vocabulary] at the target's position
    saes: tuple[Attributed, ...]  # in the order of the model
    tree: tuple[Influence, ...]


def attribute(
    lm: "LanguageModel",
    encoding: "Encoding",
    sites: Sequence[SaeSite],
    target: Target,
    *,
    target_site: SaeSite | None = None,
    top: int = 20,
    steps: int | None = None,
    prune: float = 0.02,
    seed: int = 0,
) -> Attribution:
    """Attributes `target` on a text [1, n] to the features of `sites`.

    `target_site` is the SAE of a target that is a feature; sites that do not come before it are an
    error. `top` causes are listed and checked for each SAE, `steps` asks for integrated gradients,
    `prune` is the share of all effects that a node of the tree needs.

    Raises UserError for SAEs of one layer, or a target that nothing leads to.
    """
    ordered = check_order(lm, sites)
    if target_site is not None:
        ordered = sites_before(lm, ordered, target_site)
    taps = [*ordered, target_site] if target_site is not None else ordered
    graph = graph_pass(lm, encoding, taps, target.position)
    if target_site is None and target.token is None:
        target = replace(target, token=int(graph.logits.argmax()))
    value = _value(graph, target, target_site)
    readings = graph.readings[: len(ordered)]
    gradients = gradient(value, [one.y for one in readings], keep=len(readings) > 1)
    number = float(value.detach())
    found = []
    for reading, slope in zip(readings, gradients, strict=True):
        used = slope
        if steps is not None:
            used = _along(lm, encoding, reading, target, target_site, steps)
        found.append(
            _attributed(lm, encoding, reading, used, number, target, target_site, top, seed, steps)
        )
    tree = influences(readings, gradients, [one.causes for one in found], top, prune)
    return Attribution(target, number, graph.logits.detach(), tuple(found), tree)


def sites_before(
    lm: "LanguageModel", sites: Sequence[SaeSite], target_site: SaeSite
) -> list[SaeSite]:
    """Those of `sites` whose features can be causes of one of `target_site`, in the model's order.
    Raises UserError for sites that come after it, or where there are none before it."""
    kept = [one for one in sites if one.sae_id != target_site.sae_id]
    if not kept:
        raise UserError(
            f"a feature of {target_site.sae_id!r} needs an SAE of an earlier layer as its cause",
            hint="give one with --sae",
        )
    ordered = check_order(lm, [*kept, target_site])
    late = ordered[ordered.index(target_site) + 1 :]
    if late:
        raise UserError(
            f"SAE {late[0].sae_id!r} comes after {target_site.sae_id!r} in the model",
            hint="leave it out, or explain a feature of the later one",
        )
    return kept if len(kept) == 1 else check_order(lm, kept)


def _value(graph: Graph, target: Target, target_site: SaeSite | None) -> Tensor:
    """The target of a graph, differentiable."""
    if target_site is None:
        return target.of_logits(graph.logits)
    with torch.enable_grad():
        x = graph.readings[-1].x[target.position]
        return activation_at(target_site, x[None], target)[0]


def _along(
    lm: "LanguageModel",
    encoding: "Encoding",
    reading: Reading,
    target: Target,
    target_site: SaeSite | None,
    steps: int,
) -> Tensor:
    """The mean gradient [n, d] at the midpoints of `steps` equal parts of the way from the state
    without features to the real one."""
    features = reading.features_part()
    left = [1 - (step + 0.5) / steps for step in range(steps)]
    total = torch.zeros_like(features)
    for start in range(0, steps, _ROWS):
        edits = torch.stack([-share * features for share in left[start : start + _ROWS]])
        found = gradient_under(lm, encoding, reading.site, edits, target, target_site)
        total += found.float().sum(0)
    return total / steps


def _attributed(
    lm: "LanguageModel",
    encoding: "Encoding",
    reading: Reading,
    slope: Tensor,
    value: float,
    target: Target,
    target_site: SaeSite | None,
    top: int,
    seed: int,
    steps: int | None,
) -> Attributed:
    effects = reading.effects(slope)
    y, flow = reading.y.detach().float(), slope.float()
    features, read = reading.features_part(), reading.read
    along = (y * flow).sum(-1)
    bias = (reading.bias_part() * flow).sum(-1)[read]
    whole = (features * flow).sum(-1)
    own, of_bias = _total(effects), _total(bias)
    if steps is None:
        error, others = _total((along - whole)[read]) - of_bias, _total(along[~read])
    else:  # only the features move along the path
        error = of_bias = others = 0.0
        along = effects.sum(-1)
    parts = Parts(own, error, of_bias, others, value - (own + error + of_bias + others))
    causes = strongest(reading, effects, top)
    check = None
    if causes:
        pairs = [(one.feature, one.effect) for one in causes]
        check = check_causes(lm, encoding, reading, target, target_site, pairs, seed)
    firing = reading.firing().numel()
    return Attributed(reading.site, causes, parts, tuple(along.tolist()), check, firing)


def _total(values: Tensor) -> float:
    return float(values.sum(dtype=torch.float64))


def strongest(reading: Reading, effects: Tensor, top: int) -> tuple[Cause, ...]:
    """The `top` features by the absolute value of their summed effects [n, k]."""
    by_feature = reading.by_feature(effects)
    total = float(by_feature.abs().sum()) or 1.0
    best = by_feature.abs().topk(min(top, len(by_feature)))
    causes = []
    for feature in best.indices[best.values > 0].tolist():
        here = reading.latents.indices == feature
        own = torch.where(here, effects, 0).sum(-1)
        fires = torch.where(here, reading.plain.values, 0).sum(-1)
        tokens = own.abs().sort(descending=True, stable=True).indices[: int((own != 0).sum())]
        effect = float(by_feature[feature])
        pairs = tuple((token, float(own[token])) for token in tokens.tolist())
        causes.append(Cause(feature, effect, abs(effect) / total, float(fires.max()), pairs))
    return tuple(causes)
