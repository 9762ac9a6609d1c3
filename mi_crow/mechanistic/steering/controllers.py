"""The change that interventions make to a layer's activations.

x' = x + sum_i (z'_i - z_i) W_dec[i] over the changed latents i: the difference of two decodings,
never the reconstruction, so that untouched tokens stay as they are, bit for bit. Vectors and
neurons are changed in the same way (see `sources`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mi_crow.errors import UserError
from mi_crow.hooks import Controller
from mi_crow.mechanistic.sae.substitute import replaceable
from mi_crow.mechanistic.steering.interventions import Intervention, Op
from mi_crow.mechanistic.steering.pace import Pace, text_strengths
from mi_crow.mechanistic.steering.schedules import Condition
from mi_crow.mechanistic.steering.sources import Source, kept
from mi_crow.mechanistic.steering.where import (
    ConditionTest,
    ordinary_tokens,
    scope_tokens,
    special_tokens,
    varying_scope,
)

if TYPE_CHECKING:
    from mi_crow.language_model import LanguageModel

_FEW = 32  # tokens of a pass

Features = Sequence[tuple[int, float]]  # numbers of a source's directions with weights


class _Members:
    """Some directions of a source with weights: the columns that they have, and their sizes."""

    def __init__(
        self, features: Features, columns: Mapping[int, int], row_norms: Tensor, rows: Tensor
    ) -> None:
        device = rows.device
        self.columns: list[int] = [columns[number] for number, _ in features]
        self.weights: Tensor = torch.tensor([weight for _, weight in features], device=device)
        self.norms: Tensor = row_norms[self.columns]
        summed = self.weights @ (rows[self.columns] / self.norms[:, None])
        # Of the weighted sum of unit rows: a group in `norm` units has one length, not many.
        self.length: Tensor = torch.linalg.vector_norm(summed).clamp_min(1e-12)
        self.direction: Tensor = summed / self.length  # [d], of length 1


@dataclass
class _Step:
    """One change to columns of their own, by one intervention or several alike."""

    op: Op
    by_norm: bool  # amounts are multiplied by the token's norm
    scope: str
    columns: list[int]
    amounts: Tensor  # [columns]: what is added or set; of scale and ablate what z is multiplied by
    pace: Pace | None = None  # None: constant
    condition: ConditionTest | None = None
    per_maximum: Tensor | None = None  # of a feedback
    rivals: tuple[Tensor, Tensor] | None = None  # their columns and weights
    direction: Tensor | None = None  # of a projection
    index: Tensor | None = None  # the columns; None where they are all in order

    @property
    def reads(self) -> bool:
        """Whether it needs the source's activations: adding moves one by the same amount whatever
        it is, and a projection looks at the token itself."""
        return (
            self.op not in ("add", "project") or self.per_maximum is not None or bool(self.rivals)
        )

    def not_captured(self, rows: int) -> str:
        """As of a hook."""
        if self.pace is not None:
            return self.pace.not_captured
        own = "" if self.condition is None else self.condition.not_captured(rows)
        return own or varying_scope(self.scope)

    def takes(self, other: "_Step") -> bool:
        """Whether both can be carried out at once, this one being the first."""
        plain = not any((one.pace or one.condition or one.rivals) for one in (self, other))
        apart = not set(self.columns) & set(other.columns)
        alike = (self.op, self.by_norm, self.scope) == (other.op, other.by_norm, other.scope)
        return plain and apart and alike and self.op != "project"

    def changed(
        self, z: Tensor, norms: Tensor | None, k: Tensor | None, more: Tensor | None
    ) -> Tensor:
        """Activations z [..., columns] after it, at strength k [..., 1] (None: 1), with amounts
        multiplied by `more` [..., 1] (None: 1)."""
        amounts = self.amounts
        if more is not None and self.op not in ("ablate", "scale"):
            amounts = amounts * more
        if self.by_norm and norms is not None:
            # What the target adds then has its share of the token's norm.
            amounts = amounts * norms
        if self.op in ("ablate", "scale"):
            amounts = amounts * z
        if self.op in ("cap", "clamp"):
            bounded = torch.minimum(z, amounts) if self.op == "cap" else amounts.expand_as(z)
            return bounded if k is None else z + k * (bounded - z)
        amounts = amounts if k is None else k * amounts
        # A weaker floor is a lower one.
        return torch.maximum(z, amounts) if self.op in ("floor", "swap") else z + amounts


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
        for one in interventions:
            for number, _ in (*numbers_of(one), *one.rival_features):
                source.check(number, one.target)
        own = [one for one in interventions if not one.changes_nothing]
        used = {n for one in own for n, _ in (*numbers_of(one), *one.rival_features)}
        numbers = sorted(used)
        self._rows = source.rows(numbers)  # [f, d]
        columns = {number: column for column, number in enumerate(numbers)}
        self._steps = self._joined([self._step(one, columns, conditions or {}) for one in own])
        reads = any(step.reads for step in self._steps)
        self._activations = source.activations(numbers) if reads else None
        self._by_norm = any(step.by_norm for step in self._steps)
        self._changes_columns = any(step.op != "project" for step in self._steps)
        self._elsewhere = not source.read.same_tensor(source.write)

    def _step(
        self,
        one: Intervention,
        columns: Mapping[int, int],
        conditions: "Mapping[Condition, ConditionTest]",
    ) -> _Step:
        norms = torch.linalg.vector_norm(self._rows, dim=1).clamp_min(1e-12)
        own = _Members(numbers_of(one), columns, norms, self._rows)
        rivals = None
        if one.rival_features:
            against = _Members(one.rival_features, columns, norms, self._rows)
            columns_of = torch.tensor(against.columns, device=self._rows.device)
            rivals = columns_of, against.weights
        maxima = None
        if one.measures_itself:
            known = [self._source.required_maximum(number) for number, _ in numbers_of(one)]
            maxima = torch.tensor(known, device=self._rows.device)
        by_norm = one.unit == "norm" and one.op not in ("ablate", "scale", "project")
        amounts = own.weights * (-1.0 if one.op == "ablate" else one.value)
        if one.op == "scale":
            amounts = own.weights * (one.value - 1)
        elif one.unit == "max" and maxima is not None and one.op != "ablate":
            amounts = amounts * maxima
        elif by_norm:
            amounts = amounts / (own.norms * own.length)
        kind = one.schedule.kind
        return _Step(
            one.op,
            by_norm,
            one.scope,
            own.columns,
            amounts,
            None if kind == "constant" else Pace(self._lm, one.schedule),
            None if one.condition is None else conditions[one.condition],
            maxima.reciprocal() if maxima is not None and kind == "feedback" else None,
            rivals,
            own.direction if one.op == "project" else None,
        )

    def _joined(self, steps: Sequence[_Step]) -> list[_Step]:
        """Neighbours that can be carried out at once as one step."""
        found: list[_Step] = []
        for step in steps:
            if found and found[-1].takes(step):
                found[-1].columns = [*found[-1].columns, *step.columns]
                found[-1].amounts = torch.cat([found[-1].amounts, step.amounts])
            else:
                found.append(step)
        for step in found:
            if step.columns != list(range(len(self._rows))):
                step.index = torch.tensor(step.columns, device=self._rows.device)
        return found

    def not_captured(self, rows: int) -> str:
        found = self._activations
        own = "" if found is None else self._source.why_varying(found, rows)
        return own or next(filter(None, (step.not_captured(rows) for step in self._steps)), "")

    @torch.no_grad()
    def modify_activations(self, module: Any, inputs: Tensor | None, output: Tensor | None) -> Any:
        y = output if output is not None else inputs
        if y is None:
            return y
        reached = [(step, scope_tokens(self._lm, y, step.scope)) for step in self._steps]
        reached = [(step, tokens) for step, tokens in reached if tokens is not False]
        if not reached:
            return y
        x = kept(self._source, self._source.name, y) if self._elsewhere else y
        left, norms = self._left_alone(x, y)
        more = text_strengths(self._lm, y)
        # What one unit of a latent adds, for SAEs that normalise each token.
        units = self._source.units(x)
        if norms is not None and isinstance(units, Tensor):
            norms = norms / units
        before = None if self._activations is None else self._activations(x)
        after = before
        if after is None:
            after = self._rows.new_zeros(*y.shape[:-1], len(self._rows))
        along: list[tuple[Tensor, Tensor]] = []
        for step, tokens in reached:
            touched = tokens if isinstance(tokens, Tensor) else None
            if step.condition is not None:
                holds = step.condition(y)
                touched = holds if touched is None else touched & holds
            factor = None if step.pace is None else step.pace(self._share(step, before, after))
            if step.direction is not None:
                size = torch.ones(y.shape[:-1], device=y.device) if factor is None else factor
                if touched is not None:
                    size = size * touched
                along.append((step.direction, (step.amounts[0] - 1) * size.unsqueeze(-1)))
                continue
            after = _after(step, after, norms, factor, touched, more)
        # No branch on values from here on: a GPU would have to be waited for at every token.
        steered = _fp32(y)
        if self._changes_columns:
            difference = after if before is None else after - before
            if left is not None:
                difference = difference.masked_fill(left, 0.0)
            steered = self._moved(steered, difference, units)
        for direction, size in along:
            moved = steered + size * (steered @ direction).unsqueeze(-1) * direction
            stays = size == 0 if left is None else left | (size == 0)
            steered = torch.where(stays, steered, moved)
        return steered if steered.dtype == y.dtype else steered.to(y.dtype)

    def _left_alone(self, x: Tensor, y: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Which tokens stay as they are, bool [..., 1] (None: no one), and the norms of y [..., 1]
        where amounts are measured by them."""
        limit, norms = self._source.outlier_norm, None
        left = special_tokens(self._lm, y)
        if self._by_norm:
            norms = torch.linalg.vector_norm(_fp32(y), dim=-1, keepdim=True)
        if limit is not None:
            own = norms
            if own is None or self._elsewhere:
                own = torch.linalg.vector_norm(_fp32(x), dim=-1, keepdim=True)
            if own.device.type == "cpu" and own.numel() <= _FEW:
                # Values are at hand there, and operations on so few cost more than looking.
                known = left is None or not any(left.view(-1).tolist())
                if known and all(size <= limit for size in own.view(-1).tolist()):
                    return None, norms
            beyond = ~(own <= limit)  # so is what is no number
            left = beyond if left is None else left | beyond
        return left, norms

    def _moved(self, y: Tensor, difference: Tensor, units: Tensor | float) -> Tensor:
        """y [..., d] with the rows added as often as the latents changed [..., f]; 0 to a token
        whose latents stayed."""
        if isinstance(units, Tensor):
            return y + difference @ self._rows * units
        if len(self._rows) == 1:  # what the model itself has just used costs least
            return y + difference * self._rows
        width = y.shape[-1]
        flat = difference.reshape(-1, len(self._rows))
        return torch.addmm(y.reshape(-1, width), flat, self._rows).view(y.shape)

    @staticmethod
    def _share(step: _Step, before: Tensor | None, like: Tensor) -> Tensor:
        """How much of its maximum the target has by itself: [...]; of a group its strongest."""
        if before is None or step.per_maximum is None:
            return like[..., 0]
        own = before if step.index is None else before.index_select(-1, step.index)
        shares = own * step.per_maximum
        return shares.squeeze(-1) if shares.shape[-1] == 1 else shares.amax(dim=-1)


def _fp32(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float32 else x.float()  # the call costs as much as a product


def _after(
    step: _Step,
    z: Tensor,
    norms: Tensor | None,
    factor: Tensor | None,
    touched: Tensor | None,
    more: Tensor | None,
) -> Tensor:
    """All activations z [..., f] after one step, on the tokens `touched` [...]; None: all."""
    k = None if factor is None else factor.unsqueeze(-1)

    def put(index: Tensor | None, own: Tensor, changed: Tensor) -> Tensor:
        if touched is not None:
            changed = torch.where(touched.unsqueeze(-1), changed, own)
        return changed if index is None else z.index_copy(-1, index, changed)

    own = z if step.index is None else z.index_select(-1, step.index)
    z = put(step.index, own, step.changed(own, norms, k, more))
    if step.rivals is not None:
        index, weights = step.rivals
        own = z.index_select(-1, index)
        z = put(index, own, own - (weights if k is None else k * weights) * own)
    return z


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

    def not_captured(self, rows: int) -> str:
        if self._function is not None:
            return "what its function does is not known"
        own = "" if self._pace is None else self._pace.not_captured
        if self._condition is not None:
            own = own or self._condition.not_captured(rows)
        return own or varying_scope(self._one.scope)

    @torch.no_grad()
    def modify_activations(self, module: Any, inputs: Tensor | None, output: Tensor | None) -> Any:
        x = output if output is not None else inputs
        if x is None or self._one.changes_nothing:
            return x
        where = replaceable(x, ordinary_tokens(self._lm, x), self._outlier_norm)
        reached = scope_tokens(self._lm, x, self._one.scope)
        if reached is False:
            return x
        where = where if reached is True else where & reached
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
