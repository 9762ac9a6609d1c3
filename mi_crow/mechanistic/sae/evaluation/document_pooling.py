"""Documents as single rows: the maximum of every latent and residual dimension."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mi_crow.mechanistic.sae.base import SparseAutoencoder
from mi_crow.mechanistic.sae.evaluation.probes import PooledDocuments
from mi_crow.mechanistic.sae.source import HELDOUT, not_finite
from mi_crow.share import WHOLE, Share

if TYPE_CHECKING:
    from mi_crow.store.runs.joined import JoinedReader
    from mi_crow.store.runs.parts import Part
    from mi_crow.store.runs.reader import RunReader

# As many documents are sampled as keep documents x latents below this many values.
_MOST_VALUES = 1 << 27
_MOST_DOCUMENTS = 4000
_TOKENS_AT_ONCE = 4096
_KINDS = "latents", "residual"


@dataclass(frozen=True)
class PooledRun:
    """The labelled documents of a run, pooled in two ways."""

    latents: PooledDocuments  # maximum of each latent over the document's tokens
    residual: PooledDocuments  # maximum and mean of each dimension, side by side
    labels: list[str]


@torch.inference_mode()
def pooled_documents(
    sae: SparseAutoencoder,
    reader: "RunReader | JoinedReader",
    seed: int = 0,
    share: Share = WHOLE,
) -> PooledRun | None:
    """Pools a random sample of the run's labelled documents, without outlier tokens; None if no
    document has a label. A window of a long document counts as a document. Several processes share
    the parts; what they find is put together in the first one, the others get None."""
    chosen = _chosen_documents(sae, reader, seed)
    names: list[str] = []
    heldout: list[bool] = []
    own: dict[str, np.ndarray] = {}
    pooled_parts: list[int] = []
    first = 0
    for number, part in enumerate(reader.parts()):
        table = part.columns("label", "split").to_pydict()
        wanted = [
            row
            for row, label in enumerate(table["label"])
            if label is not None and first + row in chosen
        ]
        first += len(table["label"])
        if not wanted:
            continue
        pooled_parts.append(number)
        if share.mine(number):
            pooled = _pool_part(sae, part, wanted)
            own |= {
                f"{kind}.{number}": one.numpy() for kind, one in zip(_KINDS, pooled, strict=True)
            }
        names.extend(table["label"][i] for i in wanted)
        heldout.extend(table["split"][i] == HELDOUT for i in wanted)
    found = share.gather(own, to_first=True)
    if not names or not found:
        return None
    parts = {name: array for one in found for name, array in one.items()}
    latents, residual = (
        torch.cat([torch.from_numpy(parts[f"{kind}.{number}"]) for number in pooled_parts])
        for kind in _KINDS
    )
    labels = sorted(set(names))
    number = {label: i for i, label in enumerate(labels)}
    ids, split = torch.tensor([number[name] for name in names]), torch.tensor(heldout)
    return PooledRun(
        PooledDocuments(latents, ids, split),
        PooledDocuments(residual, ids, split),
        labels,
    )


def _chosen_documents(
    sae: SparseAutoencoder, reader: "RunReader | JoinedReader", seed: int
) -> set[int]:
    """The documents in the sample, by their position in the run."""
    total = sum(part.columns("split").num_rows for part in reader.parts())
    limit = min(_MOST_DOCUMENTS, max(1, _MOST_VALUES // sae.n_latents))
    order = torch.randperm(total, generator=torch.Generator().manual_seed(seed))
    return set(order[:limit].tolist())


def _pool_part(sae: SparseAutoencoder, part: "Part", documents: list[int]) -> tuple[Tensor, Tensor]:
    """[documents, M] and [documents, 2 d] for some rows of a part's table (ascending)."""
    wanted = torch.tensor(documents)
    row = torch.searchsorted(wanted, part.table_row).clamp_max(len(documents) - 1)
    keep = wanted[row] == part.table_row
    if sae.metadata.outlier_norm is not None:
        keep &= part.norms <= sae.metadata.outlier_norm
    latents = torch.zeros(len(documents) * sae.n_latents, device=sae.device)
    highest = torch.full((len(documents), sae.n_inputs), -torch.inf, device=sae.device)
    total = torch.zeros_like(highest)
    counts = torch.zeros(len(documents), 1, device=sae.device)
    for rows in keep.nonzero()[:, 0].split(_TOKENS_AT_ONCE):
        x = part.take(rows).to(sae.device).float()
        owner = row[rows].to(sae.device)
        codes = sae.encode_sparse(x)
        cells = (owner[:, None] * sae.n_latents + codes.indices).reshape(-1)
        latents.scatter_reduce_(0, cells, codes.values.reshape(-1).float(), "amax")
        highest.scatter_reduce_(0, owner[:, None].expand_as(x), x, "amax")
        total.index_add_(0, owner, x)
        counts.index_add_(0, owner, counts.new_ones(len(rows), 1))
    if not bool(total.isfinite().all()):
        raise not_finite()
    highest = torch.where(counts > 0, highest, 0.0)
    residual = torch.cat([highest, total / counts.clamp_min(1)], dim=1)
    return latents.view(len(documents), sae.n_latents).cpu(), residual.cpu()
