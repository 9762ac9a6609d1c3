"""Exact AUROC of every column of a dense matrix for every label, for example of pooled residual
dimensions or probe scores.

The index does not use it: its codes are sparse, a document has a few of the 100,000 features, and
`index/tables/labels.py` ranks only those. Both give the same results.
"""

import torch
from torch import Tensor

_CELLS = 1 << 22  # documents x columns sorted at once


@torch.inference_mode()
def label_auroc(
    pooled: Tensor, labels: Tensor, n_labels: int, mask: Tensor | None = None
) -> Tensor:
    """How well each column separates each label from the rest: float64 [n_labels, F], on the device
    of `pooled`.

    `pooled` [documents, F] is finite and of any sign; `labels` int64 [documents] as in
    `LabelledDocuments`: documents below 0 have no label and are ignored, those of `n_labels` and
    above are only negatives. `mask` bool [documents] selects documents, such as a split.

    Mann-Whitney: (R - P (P + 1) / 2) / (P (N - P)) with R the sum of the label's ranks, ties at
    mid-rank; nan where a label has no positives or no negatives.
    """
    labels = labels.to(pooled.device)
    counted = labels >= 0
    if mask is not None:
        counted = counted & mask.to(pooled.device)
    chosen, label = pooled[counted], labels[counted]
    total, width = chosen.shape
    inside = label == torch.arange(n_labels, device=label.device)[:, None]
    inside = inside.to(torch.float64)  # half ranks stay exact in sums up to 2^52
    sizes = inside.sum(1, keepdim=True)
    scores = inside.new_full((n_labels, width), torch.nan)
    pairs = sizes * (total - sizes)
    step = max(1, _CELLS // max(total, 1))
    for first in range(0, width, step):
        part = slice(first, first + step)
        sums = inside @ _mid_ranks(chosen[:, part].T.contiguous()).T
        scores[:, part] = (sums - sizes * (sizes + 1) / 2) / pairs
    return torch.where(pairs > 0, scores, torch.nan)


def _mid_ranks(rows: Tensor) -> Tensor:
    """The rank of each entry in its row, from 1, ties at their mean rank: float64 [F, n]."""
    ordered, order = rows.sort(dim=1)
    n = rows.shape[1]
    place = torch.arange(n, device=rows.device).expand_as(order)
    new = torch.ones_like(order, dtype=torch.bool)
    new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    first = torch.where(new, place, 0).cummax(dim=1).values
    ends = torch.ones_like(new)
    ends[:, :-1] = new[:, 1:]
    last = torch.where(ends, place, n).flip(1).cummin(dim=1).values.flip(1)
    ranks = torch.empty_like(rows, dtype=torch.float64)
    return ranks.scatter_(1, order, (first + last).double() / 2 + 1)
