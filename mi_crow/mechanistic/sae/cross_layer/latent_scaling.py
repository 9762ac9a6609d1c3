"""Which of two models a crosscoder's latents belong to: decoder norms and latent scaling.

Minder, Dumas et al. 2025, "Robustly identifying concepts introduced during chat fine-tuning using
crosscoders" (arXiv 2504.02922), the sections on model diffing by decoder norms and on latent
scaling. With d_j^m the decoder row of latent j in model m and f_j its activation:

    relative norm_j = ((|d_j^tuned| - |d_j^base|) / max(|d_j^tuned|, |d_j^base|) + 1) / 2

is 0 for a latent of the base model only, 1 for one of the tuned model only, 1/2 for one of both.
A sparsity penalty can shrink a row that the other model needs, or leave its concept to other
latents there, so that a norm alone misleads. Latent scaling asks how much of the row d_j of the
model in which it is longer (own) there is in each model's activations:

    beta_j^m = argmin_beta sum_i |beta f_j(x_i) d_j - y_i^m|^2
             = sum_i f_j(x_i) <d_j, y_i^m> / (sum_i f_j(x_i)^2 |d_j|^2)
    nu_j = beta_j^other / beta_j^own

nu^reconstruction takes y = the reconstruction of model m: near 1 where other latents say the same
there (latent decoupling). nu^error takes y = x^m minus the reconstruction without latent j: near 1
where the other model has what the latent says and its row does not (complete shrinkage). A latent
is of one model where its relative norm and both nu say so.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mi_crow.mechanistic.sae.cross_layer.origins import FILE, ORIGINS, SHARED, UNCLEAR
from mi_crow.mechanistic.sae.cross_layer.record import BASE, ROLES, TUNED
from mi_crow.mechanistic.sae.cross_layer.two_models import TwoModelCrosscoder
from mi_crow.mechanistic.sae.kernels.entries import latent_sums
from mi_crow.mechanistic.sae.outputs import SparseLatents
from mi_crow.mechanistic.sae.source import SideBySide, fixed_batches
from mi_crow.progress import Progress, raise_if_stopped
from mi_crow.store.atomic import whole_file

TOKENS = 100_000
_BATCH = 2048
ONE_MODEL = 0.1  # relative norms up to this, and from 1 minus this, say one model
BOTH = 0.1  # relative norms this near to 1/2 say both
LEAST_RECONSTRUCTION, LEAST_ERROR = 0.5, 0.2  # nu from here on finds a latent in the other model


@dataclass(frozen=True)
class LatentScaling:
    """What was measured of each latent, by column; NaN for latents that never fired."""

    fires: np.ndarray  # int64: tokens of the sample
    origin: np.ndarray  # places in ORIGINS, -1 for dead ones: int8
    relative_norm: np.ndarray  # float64, as all that follow
    norm_base: np.ndarray
    norm_tuned: np.ndarray
    decoder_cosine: np.ndarray  # of its rows in both models
    beta_reconstruction_base: np.ndarray
    beta_reconstruction_tuned: np.ndarray
    beta_error_base: np.ndarray
    beta_error_tuned: np.ndarray
    nu_reconstruction: np.ndarray
    nu_error: np.ndarray

    def counts(self) -> dict[str, int]:
        """How many latents are of each origin, and dead."""
        found = {name: int((self.origin == place).sum()) for place, name in enumerate(ORIGINS)}
        return {**found, "dead": int((self.origin < 0).sum())}

    def write(self, folder: Path) -> None:
        """Writes the table into the folder of the SAE; the file appears whole."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        columns = {name: pa.array(getattr(self, name)) for name in self.__dataclass_fields__}
        names = [ORIGINS[place] if place >= 0 else None for place in self.origin.tolist()]
        columns["origin"] = pa.array(names, type=pa.string())
        feature = pa.array(np.arange(len(self.fires), dtype=np.int32))
        with whole_file(folder / FILE) as temporary:
            pq.write_table(pa.table({"feature": feature, **columns}), temporary)


@torch.inference_mode()
def latent_scaling(
    sae: TwoModelCrosscoder, tokens: SideBySide, progress: Progress, n_tokens: int = TOKENS
) -> LatentScaling:
    """Measures every latent on up to `n_tokens` training tokens, each input in units of its own
    median norm, so that models of different scale compare. Outlier tokens are left out."""
    rows = _decoder_rows(sae, tokens)
    norms = {role: rows[role].norm(dim=1) for role in ROLES}
    is_tuned = norms[TUNED] >= norms[BASE]
    own = torch.where(is_tuned[:, None], rows[TUNED], rows[BASE])
    squares = torch.zeros(sae.n_latents, dtype=torch.float64, device=sae.device)
    fires = torch.zeros(sae.n_latents, dtype=torch.int64, device=sae.device)
    sums = {
        (what, role): torch.zeros_like(squares) for what in ("rebuilt", "error") for role in ROLES
    }
    for x, scaled, scales in _batches(sae, tokens, n_tokens):
        raise_if_stopped(progress, resumable=True)
        values, entries = sae.encode_entries(x)
        values = values.reshape(-1).float()
        fires += torch.bincount(entries.columns[values > 0], minlength=sae.n_latents)
        squares.index_add_(0, entries.columns, values.double().square())
        rebuilt = sae.decode_sparse(SparseLatents(*entries.padded(values))).float() * scales
        for role, columns in _columns(sae).items():
            part = rebuilt[:, columns]
            for what, y in (("rebuilt", part), ("error", scaled[:, columns] - part)):
                found = latent_sums(values, entries, y.contiguous())
                sums[what, role] += (found.float() * own).sum(1).double()
    denominator = squares * own.double().square().sum(1)
    # Without the latent itself: what it wrote there is added to the error again.
    for role in ROLES:
        sums["error", role] += squares * (own.double() * rows[role].double()).sum(1)
    betas = {key: _ratio(one, denominator) for key, one in sums.items()}
    longest = torch.maximum(norms[BASE], norms[TUNED]).double()
    relative = (_ratio((norms[TUNED] - norms[BASE]).double(), longest) + 1) / 2
    relative = torch.where(fires > 0, relative, torch.nan)
    nus = {}
    for what in ("rebuilt", "error"):
        base, tuned = betas[what, BASE], betas[what, TUNED]
        nus[what] = _ratio(torch.where(is_tuned, base, tuned), torch.where(is_tuned, tuned, base))
    cosine = (rows[BASE] * rows[TUNED]).sum(1) / (norms[BASE] * norms[TUNED]).clamp_min(1e-12)
    columns = [
        relative,
        norms[BASE],
        norms[TUNED],
        cosine,
        *(betas[what, role] for what in ("rebuilt", "error") for role in ROLES),
        nus["rebuilt"],
        nus["error"],
    ]
    numbers = [column.double().cpu().numpy() for column in columns]
    origin = origins(numbers[0], numbers[-2], numbers[-1])
    return LatentScaling(fires.cpu().numpy(), origin, *numbers)


def origins(
    relative_norm: np.ndarray, nu_reconstruction: np.ndarray, nu_error: np.ndarray
) -> np.ndarray:
    """Places in ORIGINS, -1 where a latent has no figures. A latent whose norm says one model and
    whose nu find it in the other too is shared; a norm between is unclear."""
    base, tuned = relative_norm <= ONE_MODEL, relative_norm >= 1 - ONE_MODEL
    alone = (nu_reconstruction < LEAST_RECONSTRUCTION) & (nu_error < LEAST_ERROR)
    elsewhere = (nu_reconstruction >= LEAST_RECONSTRUCTION) | (nu_error >= LEAST_ERROR)
    shared = (np.abs(relative_norm - 0.5) <= BOTH) | ((base | tuned) & elsewhere)
    found = np.full(len(relative_norm), ORIGINS.index(UNCLEAR), dtype=np.int8)
    found[shared] = ORIGINS.index(SHARED)
    found[base & alone] = ORIGINS.index(BASE)
    found[tuned & alone] = ORIGINS.index(TUNED)
    found[np.isnan(relative_norm)] = -1
    return found


def _columns(sae: TwoModelCrosscoder) -> dict[str, slice]:
    """Which columns of the inputs side by side are of each model."""
    split = sum(sae.widths[number] for number in sae.points_of(BASE))
    return {BASE: slice(0, split), TUNED: slice(split, sae.n_inputs)}


def _decoder_rows(sae: TwoModelCrosscoder, tokens: SideBySide) -> dict[str, Tensor]:
    """The rows of each model, over its layers, in units of the inputs: [n_latents, d] by role."""
    return {
        role: torch.cat(
            [
                sae.decoder_at(number).float() * tokens.scales[number]
                for number in sae.points_of(role)
            ],
            dim=1,
        )
        for role in ROLES
    }


def _batches(
    sae: TwoModelCrosscoder, tokens: SideBySide, n_tokens: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Inputs as they were captured, the same in units of each input, and these units."""
    pairs = zip(tokens.widths, tokens.scales, strict=True)
    units = torch.cat([torch.full((1, width), scale) for width, scale in pairs], dim=1)
    limit, scales = sae.metadata.outlier_norm, units.to(sae.device)
    for rows in fixed_batches(tokens, n_tokens, None, _BATCH):
        scaled = rows.to(sae.device)
        x = scaled / scales
        if limit is not None:
            norms = [part.norm(dim=1) for part in x.split(list(sae.widths), dim=1)]
            keep = torch.stack(norms).amax(0) <= limit
            x, scaled = x[keep], scaled[keep]
        if len(x):
            yield x, scaled, scales


def _ratio(above: Tensor, below: Tensor) -> Tensor:
    """NaN where it has no meaning: a latent that never fired, or is in neither model."""
    return torch.where(below.abs() > 1e-9, above / below, torch.nan)
