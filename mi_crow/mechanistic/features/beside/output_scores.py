"""The file of output scores beside an index: how strongly each feature steers. Torch-free.

`saes/<sae>/output_scores.safetensors` holds one float32 [features], NaN where a feature was not
scored (yet), and as metadata the settings, the weights that it is of, and how many are done.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mi_crow.errors import CorruptDataError
from mi_crow.store.atomic import whole_file

if TYPE_CHECKING:
    from mi_crow.mechanistic.features.connection import IndexConnection

FILE = "output_scores.safetensors"
KEY = "output"


def write_scores(folder: Path, scores: np.ndarray, facts: dict[str, str]) -> None:
    """Replaces the file in the folder of an SAE."""
    from safetensors.numpy import save_file

    with whole_file(folder / FILE) as temporary:
        save_file({KEY: scores.astype(np.float32)}, temporary, facts)


def read_scores(folder: Path) -> tuple[np.ndarray, dict[str, str]] | None:
    """The scores and their facts; None without the file. Raises CorruptDataError."""
    path = folder / FILE
    if not path.is_file():
        return None
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            return file.get_tensor(KEY), dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise CorruptDataError(
            f"{path} is not readable ({error})", hint="mi-crow steer scores makes it again"
        ) from error


def scores_beside(connection: "IndexConnection", n_features: int) -> np.ndarray:
    """The scores beside an open index: float64 [n_features], NaN where there are none, and where
    they are of other weights than the index."""
    nothing = np.full(n_features, np.nan)
    places = connection.rows("SELECT path FROM duckdb_databases() WHERE database_name = 'idx'")
    found = read_scores(Path(places[0][0]).parent) if places else None
    if found is None or found[0].shape != (n_features,):
        return nothing
    weights = connection.rows("SELECT value FROM idx.meta WHERE key = 'weights'")
    of = weights[0][0] if weights else ""
    return found[0].astype(np.float64) if found[1].get("weights", "") == of else nothing
