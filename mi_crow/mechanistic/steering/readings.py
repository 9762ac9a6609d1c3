"""What generated texts cost and what a stack's features do on them, token by token."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor
from torch.nn import functional

from mi_crow.hooks import Detector, first_tensor
from mi_crow.language_model.detokenize import shown_tokens
from mi_crow.mechanistic.sae.cross_layer.sae import CrossLayerSae
from mi_crow.mechanistic.sae.cross_layer.shared import SharedCrosscoder
from mi_crow.mechanistic.sae.outputs import activations_of
from mi_crow.mechanistic.sae.rules.some_latents import SomeLatents
from mi_crow.mechanistic.sae.substitute import replaceable
from mi_crow.mechanistic.steering.effects import teacher_forced
from mi_crow.mechanistic.steering.fits import no_feature
from mi_crow.mechanistic.steering.interventions import Intervention
from mi_crow.mechanistic.steering.sources import Activations, Source, layer_activations
from mi_crow.mechanistic.steering.where import ordinary_tokens

if TYPE_CHECKING:
    from mi_crow.language_model import Generation, HookPoint, LanguageModel
    from mi_crow.mechanistic.sae.cross_layer.other_model import OtherModel
    from mi_crow.mechanistic.steering.loading import LoadedModel, LoadedSae

_MOST_TARGETS = 64
_LOGITS = 2**26  # of one pass: a quarter of a GiB of fp32


class _Switched(Protocol):
    def enable(self) -> None: ...
    def disable(self) -> None: ...


_Part = TypeVar("_Part", bound=_Switched)


class TargetActivations(Detector):
    """Keeps the activations of some features in the last pass: fp32 [texts, tokens, features].

    Registered before the controllers of its layer, it sees a token before they change it.
    """

    def __init__(
        self, lm: "LanguageModel", activations: Activations, limit: float | None, count: int
    ) -> None:
        """`activations`: of `count` features for the layer's activations [texts, tokens, d];
        `limit`: the norm of massive tokens."""
        super().__init__()
        self._lm, self._activations, self._limit = lm, activations, limit
        self.enabled = False
        self.found: Tensor = torch.zeros(0, 0, count)

    @torch.no_grad()
    def process_activations(self, module: Any, inputs: Any, output: Any) -> None:
        x = first_tensor(output if output is not None else inputs)
        where = replaceable(x, ordinary_tokens(self._lm, x), self._limit)
        self.found = self._activations(x) * where[..., None]


class _Together(Generic[_Part]):
    """Several that are switched as one."""

    def __init__(self, parts: Sequence[_Part]) -> None:
        self._parts = tuple(parts)

    def enable(self) -> None:
        for part in self._parts:
            part.enable()

    def disable(self) -> None:
        for part in self._parts:
            part.disable()


class AllLayersActivations(_Together[TargetActivations]):
    """The same for features of all layers, from a detector for each, which has zeros for those of
    other layers."""

    def __init__(self, parts: Sequence[TargetActivations], n_features: int) -> None:
        super().__init__(parts)
        self._n = n_features

    @property
    def found(self) -> Tensor:
        total = torch.zeros(0, 0, self._n)
        for place, part in enumerate(self._parts):
            total = part.found if not place else total + part.found.to(total.device)
        return total


class _LayerRead(Detector):
    """Keeps the activations of one layer in the last pass, and which tokens count."""

    def __init__(self, lm: "LanguageModel", limit: float | None) -> None:
        super().__init__()
        self._lm, self._limit = lm, limit
        self.enabled = False
        self.seen: tuple[Tensor, Tensor] | None = None
        self.ids: Tensor | None = None  # the tokens of that pass

    @torch.no_grad()
    def process_activations(self, module: Any, inputs: Any, output: Any) -> None:
        x = first_tensor(output if output is not None else inputs)
        where = replaceable(x, ordinary_tokens(self._lm, x), self._limit)
        self.seen = x.detach().clone(), where
        context = self._lm.forward_context
        self.ids = None if context is None else context.input_ids


class SharedActivations(_Together[_LayerRead]):
    """The same for features that read several layers at once, from a detector for each layer."""

    def __init__(
        self,
        sae: SharedCrosscoder,
        parts: Sequence[_LayerRead],
        features: Sequence[int],
        other: "OtherModel | None" = None,
    ) -> None:
        """`other`: reads the same tokens, where the features are of two models."""
        super().__init__(parts)
        self._other = other
        self._sae = sae
        self._features = torch.tensor(features, dtype=torch.int64, device=sae.device)

    @property
    def found(self) -> Tensor:
        seen = [part.seen for part in self._parts if part.seen is not None]
        if len(seen) < len(self._parts):
            return torch.zeros(0, 0, len(self._features))
        layers, ids = [x for x, _ in seen], self._parts[0].ids
        if self._other is not None and ids is not None:
            layers = self._other.beside(layers, ids)
        latents = self._sae.encode_sparse(torch.cat(layers, dim=-1))
        where = torch.stack([where for _, where in seen]).all(dim=0)
        return activations_of(latents, self._features).float() * where[..., None]


class BesideActivations(_Together["Watched"]):
    """Those of several of them, beside each other."""

    @property
    def found(self) -> Tensor:
        parts = [part.found for part in self._parts if part.found.shape[-1]]
        return torch.cat([one.to(parts[0].device) for one in parts], dim=-1)


Watched = TargetActivations | AllLayersActivations | SharedActivations | BesideActivations


@contextmanager
def watching(
    loaded: "LoadedSae | LoadedModel",
    features: Sequence[int],
    others: "Sequence[tuple[Source, int]]" = (),
) -> Iterator[Watched]:
    """Inside the block the activations of the open SAE's features can be read, and after them those
    of `others`, directions of sources by their numbers; enter it before `steering`. A model alone
    has no features. Raises UserError for a feature that its SAE does not have."""
    lm = loaded.lm
    with ExitStack() as stack:
        parts: list[Watched] = [stack.enter_context(_own_features(loaded, features))]
        for source, number in others:
            found = source.activations([number])
            own = TargetActivations(lm, found, source.outlier_norm, 1)
            hook = lm.layers.register_hook(source.read, own)
            stack.callback(lm.layers.unregister_hook, hook)
            parts.append(own)
        yield BesideActivations(parts) if others else parts[0]


@contextmanager
def _own_features(loaded: "LoadedSae | LoadedModel", features: Sequence[int]) -> Iterator[Watched]:
    """The same for the open SAE's features."""
    if loaded.sae_id is None:
        yield AllLayersActivations((), 0)
        return
    lm, sae = loaded.lm, loaded.sae
    for feature in features:
        if not 0 <= feature < sae.n_latents:
            raise no_feature(feature, loaded.sae_id, sae.n_latents)
    with ExitStack() as stack:

        def register(point: "HookPoint", detector: Detector) -> None:
            stack.callback(lm.layers.unregister_hook, lm.layers.register_hook(point, detector))

        if not isinstance(sae, CrossLayerSae):
            limit = sae.metadata.outlier_norm
            watched = TargetActivations(lm, SomeLatents(sae, features), limit, len(features))
            register(loaded.layer, watched)
            yield watched
            return
        if isinstance(sae, SharedCrosscoder):
            limit = sae.metadata.outlier_norm
            every = [_LayerRead(lm, limit) for _ in loaded.points]
            for point, detector in zip(loaded.points, every, strict=True):
                register(point, detector)
            yield SharedActivations(sae, every, features, loaded.other)
            return
        wanted = torch.tensor(features, dtype=torch.int64, device=lm.device)
        owners = {sae.layer_of(feature)[0] for feature in features}
        parts = []
        for number, point in zip(sae.layer_numbers, loaded.points, strict=True):
            if number in owners:
                of_layer = partial(layer_activations, sae, number=number, features=wanted)
                limit = sae.metadata.outlier_norm
                parts.append(TargetActivations(lm, of_layer, limit, len(features)))
                register(point, parts[-1])
        yield AllLayersActivations(parts, len(features))


def feature_targets(stack: Sequence[Intervention]) -> list[int]:
    """The features that a stack changes, in its order, single ones before those of groups; of large
    groups the first."""
    single = [one.feature for one in stack if one.feature is not None]
    grouped = [feature for one in stack for feature, _ in one.features]
    return list(dict.fromkeys([*single, *grouped]))[: max(_MOST_TARGETS, len(set(single)))]


@torch.inference_mode()
def promoted_by(
    loaded: "LoadedSae | LoadedModel", features: Sequence[int], count: int = 5
) -> list[dict[str, Any]]:
    """The tokens whose logits each feature's direction raises most (see `LogitLens`), as JSON:
    `target`, `token_ids`, `tokens`, `logits`. Nothing for a model alone, an SAE over several layers
    and a layer that is not as wide as the output embedding."""
    from mi_crow.mechanistic.features.index.tables.logits import LogitLens

    if loaded.sae_id is None or isinstance(loaded.sae, CrossLayerSae) or not features:
        return []
    lens = LogitLens(*loaded.lm.layers.unembedding(), copied=False)
    rows = loaded.sae.decoder_rows.detach()[list(features)].float()
    if rows.shape[1] != lens.width:
        return []
    found = lens.logits(rows).topk(min(count, lens.vocabulary), dim=1)
    return [
        {
            "target": f"feature:{feature}",
            "token_ids": ids,
            "tokens": [shown_tokens(loaded.lm.tokenizer, [one])[0] for one in ids],
            "logits": logits,
        }
        for feature, ids, logits in zip(
            features, found.indices.tolist(), found.values.tolist(), strict=True
        )
    ]


def read_generation(
    lm: "LanguageModel",
    watched: Watched,
    generation: "Generation",
    stack: Sequence[Intervention] | None = None,
    max_acts: Mapping[int, float] | None = None,
    promoted: Sequence[Mapping[str, Any]] = (),
) -> list[dict[str, Any]]:
    """One reading for each continuation, as JSON.

    `tokens` are its texts, `acts` the activations of each watched feature on them and `perplexity`
    that of the text, both in the plain model; `distinct_2` the share of its pairs of neighbouring
    tokens that are different ones. For the steered side, whose `stack` acts now: `kl`, the mean
    KL(plain || steered) in nats a token, and for each feature under a feedback `memory` and
    `factor`, m and k of `Schedule` on each token; None for the others. `promoted_log_p` has, for
    the tokens of each entry of `promoted` (see `promoted_by`), their mean log-probabilities over
    the text, `plain` and `steered`.
    """
    prompt = len(generation.prompt_ids)
    longest = max((len(ids) for ids in generation.token_ids), default=0)
    rows = max(_LOGITS // max(longest * _vocabulary(lm), 1), 1)
    readings: list[dict[str, Any]] = []
    for start in range(0, len(generation.token_ids), rows):
        kept = generation.token_ids[start : start + rows]
        part = replace(generation, token_ids=kept)
        for one in _read(lm, watched, part, stack is not None, promoted):
            ids = kept[one.pop("row")]
            tokens = shown_tokens(lm.tokenizer, [*generation.prompt_ids, *ids])[prompt:]
            shares = one.pop("steered_acts", None)
            reading = {"tokens": tokens, "distinct_2": distinct(ids, 2), **one}
            if stack is not None and shares is not None:
                reading |= _feedback(stack, shares, max_acts or {})
            readings.append(reading)
    return readings


def distinct(ids: Sequence[int], n: int) -> float | None:
    """The share of different ones among the runs of `n` tokens (Li et al. 2016, distinct-n); None
    for a text without any."""
    runs = [tuple(ids[at : at + n]) for at in range(len(ids) - n + 1)]
    return len(set(runs)) / len(runs) if runs else None


def _vocabulary(lm: "LanguageModel") -> int:
    return lm.embedding_rows or 1


def _read(
    lm: "LanguageModel",
    watched: Watched,
    generation: "Generation",
    steered: bool,
    promoted: Sequence[Mapping[str, Any]],
) -> Iterator[dict[str, Any]]:
    """The readings of continuations that fit one pass."""
    empty = [row for row, ids in enumerate(generation.token_ids) if not ids]
    full = [row for row, ids in enumerate(generation.token_ids) if ids]
    found: dict[int, dict[str, Any]] = {
        row: {"row": row, "acts": [], "perplexity": None} for row in empty
    }
    prompt = len(generation.prompt_ids)
    watched.enable()
    try:
        with lm.plain():
            plain = list(teacher_forced(lm, generation, len(full) or 1))
        acts = watched.found
        under = list(teacher_forced(lm, generation, len(full) or 1)) if steered else []
        shares = watched.found
    finally:
        watched.disable()
    for place, row in enumerate(full):
        log_p, targets, real = (one[place] for one in plain[0])
        length = int(real.sum())
        nats = -log_p.gather(-1, targets[:, None])[:length, 0].mean(dtype=torch.float64)
        reading: dict[str, Any] = {"row": row, "perplexity": math.exp(min(float(nats), 700.0))}
        reading["acts"] = _columns(acts, place, prompt, length)
        if under:
            log_q = under[0][0][place]
            kl = functional.kl_div(log_q, log_p, log_target=True, reduction="none").sum(-1)
            reading["kl"] = max(float(kl[:length].mean(dtype=torch.float64)), 0.0)
            reading["steered_acts"] = _columns(shares, place, prompt, length)
            sides = {"plain": log_p[:length].mean(0), "steered": log_q[:length].mean(0)}
            reading["promoted_log_p"] = {
                side: [mean[one["token_ids"]].tolist() for one in promoted]
                for side, mean in sides.items()
            }
        found[row] = reading
    return (found[row] for row in range(len(generation.token_ids)))


def _columns(acts: Tensor, place: int, start: int, length: int) -> list[list[float]]:
    """Activations [texts, tokens, features] of one text as a list of its own tokens for each
    feature; nothing where none are watched."""
    return acts[place, start : start + length].t().tolist() if acts.shape[-1] else []


def _feedback(
    stack: Sequence[Intervention], acts: Sequence[Sequence[float]], max_acts: Mapping[int, float]
) -> dict[str, Any]:
    """m and k of the first feedback on each watched feature (see `Schedule`), on its own or in a
    group."""
    targets = feature_targets(stack)
    known = {
        feature: [act / max_acts[feature] for act in own]
        for feature, own in zip(targets, acts, strict=False)
        if max_acts.get(feature)
    }
    memory: list[list[float] | None] = []
    factor: list[list[float] | None] = []
    for feature in targets:
        held = (one for one in stack if feature in dict(one.features))
        one = next((one for one in held if one.schedule.kind == "feedback"), None)
        if one is None or not all(number in known for number, _ in one.features):
            memory.append(None)
            factor.append(None)
            continue
        m, course = 0.0, []
        for shares in zip(*(known[number] for number, _ in one.features), strict=True):
            m = max(one.schedule.keep * m, *shares)
            course.append(m)
        memory.append(course)
        factor.append([min(max(1 - m / one.schedule.target, 0.0), 1.0) for m in course])
    return {"memory": memory, "factor": factor}
