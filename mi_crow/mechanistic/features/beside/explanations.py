"""Explanations by a chat model, beside an index: `saes/<id>/explanations.parquet`. Torch-free.

Like proposed names, they belong to one build of the index; those of another build are as good as
none.
"""

from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from mi_crow.errors import MiCrowError
from mi_crow.mechanistic.features.records import Explanation
from mi_crow.store.atomic import whole_file
from mi_crow.store.workspace import Workspace

if TYPE_CHECKING:
    from mi_crow.mechanistic.features.connection import IndexConnection

EXPLANATIONS_NAME = "explanations.parquet"
UNTRAINED_NAME = "explanations-untrained.parquet"  # of an SAE with random weights, for comparison


def explanations_path(workspace: Workspace, sae_id: str) -> Path:
    """Where the explanations of an SAE are."""
    return workspace.index_path(sae_id).with_name(EXPLANATIONS_NAME)


def read_explanations(
    connection: "IndexConnection", path: Path, built_at: float
) -> dict[int, Explanation]:
    """The explanations that belong to this index. A damaged file counts as none."""
    if not path.is_file():
        return {}
    known = "SELECT column_name FROM (DESCRIBE SELECT * FROM read_parquet(?))"
    try:
        there = {name for (name,) in connection.rows(known, [str(path)])}
    except MiCrowError:
        return {}
    names = [one.name for one in fields(Explanation) if one.name in there]  # of an earlier version
    query = f"SELECT {', '.join(names)} FROM read_parquet(?) WHERE index_built_at = ?"
    try:
        rows = connection.rows(query, [str(path), built_at])
    except MiCrowError:
        return {}
    found = [Explanation(**dict(zip(names, row, strict=True))) for row in rows]
    return {one.feature: one for one in found}


def write_explanations(path: Path, found: Iterable[Explanation], built_at: float) -> None:
    """Writes explanations of the index that was built at `built_at`; the file appears whole."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {
        "feature": pa.int32(),
        "text": pa.string(),
        "explainer": pa.string(),
        "seed": pa.int64(),
        "scored": pa.bool_(),
        "embedded_by": pa.string(),
    }
    schema = pa.schema(
        [(one.name, kinds.get(one.name, pa.float32())) for one in fields(Explanation)]
        + [("index_built_at", pa.float64())]
    )
    ordered = sorted(found, key=lambda one: one.feature)
    rows = [one.as_json() | {"index_built_at": built_at} for one in ordered]
    with whole_file(path) as temporary:
        pq.write_table(pa.Table.from_pylist(rows, schema), temporary)
