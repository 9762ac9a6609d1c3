"""An SAE over several layers in a forward pass: what its latents do to all that they write to.

A latent i with the activation z_i is part of every layer l that it writes to, y_l = sum_i z_i
W_dec,i->l + bias_l + error_l: a crosscoder's of all layers that it reads, a cross-layer
transcoder's of the MLP outputs of its own and later layers (Lindsey et al. 2024, "Sparse
crosscoders"; Ameisen et al. 2025, "Circuit Tracing", section 2). Its effect on a target m is

    z_i sum_l <d m / d y_l, W_dec,i->l>,

where each derivative holds the other layers of the SAE: what reaches the target through a later one
of them is that layer's y, whose latents, bias and error have it already. With the derivatives of
the plain pass it would count once for each layer that it goes through; a feature that stays in the
residual stream over three layers would be worth three times what it is. So the features, the bias
and the error of each layer are counted once and add up to sum_l <d m / d y_l, y_l>. At hook points
of the stream the derivative is zero at all but the last layer, through which everything goes; of a
transcoder they are the direct effects that are the edges of an attribution graph (there section 3,
here with the model's own attention and norms).

The same is measured: a feature is ablated by setting every layer to y_l - z_i W_dec,i->l, so that
no layer answers to the change of one before it and writes it a second time ("constrained patching"
there). Steering a feature of a transcoder lets the later layers answer, and can do more.

Of a crosscoder of two models the layers are those of the model that answers; z_i is read from both.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from mi_crow.mechanistic.attribution.site import Reading, SaeSite
from mi_crow.mechanistic.sae.cross_layer.kinds import own_layers
from mi_crow.mechanistic.sae.cross_layer.sae import CrossLayerSae
from mi_crow.mechanistic.sae.cross_layer.two_models import TwoModelCrosscoder

if TYPE_CHECKING:
    from mi_crow.language_model import HookPoint


@dataclass
class Gate:
    """Whether gradients flow from a layer to what it was computed from."""

    is_open: bool = field(default=True)

    def through(self, value: Tensor) -> Tensor:
        """The same numbers, whose gradient goes on to `value` only while the gate is open."""
        found: Any = _Through.apply(value, self)
        return found


class _Through(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, gate: Gate) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.gate = gate
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return (grad if ctx.gate.is_open else None), None


class _Own(NamedTuple):
    """The latents of one layer that fire, e times in all."""

    tokens: Tensor  # int64 [e]
    places: Tensor  # int64 [e], among the k of the token
    which: Tensor  # int64 [e], of `rows`
    rows: dict[int, Tensor]  # by number of the layer written to: [m, d] fp32


class AcrossReading(Reading):
    """The reading of an SAE over several layers, y and its gradient side by side. Only the decoder
    rows of latents that fire are read."""

    def __init__(
        self,
        site: SaeSite,
        sae: CrossLayerSae,
        read: Sequence[Tensor],
        written: Sequence[Tensor],
        ordinary: Tensor,
    ) -> None:
        super().__init__(site, read, written, ordinary)
        self._sae = sae
        numbers = sae.layer_numbers
        if isinstance(sae, TwoModelCrosscoder):
            numbers = tuple(sae.points_of(sae.role_of(site.lm.model_id, site.lm.revision)))
        widths = [one.shape[-1] for one in self.nodes]
        self._columns = dict(zip(numbers, _ranges(widths), strict=True))

    @property
    def held(self) -> "dict[HookPoint, Tensor]":
        return {
            point: node.detach() for point, node in zip(self.site.writes, self.nodes, strict=True)
        }

    @cached_property
    def _by_layer(self) -> list[_Own]:
        values, indices = self.plain
        found = []
        for number in self._sae.layer_numbers:
            own = self._sae.latents_at(number)
            inside = (indices >= own.start) & (indices < own.stop) & (values != 0)
            tokens, places = inside.nonzero(as_tuple=True)
            if not len(tokens):
                continue
            firing, which = indices[tokens, places].unique(return_inverse=True)
            numbers = firing.tolist()
            written = [to for to in self._sae.written_by(number) if to in self._columns]
            rows = {to: self._sae.rows_into(numbers, number, to) for to in written}
            found.append(_Own(tokens, places, which, rows))
        return found

    @torch.no_grad()
    def features_part(self, kept: Tensor | None = None) -> Tensor:
        values = self.plain.values if kept is None else self.plain.values * kept
        out = values.new_zeros(self.y.shape)
        for own in self._by_layer:
            some = next(iter(own.rows.values()))
            weights = values.new_zeros(len(values), len(some))
            weights[own.tokens, own.which] = values[own.tokens, own.places]
            for to, rows in own.rows.items():
                out[:, self._columns[to]] += weights @ rows
        return out

    @torch.no_grad()
    def bias_part(self) -> Tensor:
        sae = self._sae
        inputs = dict(
            zip(sae.layer_numbers, self.x.detach().split(list(sae.widths), -1), strict=True)
        )
        parts = []
        for to, columns in self._columns.items():
            nothing = self.x.new_zeros(len(self.x), columns.stop - columns.start, dtype=sae.dtype)
            parts.append(sae.completed_at(to, nothing, inputs).float())
        return torch.cat(parts, dim=-1)

    @torch.no_grad()
    def slopes(self, gradient: Tensor) -> Tensor:
        flow, found = gradient.float(), torch.zeros_like(self.plain.values)
        for own in self._by_layer:
            parts = [flow[:, self._columns[to]] @ rows.t() for to, rows in own.rows.items()]
            found[own.tokens, own.places] = torch.stack(parts).sum(0)[own.tokens, own.which]
        return found

    @torch.no_grad()
    def written_by(self, features: Sequence[int]) -> Tensor:
        out = self.plain.values.new_zeros(len(features), self.y.shape[-1])
        for to, written in self._sae.writes(features).items():
            if to in self._columns:
                out[:, self._columns[to]] = written
        return out

    def layer_of(self, feature: int) -> str:
        """The hook point that a feature is of (see `own_layers`)."""
        return own_layers(self._sae, [feature])[0]


def layer_of(reading: Reading, feature: int) -> str:
    """The layer that a feature of an SAE over several layers is of; '' for other SAEs."""
    return reading.layer_of(feature) if isinstance(reading, AcrossReading) else ""


def reading_of(
    site: SaeSite, read: Sequence[Tensor], written: Sequence[Tensor], ordinary: Tensor
) -> Reading:
    """The reading of a site (see `Reading`)."""
    if isinstance(site.sae, CrossLayerSae):
        return AcrossReading(site, site.sae, read, written, ordinary)
    return Reading(site, read, written, ordinary)


def _ranges(widths: Sequence[int]) -> list[slice]:
    ends = torch.tensor(widths).cumsum(0).tolist()
    return [slice(end - width, end) for end, width in zip(ends, widths, strict=True)]
