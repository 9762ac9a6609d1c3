"""Explanations by a chat model, beside an index: `saes/<id>/explanations.parquet`. Torch-free.

They are of the SAE: a new index keeps them, and each says which index it was made from. The same
feature may have one of each explainer; the latest is shown.
"""

from collections.abc import Iterable
from dataclasses import fields, replace
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


def all_explanations(connection: "IndexConnection", path: Path) -> list[Explanation]:
    """Every explanation of a file, of any explainer and index. A damaged file counts as none."""
    if not path.is_file():
        return []
    known = "SELECT column_name FROM (DESCRIBE SELECT * FROM read_parquet(?))"
    try:
        there = {name for (name,) in connection.rows(known, [str(path)])}
        names = [one.name for one in fields(Explanation) if one.name in there]  # or of before
        rows = connection.rows(f"SELECT {', '.join(names)} FROM read_parquet(?)", [str(path)])
    except MiCrowError:
        return []
    return [Explanation(**dict(zip(names, row, strict=True))) for row in rows]


def read_explanations(
    connection: "IndexConnection", path: Path, weights: str
) -> dict[int, Explanation]:
    """The latest explanation of each feature of an SAE with these weights, whatever index it was
    made from; empty weights are not known, and fit all."""
    found: dict[int, Explanation] = {}
    for one in all_explanations(connection, path):
        before = found.get(one.feature)
        if weights and one.weights not in ("", weights):
            continue
        if before is None or _age(before) <= _age(one):
            found[one.feature] = one
    return found


def _age(one: Explanation) -> tuple[float, float]:
    return one.index_built_at, one.made


def identity_of(one: Explanation) -> tuple[int, str, str, int, float]:
    """What distinguishes it from the others of a file."""
    return one.feature, one.explainer, one.endpoint, one.seed, one.index_built_at


def write_explanations(path: Path, found: Iterable[Explanation], built_at: float) -> None:
    """Writes explanations, those that do not say otherwise as of the index that was built at
    `built_at`; the file appears whole."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {
        "feature": pa.int32(),
        "text": pa.string(),
        "explainer": pa.string(),
        "seed": pa.int64(),
        "scored": pa.bool_(),
        "embedded_by": pa.string(),
        "endpoint": pa.string(),
        "made": pa.float64(),
        "index_built_at": pa.float64(),
        "weights": pa.string(),
    }
    schema = pa.schema(
        [(one.name, kinds.get(one.name, pa.float32())) for one in fields(Explanation)]
    )
    dated = [one if one.index_built_at else replace(one, index_built_at=built_at) for one in found]
    rows = [one.as_json() for one in sorted(dated, key=identity_of)]
    with whole_file(path) as temporary:
        pq.write_table(pa.Table.from_pylist(rows, schema), temporary)
