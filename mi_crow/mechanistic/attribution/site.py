"""An SAE in a forward pass: what it reads, and the tensor that its features write."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mi_crow.errors import UserError
from mi_crow.mechanistic.sae.kernels.bags import bag_products, decode_rows, even_starts, sparse_path
from mi_crow.mechanistic.sae.outputs import SparseLatents
from mi_crow.mechanistic.sae.substitute import replaceable
from mi_crow.mechanistic.sae.targets import target_layer

if TYPE_CHECKING:
    from mi_crow.language_model import HookPoint, LanguageModel
    from mi_crow.mechanistic.sae.base import SparseAutoencoder
    from mi_crow.mechanistic.steering.loading import LoadedSae


@dataclass(frozen=True)
class SaeSite:
    """Where one SAE is in its model; `read` and `write` differ for a transcoder."""

    sae_id: str
    lm: "LanguageModel"
    sae: "SparseAutoencoder"
    read: "HookPoint"
    write: "HookPoint"

    @classmethod
    def of(cls, loaded: "LoadedSae") -> "SaeSite":
        """Raises UserError for a transcoder that does not say which layer it predicts."""
        loaded.must_read_one_layer("attribution")
        read = loaded.layer
        if not loaded.sae.transcodes:
            return cls(loaded.sae_id, loaded.lm, loaded.sae, read, read)
        layer = target_layer(loaded.sae)
        if layer is None:
            raise UserError(
                f"SAE {loaded.sae_id!r} does not say which layer it predicts",
                hint="import it with --target-layer",
            )
        return cls(loaded.sae_id, loaded.lm, loaded.sae, read, loaded.lm.layers.resolve(layer))


class Reading:
    """One site in one pass over a text of n tokens. Where an SAE may not stand in for the
    activation (special tokens, outliers) nothing fires."""

    def __init__(self, site: SaeSite, x: Tensor, y: Tensor, ordinary: Tensor) -> None:
        """x [n, n_inputs] what the SAE reads, y [n, n_outputs] what its features are part of, both
        possibly with a gradient; ordinary [n] bool: neither padding nor special."""
        self.site: SaeSite = site
        self.x: Tensor = x
        self.y: Tensor = y
        sae = site.sae
        self.read: Tensor = replaceable(x.detach(), ordinary, sae.metadata.outlier_norm)  # [n]
        found = sae.encode_sparse(x.to(sae.dtype))
        values = found.values.float() * self.read[:, None]
        self.latents: SparseLatents = found._replace(values=values)  # [n, k], with a gradient
        units = sae.latent_units(x.detach().float())
        self.units: Tensor | float = units.detach() if isinstance(units, Tensor) else units

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

    def by_feature(self, values: Tensor) -> Tensor:
        """values [n, k] summed by latent: [n_latents] fp32."""
        found = values.new_zeros(self.site.sae.n_latents)
        return found.index_add_(0, self.latents.indices.reshape(-1), values.reshape(-1))

    def activation_of(self, feature: int) -> Tensor:
        """The latent's activations [n], with a gradient where x has one."""
        return (self.latents.values * (self.latents.indices == feature)).sum(-1)
