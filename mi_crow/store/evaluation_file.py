"""evaluation.json of an SAE: the results of `evaluate`, checked before use."""

from pathlib import Path
from typing import Any

from mi_crow.errors import CorruptDataError, NotFoundError
from mi_crow.store.json_file import read_json
from mi_crow.store.json_object import JsonObject

EVALUATION_NAME = "evaluation.json"
TRAINING_NAME = "training.json"
CHECK_NAME = "check.json"  # of an imported SAE: what its check measured
# What screens and tables show as numbers, and the tables within `probes`.
_READINGS = frozenset(
    {
        "fvu",
        "fvu_all",
        "explained_variance",
        "outlier_share",
        "cosine",
        "l0",
        "dead_share",
        "dense_share",
        "ce_original",
        "ce_reconstructed",
        "ce_zero",
        "ce_mean",
        "loss_recovered",
        "loss_recovered_mean",
        "kl",
    }
)
_PROBE_TABLES = ("latents", "residual", "latents_accuracy", "residual_accuracy", "raw")


def read_evaluation(folder: Path) -> tuple[dict[str, Any] | None, str]:
    """The results of `evaluate` for the SAE in `folder`, and why they cannot be read, if so.

    An invalid file does not hide the SAE: it counts as missing, with the reason.
    """
    path = folder / EVALUATION_NAME
    try:
        found = JsonObject.of(read_json(path), path.name)
        check_evaluation(found)
    except NotFoundError:
        return None, ""
    except (CorruptDataError, OSError) as error:
        return None, str(error)
    return dict(found.values), ""


def read_trained(folder: Path) -> dict[str, float]:
    """What a training measured on held-out tokens at its end, of the SAE in `folder`; empty where
    it does not say so."""
    try:
        result = JsonObject.of(read_json(folder / TRAINING_NAME), TRAINING_NAME).object(
            "result", {}
        )
    except (NotFoundError, CorruptDataError, OSError):
        return {}
    return _readings(result)


def read_checked(folder: Path) -> dict[str, float]:
    """What the check of an import measured, of the SAE in `folder`; empty where there was none."""
    try:
        return _readings(JsonObject.of(read_json(folder / CHECK_NAME), CHECK_NAME))
    except (NotFoundError, CorruptDataError, OSError):
        return {}


def _readings(result: JsonObject) -> dict[str, float]:
    return {
        name: float(value)
        for name, value in result.values.items()
        if name in _READINGS and isinstance(value, int | float) and not isinstance(value, bool)
    }


def check_evaluation(found: JsonObject) -> None:
    """Raises CorruptDataError unless what is shown of the results has the types that it must."""
    _check_readings(found, [key for key in found if key in _READINGS])
    probes = found.object("probes", {})
    for name in _PROBE_TABLES:
        table = probes.object(name, {})
        _check_readings(table, list(table))


def _check_readings(found: JsonObject, keys: list[str]) -> None:
    """Each must be a number (NaN where nothing could be measured) or null."""
    for key in keys:
        value = found.values[key]
        if value is not None and type(value) not in (int, float):
            raise found.wrong(key, "a number")
