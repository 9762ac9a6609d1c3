"""Checks that a database is a feature index: tables with the columns that are read, nothing else.

A view in place of a table is computed by whoever reads it and may never end. So the catalogue is
read first, which runs no code from the file. Torch-free.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mi_crow.errors import CorruptDataError
from mi_crow.mechanistic.features.records import CofiringTokens, IndexMeta
from mi_crow.mechanistic.features.schema import VIEWS
from mi_crow.store.field_types import check_moment, check_types
from mi_crow.store.json_file import parse_json

if TYPE_CHECKING:
    import duckdb

# The most rows of tables that are read into memory; constant columns take no space in a file.
_MOST_ROWS = {
    "meta": 10_000,
    "features": 1 << 25,
    "feature_layers": 1 << 25,
    "labels": 1 << 20,
    "tokens": 1 << 25,
}
_META_KEYS = ("sae_id", "model_id", "layer", "n_features", "n_tokens", "n_documents", "built_at")
_COLUMNS = """
SELECT table_name, column_name, data_type, column_default FROM duckdb_columns()
WHERE database_name = 'idx' AND schema_name = 'main'
"""
_TABLES = """
SELECT table_name, estimated_size FROM duckdb_tables()
WHERE database_name = 'idx' AND schema_name = 'main'
"""
_VIEWS = "SELECT view_name FROM duckdb_views() WHERE database_name = 'idx' AND NOT internal"
_MACROS = (
    "SELECT function_name FROM duckdb_functions() WHERE database_name = 'idx' AND NOT internal"
)


def refuse_macros(database: "duckdb.DuckDBPyConnection", sae_id: str, *, hint: str) -> None:
    """Raises CorruptDataError when the attached `idx` has a macro. Takes 30 ms, since the
    catalogue lists all functions of DuckDB itself."""
    macros = [name for (name,) in database.execute(_MACROS).fetchall()]
    if macros:
        raise _wrong(sae_id, f"it has a macro {macros[0]!r}", hint)


def check_tables(
    database: "duckdb.DuckDBPyConnection",
    sae_id: str,
    expected: Mapping[str, Mapping[str, str]],
    *,
    hint: str,
) -> None:
    """Checks that the attached `idx` has the tables `expected`: table -> column -> type.

    Raises CorruptDataError for a table that is missing or is a view, for columns that are missing,
    of another type or computed, and for more rows than an index has.
    """

    def wrong(what: str) -> CorruptDataError:
        return _wrong(sae_id, what, hint)

    views = {name for (name,) in database.execute(_VIEWS).fetchall()} - VIEWS.keys()
    sizes = dict(database.execute(_TABLES).fetchall())
    columns: dict[str, dict[str, tuple[str, str | None]]] = {}
    for table, name, kind, default in database.execute(_COLUMNS).fetchall():
        columns.setdefault(table, {})[name] = kind, default
    for table, wanted in expected.items():
        if table in views:
            raise wrong(f"{table!r} is a view and not a table")
        if table not in sizes:
            raise wrong(f"it has no table {table!r}")
        for name, kind in wanted.items():
            found, default = columns[table].get(name, ("", None))
            if not found:
                raise wrong(f"{table!r} has no column {name!r}")
            if found != kind:
                raise wrong(f"{name!r} of {table!r} is of type {found}, not {kind}")
            if default is not None:
                raise wrong(f"{name!r} of {table!r} is computed")
        if sizes[table] > _MOST_ROWS.get(table, sizes[table]):
            raise wrong(f"{table!r} has {sizes[table]:,} rows")


def _wrong(sae_id: str, what: str, hint: str) -> CorruptDataError:
    return CorruptDataError(
        f"features.duckdb of {sae_id!r} is a database, but not a feature index: {what}", hint=hint
    )


def checked_meta(
    sae_id: str, values: Mapping[str, Any], labels: tuple[str, ...], n_features: int
) -> IndexMeta:
    """What is known about a whole index, from the `values` of its table `meta`. Raises
    CorruptDataError."""
    try:
        other = {
            key: value
            for key, value in values.items()
            if key not in (*_META_KEYS, "sources", "schema_version", "histogram_edges", "bands")
        }
        meta = IndexMeta(
            sae_id=sae_id,  # the SAE may have been renamed since
            model_id=values["model_id"],
            layer=values["layer"],
            n_features=int(values["n_features"]),
            n_tokens=int(values["n_tokens"]),
            n_documents=int(values["n_documents"]),
            built_at=float(values["built_at"]),
            sources=tuple(parse_json(values["sources"], "sources")),
            schema_version=int(values["schema_version"]),
            edges=tuple(parse_json(values["histogram_edges"], "histogram_edges")),
            labels=labels,
            bands=int(values["bands"]),
            cofiring=CofiringTokens(
                int(values.get("coactivation_tokens", values["n_tokens"])), int(values["n_tokens"])
            ),
            other=other,
            layers=tuple(parse_json(values.get("layers", "[]"), "layers")),
            first_features=tuple(parse_json(values.get("first_features", "[]"), "first_features")),
        )
        check_types(meta, "meta")
        check_moment(meta.built_at, "meta: built_at")
        if meta.n_features != n_features:
            raise CorruptDataError(
                f"metadata lists {meta.n_features} features, the table has {n_features}"
            )
        return meta
    except (KeyError, TypeError, ValueError, OverflowError, CorruptDataError) as error:
        reason = error if isinstance(error, CorruptDataError) else repr(error)
        raise CorruptDataError(
            f"the feature index of {sae_id!r} cannot be read ({reason})",
            hint=f"mi-crow index --sae {sae_id} builds it again; concepts stay",
        ) from error
