"""The table of latent scaling beside an index: which of two models each feature is of. Torch-free.

`saes/<sae>/latent_scaling.parquet` is written by the training of a crosscoder of two models and by
its evaluation (see `sae/cross_layer/latent_scaling`).
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mi_crow.errors import CorruptDataError, MiCrowError, NotFoundError
from mi_crow.mechanistic.features.catalogue import OF_TWO_MODELS
from mi_crow.mechanistic.features.records import OfTwoModels
from mi_crow.mechanistic.sae.cross_layer.origins import FILE, ORIGINS

if TYPE_CHECKING:
    from mi_crow.mechanistic.features.connection import IndexConnection


def scaling_beside(connection: "IndexConnection", key: str, n_features: int) -> np.ndarray:
    """One of its numbers, OF_TWO_MODELS: float64 [n_features], NaN where there is none. Raises
    CorruptDataError."""
    if key not in OF_TWO_MODELS:
        raise ValueError(f"{key!r} is not a number of latent scaling")
    values = np.full(n_features, np.nan)
    path = _file(connection)
    if path.is_file():
        column = f"coalesce({key}, 'nan'::DOUBLE) AS value"
        found = _read(connection, path, column, n_features)
        values[found["feature"]] = found["value"]
    return np.where(np.isfinite(values), values, np.nan)


def origins_beside(connection: "IndexConnection", n_features: int) -> list[str]:
    """Of every feature one of ORIGINS; '' where it is dead or nothing is known."""
    names = [""] * n_features
    path = _file(connection)
    if path.is_file():
        found = _read(connection, path, "coalesce(origin, '') AS origin", n_features)
        for feature, origin in zip(found["feature"].tolist(), found["origin"], strict=True):
            names[feature] = origin if origin in ORIGINS else ""
    return names


def of_two_models(connection: "IndexConnection", feature: int) -> OfTwoModels | None:
    """What the table says of one feature; None for SAEs of one model, dead features, and a table
    that cannot be read."""
    path = _file(connection)
    if not path.is_file():
        return None
    try:
        rows = connection.rows(
            "SELECT origin, relative_norm, nu_reconstruction, nu_error FROM read_parquet(?) "
            "WHERE feature = ?",
            [str(path), feature],
        )
    except MiCrowError:
        return None
    known = rows and rows[0][0] in ORIGINS and None not in rows[0]
    return OfTwoModels(*rows[0]) if known else None


def of_origin(connection: "IndexConnection", origin: str, n_features: int) -> np.ndarray:
    """The features of an origin: bool [n_features]. Raises NotFoundError without a table: a
    condition on it would otherwise match nothing."""
    if not _file(connection).is_file():
        raise NotFoundError(
            f"SAE {connection.sae_id!r} does not say which model its features are of",
            hint="that is measured of crosscoders of two models: mi-crow train --crosscoder "
            "--tuned-run RUN, mi-crow evaluate",
        )
    return np.array([name == origin for name in origins_beside(connection, n_features)], dtype=bool)


def _file(connection: "IndexConnection") -> Path:
    return connection.path.with_name(FILE)


def _read(
    connection: "IndexConnection", path: Path, column: str, n_features: int
) -> dict[str, Any]:
    trouble: object = "its features are not those of the index"
    try:
        found = connection.columns(
            f"SELECT feature::INTEGER AS feature, {column} FROM read_parquet(?)", [str(path)]
        )
        if np.array_equal(np.sort(found["feature"]), np.arange(n_features)):
            return found
    except MiCrowError as error:
        trouble = error
    raise CorruptDataError(
        f"{path} is not readable ({trouble})",
        hint=f"mi-crow evaluate --sae {connection.sae_id} makes it again",
    )
