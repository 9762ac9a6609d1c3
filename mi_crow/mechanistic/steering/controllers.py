"""The change that interventions make to a layer's activations.

x' = x + sum_i (z'_i - z_i) W_dec[i] over the changed latents i: the difference of two decodings,
never the reconstruction, so that untouched tokens stay as they are, bit for bit. Vectors and
neurons are changed in the same way (see `sources`).
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mi_crow.errors import UserError
from mi_crow.hooks import Controller
from mi_crow.mechanistic.sae.substitute import replaceable
from mi_crow.mechanistic.steering.interventions import Intervention
from mi_crow.mechanistic.steering.pace import Pace
from mi_crow.mechanistic.steering.schedules import Condition
from mi_crow.mechanistic.steering.sources import Source
from mi_crow.mechanistic.steering.where import ordinary_tokens, scope_tokens

if TYPE_CHECKING:
    from mi_crow.language_model import LanguageModel

Features = Sequence[tuple[int, float]]  # numbers of a source's directions with weights


class ReadActivations(Controller):
    """Keeps what a source reads for hooks that run later in the same pass."""

    def __init__(self, source: Source) -> None:
        super().__init__()
        self._source = source

    @torch.no_grad()
    def modify_activations(self, module: Any, inputs: Tensor | None, output: Tensor | None) -> Any:
        x = output if output is not None else inputs
        # A copy, since some blocks add to a sub-layer's output in place.
        self._source.seen = None if x is None else x.detach().clone()


class ConditionTest:
    """A condition on a feature or vector, on the activations that its source kept."""

    def __init__(self, source: Source, condition: Condition) -> None:
        """Raises UserError for a feature out of range, or without the maximum that is needed."""
        self.source: Source = source
        self._condition = condition
        self._number = condition.feature or 0
        source.check(self._number, f"feature {self._number}")
        unit = source.required_maximum(self._number) if condition.unit == "max" else 1.0
        self._limit = condition.value * unit

    def __call__(self, like: Tensor) -> Tensor:
        """On which tokens of `like` [..., d] it holds: bool [...]. Raises UserError in a pass that
        has not reached its layer."""
        x = _kept(self.source, f"condition {self._condition.describe()}", like)
        number = torch.tensor([self._number], device=x.device)
        own = self.source.activations(x, number)[..., 0].to(like.device)
        return own > self._limit if self._condition.side == "above" else own < self._limit


def _kept(source: Source, what: str, like: Tensor) -> Tensor:
    if source.seen is None or source.seen.shape[:-1] != like.shape[:-1]:
        raise UserError(
            f"{what} reads {source.read.point}, which the model reaches after the layer that is "
            "changed",
            hint="take one of the same layer or an earlier one",
        )
    return source.seen


class Members:
    """Some directions of a source with weights: the columns that they have, and their sizes."""

    def __init__(
        self, features: Features, columns: Mapping[int, int], row_norms: Tensor, rows: Tensor
    ) -> None:
        device = rows.device
        self.numbers: list[int] = [number for number, _ in features]
        places = [columns[number] for number in self.numbers]
        self.columns: Tensor = torch.tensor(places, device=device)
        self.weights: Tensor = torch.tensor([weight for _, weight in features], device=device)
        self.norms: Tensor = row_norms[self.columns]
        unit_rows = rows[self.columns] / self.norms[:, None]
        summed = self.weights @ unit_rows
        # Of the weighted sum of unit rows: a group in `norm` units has one length, not many.
        self.length: Tensor = torch.linalg.vector_norm(summed).clamp_min(1e-12)
        self.direction: Tensor = summed / self.length  # [d], of length 1


class _Work:
    """One intervention with what it needs in every pass."""

    def __init__(
        self,
        lm: "LanguageModel",
        one: Intervention,
        source: Source,
        condition: ConditionTest | None,
    ) -> None:
        self.one, self.pace, self.condition = one, Pace(lm, one.schedule), condition
        self.features: Features = numbers_of(one)
        self.rivals: Features = one.rival_features
        for number, _ in (*self.features, *self.rivals):
            source.check(number, one.target)
        self.maxima: list[float] = []
        if one.measures_itself:
            self.maxima = [source.required_maximum(number) for number, _ in self.features]

    @property
    def reads(self) -> bool:
        """Whether it needs the source's activations: adding moves one by the same amount whatever
        it is, and a projection looks at the token itself."""
        feedback = self.one.schedule.kind == "feedback"
        return self.one.op not in ("add", "project") or feedback or bool(self.rivals)


def numbers_of(one: Intervention) -> Features:
    """The directions of its source that an intervention changes, with their weights."""
    if one.aim.kind == "vector":
        return ((0, 1.0),)
    return ((one.aim.neuron or 0, 1.0),) if one.aim.kind == "neuron" else one.features


class SourceSteering(Controller):
    """Applies interventions on one source where it writes, in their order; projections come last.

    Latents are the SAE's own encoding: one that does not fire is 0. Special tokens, padding and
    outliers (norm above the source's `outlier_norm`) stay unchanged.
    """

    def __init__(
        self,
        lm: "LanguageModel",
        source: Source,
        interventions: Sequence[Intervention],
        conditions: "Mapping[Condition, ConditionTest] | None" = None,
    ) -> None:
        """Raises UserError for a feature out of range, or one that is measured by its maximum where
        that is not known."""
        super().__init__()
        self._lm, self._source = lm, source
        tests = conditions or {}
        every = [
            _Work(lm, one, source, tests[one.condition] if one.condition is not None else None)
            for one in interventions
        ]
        self._work = [work for work in every if not work.one.changes_nothing]
        used = {n for work in self._work for n, _ in (*work.features, *work.rivals)}
        self._numbers = sorted(used)
        columns = {number: column for column, number in enumerate(self._numbers)}
        self._rows = source.rows(self._numbers)  # [f, d]
        self._index = torch.tensor(self._numbers, device=self._rows.device, dtype=torch.int64)
        norms = torch.linalg.vector_norm(self._rows, dim=1).clamp_min(1e-12)
        self._members = [Members(w.features, columns, norms, self._rows) for w in self._work]
        self._rivals = [
            Members(w.rivals, columns, norms, self._rows) if w.rivals else None for w in self._work
        ]
        self._maxima = [torch.tensor(work.maxima, device=self._rows.device) for work in self._work]
        self._reads = any(work.reads for work in self._work)
        self._elsewhere = not source.read.same_tensor(source.write)

    @torch.no_grad()
    def modify_activations(self, module: Any, inputs: Tensor | None, output: Tensor | None) -> Any:
        y = output if output is not None else inputs
        if y is None or not self._work:
            return y
        x = _kept(self._source, self._source.name, y) if self._elsewhere else y
        where = replaceable(x, ordinary_tokens(self._lm, y), self._source.outlier_norm)
        before = self._activations(x)
        after = before
        # What one unit of a latent adds, for SAEs that normalise each token.
        units = self._source.units(x)
        norms = torch.linalg.vector_norm(y.float(), dim=-1, keepdim=True) / units  # [..., 1]
        along: list[tuple[Tensor, Tensor]] = []
        for place, work in enumerate(self._work):
            one, own, rivals = work.one, self._members[place], self._rivals[place]
            touched = where & scope_tokens(self._lm, y, one.scope)
            if work.condition is not None:
                touched = touched & work.condition(y)
            factor = work.pace(self._share(work, place, before))
            if one.op == "project":
                along.append((own.direction, (one.value - 1) * factor * touched))
                continue
            k = factor[..., None]
            z = after.index_select(-1, own.columns)
            changed = self._changed(one, own, self._maxima[place], z, norms, k)
            after = _put(after, own.columns, torch.where(touched[..., None], changed, z))
            if rivals is not None:
                z = after.index_select(-1, rivals.columns)
                less = z - k * rivals.weights * z
                after = _put(after, rivals.columns, torch.where(touched[..., None], less, z))
        # No branch on values from here on: a GPU would have to be waited for at every token.
        difference = after - before
        moved = (difference != 0).any(-1, keepdim=True)
        steered = y.float() + difference @ self._rows * units
        for direction, factor in along:
            steered = steered + (factor * (steered @ direction))[..., None] * direction
            moved = moved | (factor != 0)[..., None]
        return torch.where(moved, steered.to(y.dtype), y)

    def _activations(self, x: Tensor) -> Tensor:
        """The source's own activations of the directions in use: [..., f] fp32."""
        if not self._reads:
            return torch.zeros(*x.shape[:-1], len(self._numbers), device=x.device)
        return self._source.activations(x, self._index)

    def _share(self, work: _Work, place: int, before: Tensor) -> Tensor:
        """How much of its maximum the target has by itself: [...]; of a group its strongest."""
        own = before.index_select(-1, self._members[place].columns)
        if work.one.schedule.kind != "feedback":
            return own[..., 0]
        return (own / self._maxima[place]).amax(dim=-1)

    @staticmethod
    def _changed(
        one: Intervention, own: Members, maxima: Tensor, z: Tensor, norms: Tensor, k: Tensor
    ) -> Tensor:
        """Activations z [..., g] after one intervention of strength k [..., 1]."""
        if one.op == "ablate":
            return z - k * own.weights * z
        if one.op == "scale":
            return z + k * own.weights * (one.value - 1) * z
        amount = torch.full_like(z, one.value) * own.weights
        if one.unit == "max":
            amount = amount * maxima
        elif one.unit == "norm":
            # What the target adds then has `value` times the token's norm.
            amount = amount * norms / (own.norms * own.length)
        if one.op == "add":
            return z + k * amount
        if one.op in ("floor", "swap"):  # a weaker floor is a lower one
            return torch.maximum(z, k * amount)
        bounded = torch.minimum(z, amount) if one.op == "cap" else amount
        return z + k * (bounded - z)


def _put(z: Tensor, columns: Tensor, values: Tensor) -> Tensor:
    return z.index_copy(-1, columns, values)


class LayerSteering(Controller):
    """Changes a raw layer's activations: scales them, clamps their norm, ablates them to zero, or
    gives them to a user's function.

    Special tokens and padding stay unchanged, and outliers where `outlier_norm` is known.
    """

    def __init__(
        self,
        lm: "LanguageModel",
        intervention: Intervention,
        outlier_norm: float | None = None,
        condition: ConditionTest | None = None,
    ) -> None:
        super().__init__(intervention.layer)
        self._lm, self._one, self._outlier_norm = lm, intervention, outlier_norm
        self._condition = condition
        constant = intervention.schedule.kind == "constant"
        self._pace = None if constant else Pace(lm, intervention.schedule)
        self._function = intervention.code.load() if intervention.code is not None else None

    @torch.no_grad()
    def modify_activations(self, module: Any, inputs: Tensor | None, output: Tensor | None) -> Any:
        x = output if output is not None else inputs
        if x is None or self._one.changes_nothing:
            return x
        where = replaceable(x, ordinary_tokens(self._lm, x), self._outlier_norm)
        where = where & scope_tokens(self._lm, x, self._one.scope)
        if self._condition is not None:
            where = where & self._condition(x)
        changed = self._changed(x).float()
        if self._pace is not None:
            share = torch.zeros(x.shape[:-1], device=x.device)
            changed = torch.lerp(x.float(), changed, self._pace(share)[..., None])
        return torch.where(where[..., None], changed.to(x.dtype), x)

    def _changed(self, x: Tensor) -> Tensor:
        if self._function is not None:
            found = self._function(x.clone())
            if not isinstance(found, Tensor) or found.shape != x.shape:
                shape = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
                raise UserError(
                    f"the function of {self._one.words!r} returned {shape}",
                    hint=f"it must return a tensor of shape {list(x.shape)}",
                )
            return found.to(x.device)
        if self._one.op == "ablate":
            return torch.zeros_like(x)
        if self._one.op == "scale" or self._one.unit == "norm":
            return x * self._one.value
        norms = torch.linalg.vector_norm(x.float(), dim=-1, keepdim=True).clamp_min(1e-12)
        return x.float() * (self._one.value / norms)
