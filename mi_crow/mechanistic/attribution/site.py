"""An SAE in a forward pass: what it reads, and the tensors that its features write."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mi_crow.errors import UserError
from mi_crow.mechanistic.sae.cross_layer.record import in_short
from mi_crow.mechanistic.sae.cross_layer.sae import CrossLayerSae
from mi_crow.mechanistic.sae.cross_layer.shared import SharedCrosscoder
from mi_crow.mechanistic.sae.cross_layer.two_models import TwoModelCrosscoder
from mi_crow.mechanistic.sae.kernels.bags import bag_products, decode_rows, even_starts, sparse_path
from mi_crow.mechanistic.sae.outputs import SparseLatents
from mi_crow.mechanistic.sae.substitute import replaceable
from mi_crow.mechanistic.sae.targets import target_layer

if TYPE_CHECKING:
    from mi_crow.language_model import HookPoint, LanguageModel
    from mi_crow.mechanistic.sae.base import SparseAutoencoder
    from mi_crow.mechanistic.sae.cross_layer.other_model import OtherModel
    from mi_crow.mechanistic.steering.loading import LoadedSae


@dataclass(frozen=True)
class SaeSite:
    """Where one SAE is in its model; `read` and `write` differ for a transcoder. Of an SAE over
    several layers they are those of the first."""

    sae_id: str
    lm: "LanguageModel"
    sae: "SparseAutoencoder"
    read: "HookPoint"
    write: "HookPoint"
    further: "tuple[tuple[HookPoint, HookPoint], ...]" = ()  # read and write of its other layers
    other: "OtherModel | None" = None  # of a crosscoder of two models the one that does not answer

    @classmethod
    def of(cls, loaded: "LoadedSae") -> "SaeSite":
        """Raises UserError for a transcoder that does not say which layer it predicts."""
        sae, resolve = loaded.sae, loaded.lm.layers.resolve
        if isinstance(sae, TwoModelCrosscoder):  # it writes where it reads
            (read, write), *further = zip(loaded.points, loaded.points, strict=True)
            return cls(loaded.sae_id, loaded.lm, sae, read, write, tuple(further), loaded.other)
        if isinstance(sae, CrossLayerSae):
            written = [resolve(name) for name in sae.target_layers]
            (read, write), *further = zip(loaded.points, written, strict=True)
            return cls(loaded.sae_id, loaded.lm, sae, read, write, tuple(further))
        read = loaded.layer
        if not sae.transcodes:
            return cls(loaded.sae_id, loaded.lm, sae, read, read)
        layer = target_layer(sae)
        if layer is None:
            raise UserError(
                f"SAE {loaded.sae_id!r} does not say which layer it predicts",
                hint="import it with --target-layer",
            )
        return cls(loaded.sae_id, loaded.lm, sae, read, resolve(layer))

    @property
    def layers(self) -> "tuple[tuple[HookPoint, HookPoint], ...]":
        """Where it reads and where it writes, layer by layer."""
        return ((self.read, self.write), *self.further)

    @property
    def reads(self) -> "tuple[HookPoint, ...]":
        """All layers that it reads, in its order."""
        return tuple(read for read, _ in self.layers)

    @property
    def writes(self) -> "tuple[HookPoint, ...]":
        """All layers that its features write to, in its order."""
        return tuple(write for _, write in self.layers)

    @property
    def several(self) -> bool:
        """Whether its features are those of an SAE over several layers."""
        return isinstance(self.sae, CrossLayerSae)

    @property
    def is_causal(self) -> bool:
        """Whether its latents are of one layer each, so that some come before others."""
        return self.several and bool(self.further) and not isinstance(self.sae, SharedCrosscoder)

    def explains_itself(self, feature: int | None) -> bool:
        """Whether its own latents of earlier layers can be causes of `feature`."""
        sae = self.sae
        if feature is None or not self.is_causal or not isinstance(sae, CrossLayerSae):
            return False
        return sae.layer_of(feature)[0] != sae.layer_numbers[0]

    @property
    def place(self) -> str:
        """The hook point that its features write to; of several layers in short."""
        return in_short([point.point for point in self.writes])


class Reading:
    """One site in one pass over a text of n tokens. Where an SAE may not stand in for the
    activation (special tokens, outliers) nothing fires."""

    def __init__(
        self, site: SaeSite, read: Sequence[Tensor], written: Sequence[Tensor], ordinary: Tensor
    ) -> None:
        """`read` [n, d] is what the SAE reads at each of its layers, `written` [n, d] what its
        features are part of, all possibly with a gradient; ordinary [n] bool: neither padding nor
        special."""
        self.site: SaeSite = site
        self.x: Tensor = torch.cat([*read], dim=-1)
        self.nodes: tuple[Tensor, ...] = tuple(written)
        sae = site.sae
        self.read: Tensor = torch.stack(  # [n]
            [replaceable(one.detach(), ordinary, sae.metadata.outlier_norm) for one in read]
        ).all(dim=0)
        found = sae.encode_sparse(self.x.to(sae.dtype))
        values = found.values.float() * self.read[:, None]
        self.latents: SparseLatents = found._replace(values=values)  # [n, k], with a gradient
        units = sae.latent_units(self.x.detach().float())
        self.units: Tensor | float = units.detach() if isinstance(units, Tensor) else units

    @cached_property
    def y(self) -> Tensor:
        """What the features are part of, [n, n_outputs]; of several layers side by side."""
        first, *more = self.nodes
        return torch.cat([first, *more], dim=-1) if more else first

    @property
    def held(self) -> "dict[HookPoint, Tensor]":
        """What the layers have where a pass must not compute them anew: of an SAE over several
        layers all (see `across`), else none."""
        return {}

    def at_points(self, change: Tensor) -> "dict[HookPoint, Tensor]":
        """A change of y [..., n, n_outputs], by the layer that it is of."""
        parts = change.split([one.shape[-1] for one in self.nodes], dim=-1)
        return dict(zip(self.site.writes, parts, strict=True))

    @property
    def plain(self) -> SparseLatents:
        """The latents without a gradient."""
        return self.latents._replace(values=self.latents.values.detach())

    def firing(self) -> Tensor:
        """The features that fire on the text, [m] in ascending order."""
        latents = self.plain
        return latents.indices[latents.values != 0].unique()

    @torch.no_grad()
    def features_part(self, kept: Tensor | None = None) -> Tensor:
        """What the latents (where `kept` [n, k] is true) add to y: [n, n_outputs] fp32."""
        values, rows = self.plain.values, self.site.sae.decoder_rows
        if kept is not None:
            values = values * kept
        return decode_rows(values.to(rows.dtype), self.latents.indices, rows).float() * self.units

    @torch.no_grad()
    def bias_part(self) -> Tensor:
        """What the reconstruction has without latents: bias, mean, skip: [n, n_outputs] fp32."""
        nothing = self.plain._replace(values=torch.zeros_like(self.plain.values))
        sae = self.site.sae
        zeros = nothing._replace(values=nothing.values.to(sae.dtype))
        return sae.decode_sparse(zeros, self.x.detach().to(sae.dtype)).float()

    @torch.no_grad()
    def effects(self, gradient: Tensor) -> Tensor:
        """z_i(t) <gradient(t), W_dec[i]> for each place of the latents: [n, k] fp32."""
        return self.plain.values * self.slopes(gradient)

    @torch.no_grad()
    def slopes(self, gradient: Tensor) -> Tensor:
        """d target / d z_i(t) for each place, given d target / d y [n, n_outputs]: [n, k] fp32."""
        rows, indices = self.site.sae.decoder_rows, self.latents.indices
        flow = (gradient.float() * self.units).to(rows.dtype)
        if not sparse_path(rows.device):
            return (flow @ rows.t()).gather(1, indices).float()
        owners = torch.arange(len(indices), device=rows.device).repeat_interleave(indices.shape[1])
        columns = indices.reshape(-1)
        products = bag_products(flow, columns, even_starts(indices), owners, rows.detach())
        return products.view(indices.shape).float()

    @torch.no_grad()
    def written_by(self, features: Sequence[int]) -> Tensor:
        """What one unit of each of these features adds to y: [m, n_outputs] fp32."""
        numbers = torch.tensor(list(features), device=self.latents.indices.device)
        return self.site.sae.decoder_rows[numbers].float()

    def by_feature(self, values: Tensor) -> Tensor:
        """values [n, k] summed by latent: [n_latents] fp32."""
        found = values.new_zeros(self.site.sae.n_latents)
        return found.index_add_(0, self.latents.indices.reshape(-1), values.reshape(-1))

    def activation_of(self, feature: int) -> Tensor:
        """The latent's activations [n], with a gradient where x has one."""
        return (self.latents.values * (self.latents.indices == feature)).sum(-1)
