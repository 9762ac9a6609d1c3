"""Explanations by a chat model, beside an index: `saes/<id>/explanations.parquet`. Torch-free.

They are of the SAE: a new index keeps them, and each says which index it was made from. The same
feature may have one of each explainer; the latest is shown.
"""

import fcntl
from collections.abc import Collection, Iterable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mi_crow.errors import CorruptDataError, MiCrowError
from mi_crow.mechanistic.features.records import Explanation
from mi_crow.store.atomic import whole_file
from mi_crow.store.workspace import Workspace

if TYPE_CHECKING:
    from mi_crow.mechanistic.features.connection import IndexConnection

EXPLANATIONS_NAME = "explanations.parquet"
_LOCK_NAME = ".explanations.lock"
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


def kept_explanations(path: Path) -> list[Explanation]:
    """The same for those who write it again. Raises CorruptDataError for a damaged file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    known = {one.name for one in fields(Explanation)}
    try:
        # One open file: another process may replace it, and DuckDB opens a path more than once.
        with path.open("rb") as file:
            rows = pq.read_table(file).to_pylist()
        return [
            Explanation(**{key: value for key, value in row.items() if key in known})
            for row in rows
        ]
    except FileNotFoundError:
        return []
    except (pa.ArrowException, OSError, TypeError) as error:
        raise CorruptDataError(
            f"{str(path)!r} cannot be read ({str(error).splitlines()[0][:120]})",
            hint="move it away; what it holds is asked for again",
        ) from error


def add_explanations(path: Path, found: Iterable[Explanation], built_at: float) -> None:
    """Writes explanations beside those of others, and in the place of the same ones. Other
    processes that do so wait. Raises CorruptDataError for a damaged file, which stays."""
    with path.with_name(_LOCK_NAME).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        known = {identity_of(one): one for one in kept_explanations(path)}
        known |= {identity_of(one): one for one in _dated(found, built_at)}
        write_explanations(path, known.values(), built_at)


def weights_of(meta: Mapping[str, Any]) -> frozenset[str]:
    """What the `meta` of an index calls the weights of its SAE, however it was built; empty where
    it does not."""
    return frozenset(str(meta[key]) for key in ("weights_content", "weights") if meta.get(key))


def read_explanations(
    connection: "IndexConnection", path: Path, weights: Collection[str]
) -> dict[int, Explanation]:
    """The latest explanation of each feature of an SAE with one of these weights, whatever index it
    was made from; without any they are not known, and all fit."""
    found: dict[int, Explanation] = {}
    for one in all_explanations(connection, path):
        before = found.get(one.feature)
        if weights and one.weights not in ("", *weights):
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
    rows = [one.as_json() for one in sorted(_dated(found, built_at), key=identity_of)]
    with whole_file(path) as temporary:
        pq.write_table(pa.Table.from_pylist(rows, schema), temporary)


def _dated(found: Iterable[Explanation], built_at: float) -> list[Explanation]:
    return [one if one.index_built_at else replace(one, index_built_at=built_at) for one in found]
