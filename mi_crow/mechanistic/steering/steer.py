"""A stack of interventions on a model: what it refers to, and the hooks that carry it out."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mi_crow.errors import NotFoundError, UserError, nearest
from mi_crow.mechanistic.sae.cross_layer.sae import CrossLayerSae
from mi_crow.mechanistic.sae.cross_layer.shared import SharedCrosscoder
from mi_crow.mechanistic.sae.cross_layer.two_models import TwoModelCrosscoder
from mi_crow.mechanistic.sae.fitting import check_width
from mi_crow.mechanistic.steering.controllers import LayerSteering, SourceSteering
from mi_crow.mechanistic.steering.interventions import Intervention
from mi_crow.mechanistic.steering.positions import read_positions
from mi_crow.mechanistic.steering.schedules import Condition
from mi_crow.mechanistic.steering.sources import (
    LayerOfFeatures,
    NeuronSource,
    Place,
    ReadActivations,
    SaeSource,
    SharedFeatures,
    Source,
    VectorSource,
)
from mi_crow.mechanistic.steering.where import ConditionTest

if TYPE_CHECKING:
    from mi_crow.hooks import Controller
    from mi_crow.language_model import HookPoint, LanguageModel
    from mi_crow.mechanistic.sae.base import SparseAutoencoder
    from mi_crow.mechanistic.vectors.stored import SteeringVector

MOST_READ = 64  # targets whose activations are read in the texts


@dataclass(frozen=True)
class SaeAt:
    """An SAE in its model; `write` is where its decoder writes, another layer for a transcoder. An
    SAE over several layers knows them itself."""

    sae: "SparseAutoencoder"
    read: "HookPoint"
    write: "HookPoint | None" = None  # None: where it reads
    max_acts: Mapping[int, float] = field(default_factory=dict)  # by feature, where needed


@dataclass(frozen=True)
class SteeringParts:
    """What the interventions of a stack refer to, loaded."""

    own: SaeAt | None = None  # of features that do not name their SAE
    own_id: str | None = None  # None: `own` is meant by every feature, whatever SAE it names
    saes: Mapping[str, SaeAt] = field(default_factory=dict)  # the others, by id
    vectors: "Mapping[str, SteeringVector]" = field(default_factory=dict)


@contextmanager
def steering(
    lm: "LanguageModel",
    sae: "SparseAutoencoder",
    layer: "str | int | HookPoint",
    interventions: Sequence[Intervention],
    max_acts: Mapping[int, float] | None = None,
) -> Iterator[None]:
    """Inside the block the model runs under `interventions` on one SAE at `layer`, and on raw
    layers and neurons. The SAE moves to the model's device.

    Raises what `steering_with` does.
    """
    own = SaeAt(sae.to(lm.device), lm.layers.resolve(layer), None, max_acts or {})
    with steering_with(lm, SteeringParts(own), interventions):
        yield


@contextmanager
def steering_with(
    lm: "LanguageModel",
    parts: SteeringParts,
    interventions: Sequence[Intervention],
    *,
    allow_code: bool = False,
) -> Iterator[None]:
    """Inside the block the model runs under `interventions`, on any SAEs, vectors and layers.

    At one layer they act source by source in the order of the stack, each source with all of its
    interventions, raw layers last. What an SAE reads that is changed before it is the changed
    activation. The hooks go with the block, however it ends.

    Raises UserError in one sentence for what does not fit (a feature out of range, a vector of
    another width, an SAE or vector that is not among the parts, a maximum that is not known, a
    user's function unless `allow_code` is set), NotFoundError for an unknown layer.
    """
    stack = [one for one in interventions if one.enabled]
    code = next((one.code for one in stack if one.code is not None), None)
    if code is not None and not allow_code:
        raise UserError(
            f"the stack runs {code.words}, code of your own",
            hint="mi-crow steer --allow-code runs it",
        )
    controllers = _Hooks(lm, parts).of(stack)
    with ExitStack() as hooks:
        for point, controller in controllers:
            hooks.callback(lm.layers.unregister_hook, lm.layers.register_hook(point, controller))
        yield


def vector_sources(lm: "LanguageModel", parts: SteeringParts, name: str) -> list[Source]:
    """A vector of `parts` at each of its layers. Raises UserError, NotFoundError."""
    return _Hooks(lm, parts).vector(name)


def sources_beside(
    lm: "LanguageModel", parts: SteeringParts, stack: Sequence[Intervention]
) -> dict[str, tuple[Source, int]]:
    """What can be read of the targets that are no features of the open SAE, by their texts:
    features of other SAEs (not of those over several layers), vectors at the last of their layers,
    neurons.

    Raises what `steering_with` raises.
    """
    hooks, order = _Hooks(lm, parts), lm.layers.list_layers()
    found: dict[str, tuple[Source, int]] = {}
    for one in stack:
        if not one.enabled or one.layer is not None:
            continue
        if one.aim.of_sae and (parts.own_id is None or one.sae in (None, parts.own_id)):
            continue
        sources = hooks.sources_of(one)
        last = max(sources, key=lambda source: order.index(source.read.name))
        if one.aim.kind == "vector":
            found[one.aim.text] = last, 0
        elif one.aim.neuron is not None:
            last.check(one.aim.neuron, one.aim.text)
            found[one.aim.text] = last, one.aim.neuron
        elif type(last) is SaeSource:
            for feature, _ in one.features[: MOST_READ - len(found)]:
                last.check(feature, one.aim.text)
                found[f"feature:{one.sae}/{feature}"] = last, feature
    return found


class _Hooks:
    """The hooks of a stack, in the order in which they are registered."""

    def __init__(self, lm: "LanguageModel", parts: SteeringParts) -> None:
        self._lm, self._parts = lm, parts
        self._sources: dict[tuple[str, ...], Source] = {}
        self._kept: dict[int, Source] = {}  # those whose activations are needed later in a pass

    def of(self, stack: Sequence[Intervention]) -> "list[tuple[HookPoint, Controller]]":
        for one in stack:
            self._check_tokens(one)
        by_source: dict[int, tuple[Source, list[Intervention]]] = {}
        raw: list[tuple[HookPoint, Controller]] = []
        tests: dict[int, dict[Condition, ConditionTest]] = {}
        for one in stack:
            test = self._test(one)
            if one.layer is not None:
                point = self._lm.layers.resolve(one.layer)
                raw.append((point, LayerSteering(self._lm, one, self._limit(point), test)))
                continue
            for source in self.sources_of(one):
                by_source.setdefault(id(source), (source, []))[1].append(one)
                if test is not None and one.condition is not None:
                    tests.setdefault(id(source), {})[one.condition] = test
        changes: list[tuple[HookPoint, Controller]] = []
        for source, own in by_source.values():
            known = tests.get(id(source))
            changes.append((source.write, SourceSteering(self._lm, source, own, known)))
            if not source.read.same_tensor(source.write):
                self._kept[id(source)] = source
        # Readers first: a condition is about what the model does by itself at its layer.
        sources = [source for source, _ in by_source.values()]
        kept: list[Place] = [*self._kept.values()]
        kept += [place for source in {*sources, *self._kept.values()} for place in source.also]
        readers = [(place.read, ReadActivations(place)) for place in kept]
        return [*readers, *changes, *raw]

    def _check_tokens(self, one: Intervention) -> None:
        """Raises UserError for ids of tokens that the model does not have."""
        last = max(read_positions(one.scope).ids, default=-1)
        known = self._lm.embedding_rows
        if known and last >= known:
            raise UserError(
                f"{last} is not the id of a token of the model", hint=f"it has 0 to {known - 1}"
            )

    def _test(self, one: Intervention) -> ConditionTest | None:
        condition = one.condition
        if condition is None:
            return None
        if condition.vector is not None:
            found = self.vector(condition.vector)
            if len(found) != 1:
                raise UserError(
                    f"vector {condition.vector!r} is for {len(found)} layers, a condition is about "
                    "one"
                )
            source = found[0]
        else:
            named = [condition.feature or 0]
            [source, *_] = self._features(condition.sae or one.sae, named, True)
        self._kept[id(source)] = source
        return ConditionTest(source, condition)

    def sources_of(self, one: Intervention) -> list[Source]:
        aim = one.aim
        if aim.kind == "vector":
            return self.vector(aim.name)
        if aim.kind == "neuron":
            return [self._neurons(aim.name)]
        if aim.kind == "tag" or one.rivals.startswith("tag:"):
            raise UserError(
                f"{one.words!r} names a tag, which has to be looked up in the workspace first"
            )
        named = [number for number, _ in (*one.features, *one.rival_features)]
        return self._features(one.sae, named, _looks(one))

    def _features(
        self, sae_id: str | None, features: Sequence[int], reads: bool = False
    ) -> list[Source]:
        """What features of an SAE are read and written by: of an SAE over several layers one source
        for each layer that they are of, and each that they write to. Where these read all layers,
        and how active they are decides (`reads`), only the last, where this is known."""
        parts = self._parts
        own = parts.own_id is None or sae_id in (None, parts.own_id)
        at = parts.own if own else parts.saes.get(sae_id or "")
        if at is None:
            raise self._missing("SAE", sae_id, parts.saes)
        name = "this SAE" if own and parts.own_id is None else f"SAE {sae_id or parts.own_id!r}"
        key = ("sae", "" if own else sae_id or "")
        if isinstance(at.sae, SharedCrosscoder):
            return self._shared(at.sae, features, at.max_acts, (key, reads), name)
        if isinstance(at.sae, CrossLayerSae):
            return self._across(at.sae, features, at.max_acts, key, name)
        if key not in self._sources:
            self._sources[key] = SaeSource(at.sae, at.read, at.write, at.max_acts, name)
        return [self._sources[key]]

    def _across(
        self,
        sae: CrossLayerSae,
        features: Sequence[int],
        maxima: Mapping[int, float],
        key: tuple[str, ...],
        name: str,
    ) -> list[Source]:
        resolve = self._lm.layers.resolve
        reads, writes = (
            dict(zip(sae.layer_numbers, names, strict=True))
            for names in (sae.layers, sae.target_layers)
        )
        found: list[Source] = []
        for number in sorted({sae.layer_of(feature)[0] for feature in features}):
            for to in sae.written_by(number):
                own = (*key, str(number), str(to))
                if own not in self._sources:
                    layers = (number, resolve(reads[number])), (to, resolve(writes[to]))
                    self._sources[own] = LayerOfFeatures(sae, layers, maxima, name)
                found.append(self._sources[own])
        return found

    def _shared(
        self,
        sae: SharedCrosscoder,
        features: Sequence[int],
        maxima: Mapping[int, float],
        asked: tuple[tuple[str, ...], bool],
        name: str,
    ) -> list[Source]:
        for feature in features:
            sae.layer_of(feature)
        key, reads = asked
        layers = dict(zip(sae.layer_numbers, sae.layers, strict=True))
        if isinstance(sae, TwoModelCrosscoder):
            if reads:
                raise UserError(
                    f"{name} reads two models: how active its features are is not known while one "
                    "of them writes",
                    hint="add them (+8), without a condition or feedback",
                )
            layers = sae.points_of(sae.role_of(self._lm.model_id, self._lm.revision))
        points = {number: self._lm.layers.resolve(layer) for number, layer in layers.items()}
        found: list[Source] = []
        for to in (sae.last,) if reads else points:
            own = (*key, str(to))
            if own not in self._sources:
                self._sources[own] = SharedFeatures(sae, points, to, maxima, name)
            found.append(self._sources[own])
        return found

    def vector(self, name: str) -> list[Source]:
        vector = self._parts.vectors.get(name)
        if vector is None:
            raise self._missing("vector", name, self._parts.vectors)
        found: list[Source] = []
        for layer, direction in vector.directions.items():
            key = ("vector", name, layer)
            if key not in self._sources:
                point = self._lm.layers.resolve(layer)
                width = self._lm.layers.width(point)
                if width != len(direction):
                    raise UserError(
                        f"vector {name!r} has width {len(direction)}, layer {layer!r} has {width}",
                        hint="it belongs to another model or layer",
                    )
                limit = self._limit(point) or vector.figure(layer, "outlier_norm")
                self._sources[key] = VectorSource(
                    direction.to(self._lm.device),
                    point,
                    vector.figure(layer, "max"),
                    limit,
                    f"vector {name!r}",
                )
            found.append(self._sources[key])
        return found

    def _neurons(self, layer: str) -> Source:
        key = ("neurons", layer)
        if key not in self._sources:
            point = self._lm.layers.resolve(layer)
            width = self._lm.layers.width(point)
            self._sources[key] = NeuronSource(width, point, self._limit(point), self._lm.device)
        return self._sources[key]

    def _limit(self, point: "HookPoint") -> float | None:
        """The norm of massive tokens at a layer, as an SAE that reads it knows it."""
        known = [self._parts.own, *self._parts.saes.values()]
        limits = [
            at.sae.metadata.outlier_norm
            for at in known
            if at is not None and at.read.same_tensor(point)
        ]
        return next((limit for limit in limits if limit is not None), None)

    @staticmethod
    def _missing(what: str, name: str | None, known: Mapping[str, object]) -> UserError:
        if name is None:
            return UserError(
                "a feature does not name its SAE, and none is open", hint="write my-sae/42"
            )
        hint = f"there is {nearest(name, known)}" if known else ""
        return NotFoundError(f"{what} {name!r} is not loaded", hint=hint)


def _looks(one: Intervention) -> bool:
    """Whether what it does depends on how active features are."""
    by_itself = one.op not in ("add", "project") or one.schedule.kind == "feedback"
    return by_itself or bool(one.rival_features) or one.condition is not None


def check_in_model(lm: "LanguageModel", sae_id: str, at: SaeAt) -> None:
    """Raises UserError for an SAE whose widths are not those of its layers in `lm`."""
    hint = "it belongs to another model or layer"
    width = lm.layers.width(at.read)
    check_width(f"SAE {sae_id!r}", at.sae.n_inputs, f"layer {at.read.name!r}", width, hint)
    if at.write is not None:
        out = lm.layers.width(at.write)
        where = f"layer {at.write.name!r}"
        check_width(f"SAE {sae_id!r}", at.sae.n_outputs, where, out, hint, outputs=True)
