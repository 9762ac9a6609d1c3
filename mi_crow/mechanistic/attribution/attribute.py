"""Attribution of one number of a forward pass to the features of SAEs.

The effect of feature i at token t on a target m is z_i(t) (d m / d y(t) . W_dec[i]), its share of
the first-order change along the activation y = sum_i z_i W_dec[i] + bias + error: one backward pass
for all of them (Marks et al. 2024, 2403.19647, equation 3; Syed et al. 2023, 2310.10348). The bias,
the error and the tokens that the SAE does not read are nodes of their own, so that the parts add up
to sum_t y(t) . d m / d y(t); `outside` is the rest of the target's value. With `steps` the gradient
is the mean over that many points between the state without features and the real one (integrated
gradients, equation 4 there): only the features move along it. Of an SAE over several layers y is
that of all of them side by side (see `across`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mi_crow.errors import UserError
from mi_crow.mechanistic.attribution.across import layer_of
from mi_crow.mechanistic.attribution.check import Check, check_causes
from mi_crow.mechanistic.attribution.passes import (
    Graph,
    activation_at,
    check_order,
    gradient_under,
    graph_pass,
)
from mi_crow.mechanistic.attribution.site import Reading, SaeSite
from mi_crow.mechanistic.attribution.target import Target
from mi_crow.mechanistic.attribution.tree import Influence, has_tree, influences

if TYPE_CHECKING:
    from mi_crow.language_model import LanguageModel
    from mi_crow.language_model.tokenize import Encoding

_ROWS = 8  # states of integrated gradients in one batch


@dataclass(frozen=True)
class Parts:
    """The target's value taken apart at one SAE's layer."""

    features: float
    error: float = 0.0  # what the SAE does not reconstruct
    bias: float = 0.0  # of the decoder; for some SAEs also a token's mean, or a skip connection
    other_tokens: float = 0.0  # special tokens and outliers, which the SAE does not read
    outside: float = 0.0  # the rest of the value: not first order in this layer

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
    layer: str = ""  # of an SAE over several layers: the one that the feature is of


@dataclass(frozen=True)
class Attributed:
    """What one SAE has to say about the target."""

    site: SaeSite
    causes: tuple[Cause, ...]  # the strongest first, by absolute effect
    parts: Parts
    per_token: tuple[float, ...]  # y(t) . d m / d y(t): adds up to the first-order change
    check: Check | None  # None without any cause
    firing: int  # features that fire on the text
    by_layer: tuple[Parts, ...] = ()  # of several layers: what the parts are at each


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
        ordered = sites_before(lm, ordered, target_site, target.feature)
    taps = [*ordered]
    if target_site is not None and target_site not in ordered:
        taps.append(target_site)
    graph = graph_pass(lm, encoding, taps, target.position)
    if target_site is None and target.token is None:
        target = replace(target, token=int(graph.logits.argmax()))
    value = _value(graph, target, target_site)
    readings = graph.readings[: len(ordered)]
    gradients = graph.slopes(value, range(len(ordered)), keep=has_tree(readings))
    number = float(value.detach())
    found = []
    for reading, slope in zip(readings, gradients, strict=True):
        used = slope
        if steps is not None:
            used = _along(lm, encoding, reading, target, target_site, steps)
        found.append(
            _attributed(lm, encoding, reading, used, number, target, target_site, top, seed, steps)
        )
    tree = influences(graph, gradients, [one.causes for one in found], top, prune)
    return Attribution(target, number, graph.logits.detach(), tuple(found), tree)


def sites_before(
    lm: "LanguageModel",
    sites: Sequence[SaeSite],
    target_site: SaeSite,
    feature: int | None,
) -> list[SaeSite]:
    """Those of `sites` whose features can be causes of `feature` of `target_site`, in the model's
    order: SAEs before it, and one over several layers itself where the feature is of a later one.

    Raises UserError for sites that come after it, or where there are none before it, and for a
    feature of two models."""
    if target_site.other is not None:
        raise UserError(
            f"a feature of {target_site.sae_id!r} reads two models, of which one runs here: what "
            "made it fire is not known",
            hint="explain what the model says instead",
        )
    kept = [one for one in sites if one.sae_id != target_site.sae_id]
    ordered = check_order(lm, [*kept, target_site])
    late = ordered[ordered.index(target_site) + 1 :]
    if late:
        raise UserError(
            f"SAE {late[0].sae_id!r} comes after {target_site.sae_id!r} in the model",
            hint="leave it out, or explain a feature of the later one",
        )
    found = ordered if target_site.explains_itself(feature) else ordered[:-1]
    if not found:
        raise UserError(
            f"a feature of {target_site.sae_id!r} needs an SAE of an earlier layer as its cause",
            hint="give one with --sae",
        )
    return found


def _value(graph: Graph, target: Target, target_site: SaeSite | None) -> Tensor:
    """The target of a graph, differentiable."""
    if target_site is None:
        return target.of_logits(graph.logits)
    with torch.enable_grad():
        reading = next(one for one in graph.readings if one.site is target_site)
        return activation_at(target_site, reading.x[target.position][None], target)[0]


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
        found = gradient_under(lm, encoding, reading, edits, target, target_site)
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
    along, layers = _parts(reading, slope.float(), only_features=steps is not None)
    if steps is not None:  # only the features move along the path
        along = effects.sum(-1)
    own = _total(effects)
    error, of_bias, others = (
        sum(getattr(one, name) for one in layers) for name in ("error", "bias", "other_tokens")
    )
    parts = Parts(own, error, of_bias, others, value - (own + error + of_bias + others))
    causes = strongest(reading, effects, top)
    check = None
    if causes:
        pairs = [(one.feature, one.effect) for one in causes]
        check = check_causes(lm, encoding, reading, target, target_site, pairs, seed)
    firing, by_layer = reading.firing().numel(), layers if reading.site.several else ()
    return Attributed(reading.site, causes, parts, tuple(along.tolist()), check, firing, by_layer)


def _parts(
    reading: Reading, slope: Tensor, *, only_features: bool
) -> tuple[Tensor, tuple[Parts, ...]]:
    """y(t) . d m / d y(t) [n], and the parts at each layer."""
    read, found = reading.read, []
    values = (reading.y.detach().float(), reading.features_part(), reading.bias_part())
    each = [reading.at_points(one * slope).values() for one in values]
    total = slope.new_zeros(len(slope))
    for products in zip(*each, strict=True):
        along, features, bias = (one.sum(-1) for one in products)
        own, of_bias = _total(features), _total(bias[read])
        rest, others = _total((along - features)[read]) - of_bias, _total(along[~read])
        found.append(Parts(own) if only_features else Parts(own, rest, of_bias, others))
        total += along
    return total, tuple(found)


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
        layer = layer_of(reading, feature)
        share = abs(effect) / total
        causes.append(Cause(feature, effect, share, float(fires.max()), pairs, layer))
    return tuple(causes)
