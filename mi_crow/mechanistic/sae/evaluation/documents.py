"""Documents of a run, as the model reads them: which there are, and their tokens."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from mi_crow.errors import UserError
from mi_crow.mechanistic.sae.evaluation.model_loss import TokenDocument
from mi_crow.store.runs.parts import held_out

if TYPE_CHECKING:
    from mi_crow.store.runs.joined import JoinedReader
    from mi_crow.store.runs.reader import RunReader


class Place(NamedTuple):
    """Where a document is in a run."""

    part: int
    row: int
    kept: int  # its tokens that have a stored row


def document_places(reader: "RunReader | JoinedReader", *, heldout: bool) -> list[Place]:
    """The documents of a split in the order of the run, without those in which nothing is
    predicted."""
    found: list[Place] = []
    for number, part in enumerate(reader.parts()):
        table = part.columns("split", "token_ids", "kept")
        lengths, kept = (
            np.diff(table[name].combine_chunks().offsets.to_numpy())
            for name in ("token_ids", "kept")
        )
        # Without a second token there is nothing to predict.
        usable = np.flatnonzero((held_out(table) == heldout) & (lengths > 1))
        found.extend(Place(number, row, int(kept[row])) for row in usable.tolist())
    return found


def read_documents(
    reader: "RunReader | JoinedReader", places: Iterable[Place]
) -> dict[Place, TokenDocument]:
    """The documents at these places."""
    wanted: dict[int, list[Place]] = {}
    for place in places:
        wanted.setdefault(place.part, []).append(place)
    documents: dict[Place, TokenDocument] = {}
    for number, part in enumerate(reader.parts()):
        chosen = wanted.get(number, [])
        if not chosen:
            continue
        rows = part.columns("token_ids", "kept").take([place.row for place in chosen])
        for place, row in zip(chosen, rows.to_pylist(), strict=True):
            documents[place] = TokenDocument(row["token_ids"], row["kept"])
    return documents


def heldout_documents(
    reader: "RunReader | JoinedReader", limit: int, seed: int
) -> Sequence[TokenDocument]:
    """At most `limit` held-out documents of the run, a random sample by `seed`. Raises UserError
    for a run that has none."""
    found = document_places(reader, heldout=True)
    if not found:
        raise UserError(
            f"run {reader.manifest.run_id!r} contains no held-out documents",
            hint="a tenth of the documents is held out: capture more of them",
        )
    order = torch.randperm(len(found), generator=torch.Generator().manual_seed(seed))
    chosen = [found[i] for i in order[:limit].tolist()]
    documents = read_documents(reader, chosen)
    return [documents[place] for place in chosen]
