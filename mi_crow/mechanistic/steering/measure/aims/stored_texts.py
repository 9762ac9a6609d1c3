"""The activations of indexed texts as the SAE's run holds them: no pass of the model is needed."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from mi_crow.errors import MiCrowError
from mi_crow.mechanistic.steering.measure.texts import Document
from mi_crow.mechanistic.vectors.activations import TextActivations
from mi_crow.store.runs.reader import RunReader
from mi_crow.store.workspace import Workspace, read_sae_summary

if TYPE_CHECKING:
    from torch import Tensor

    from mi_crow.language_model import HookPoint


def stored_activations(
    workspace: Workspace, sae_id: str, point: "HookPoint", documents: Sequence[Document]
) -> TextActivations | None:
    """What `point` was on these documents; None where the SAE's run is gone, has another layer, or
    has other texts under their numbers."""
    run_id = read_sae_summary(workspace.sae_dir(sae_id)).run_id
    if run_id is None or not documents:
        return None
    wanted = {one.number: one.text for one in documents}
    rows: dict[int, Tensor] = {}
    first = 0
    try:
        for part in RunReader(workspace.run_dir(run_id), point.stored).parts():
            ends = np.cumsum(part.kept_counts)
            for number in range(first, first + len(ends)):
                if number in wanted:
                    end, length = int(ends[number - first]), int(part.kept_counts[number - first])
                    rows[number] = part.take(slice(end - length, end)).float()
            texts = part.columns("text")["text"]
            here = [number for number in rows if number >= first]
            if any(texts[number - first].as_py() != wanted[number] for number in here):
                return None
            first += len(ends)
    except MiCrowError:
        return None
    kept = [place for place, one in enumerate(documents) if len(rows.get(one.number, ()))]
    if len(rows) < len(wanted) or not kept:
        return None
    found = [rows[documents[place].number] for place in kept]
    ends = torch.tensor([len(one) for one in found]).cumsum(0)
    return TextActivations(torch.cat(found), ends, kept)
