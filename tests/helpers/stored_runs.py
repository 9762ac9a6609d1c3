"""Small runs on disk whose rows say where they belong: row r is [r, document, position]."""

from collections.abc import Collection, Sequence
from pathlib import Path

import pyarrow as pa
import torch
from torch import Tensor

from mi_crow.store.runs.manifest import LayerSpec, PartSpec, RunManifest
from mi_crow.store.runs.parts import DOCUMENT_SCHEMA, stored_rows, write_part
from tests.helpers.made_files import a_manifest

LAYER = "blocks.0"
WIDTH = 3


def manifest_of(folder: Path, dtype: str = "fp32", width: int = WIDTH) -> RunManifest:
    """A complete run without parts."""
    layers = [LayerSpec(LAYER, "resid_post.0", width)]
    return a_manifest(folder.name, layers, None, dtype=dtype, created=0.0)


def documents_table(
    lengths: Sequence[int],
    first: int = 0,
    heldout: Collection[int] = (),
    windows: Sequence[int] | None = None,
) -> pa.Table:
    """Documents of the given numbers of kept tokens, each second token kept; with `windows` they
    are windows of one document."""
    return pa.Table.from_pylist(
        [
            {
                "document": number if windows is None else first,
                "window": 0 if windows is None else windows[number - first],
                "text": f"text {number}",
                "label": None,
                "split": "heldout" if number in heldout else "train",
                "token_ids": list(range(2 * length + 1)),
                "kept": [2 * position + 1 for position in range(length)],
            }
            for number, length in enumerate(lengths, first)
        ],
        schema=DOCUMENT_SCHEMA,
    )


def write_run(
    folder: Path,
    parts: Sequence[Sequence[int]],
    heldout: Collection[int] = (),
    dtype: str = "fp32",
) -> RunManifest:
    """A run whose parts hold documents of the given numbers of kept tokens."""
    manifest = manifest_of(folder, dtype)
    document = row = 0
    for index, lengths in enumerate(parts):
        table = documents_table(lengths, document, heldout)
        rows = [
            [row + place, number, position]
            for place, (number, position) in enumerate(
                (number, position)
                for number, kept in zip(
                    table["document"].to_pylist(), table["kept"].to_pylist(), strict=True
                )
                for position in kept
            )
        ]
        part = PartSpec(0, index, len(lengths), len(rows), shard=index)
        x = torch.tensor(rows, dtype=torch.float32).reshape(-1, WIDTH)
        write_part(folder, part, table, {LAYER: stored_rows(x, dtype)})
        manifest.parts.append(part)
        document, row = document + len(lengths), row + len(rows)
    manifest.save(folder)
    return manifest


def rows_of(batch: Tensor) -> list[int]:
    """The run's row numbers in a batch."""
    return batch[:, 0].long().tolist()
