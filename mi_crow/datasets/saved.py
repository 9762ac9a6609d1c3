"""Folders that `datasets` wrote with `save_to_disk`: what their JSON files say."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mi_crow.causes import machine_error
from mi_crow.errors import MiCrowError, NotFoundError, UserError
from mi_crow.store.json_file import read_json

_DICT, _STATE, _INFO = "dataset_dict.json", "state.json", "dataset_info.json"


def is_saved(path: Path) -> bool:
    """True for a folder that `save_to_disk` wrote: one data set, or one for each split."""
    return (path / _DICT).is_file() or ((path / _STATE).is_file() and (path / _INFO).is_file())


def saved_features(path: Path, split: str) -> dict[str, Any]:
    """The fields of a saved data set (the first split in `split`): by name, each as `datasets`
    describes its type.

    Raises NotFoundError for a split that it lacks, UserError for a damaged folder.
    """
    if (path / _DICT).is_file():
        splits = _read(path / _DICT).get("splits", [])
        wanted = splits if split == "all" else [one.split("[")[0] for one in split.split("+")]
        for name in wanted:
            if name not in splits:
                raise no_split(str(path), name, splits)
        path = path / wanted[0]
    features = _read(path / _INFO).get("features")
    return features if isinstance(features, dict) else {}


def text_features(features: Mapping[str, Any]) -> list[str]:
    """Names of the fields that may have texts, conversations or token ids."""

    def may(kind: Any) -> bool:
        if isinstance(kind, list):
            return True
        if not isinstance(kind, dict):
            return False
        listed = kind.get("_type") in ("Sequence", "List", "LargeList", "LargeSequence")
        return listed or "string" in str(kind.get("dtype")) or kind.get("dtype") == "null"

    return [name for name, kind in features.items() if may(kind)]


def no_split(source: str, split: str, splits: list[str]) -> NotFoundError:
    """The error for a split that a data set lacks."""
    return NotFoundError(
        f"dataset {source!r} has no split {split!r}", hint=f"it has {', '.join(splits)}"
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        found = read_json(path)
    except (OSError, MiCrowError) as error:
        raise machine_error(error, path) or UserError(
            f"dataset folder {str(path.parent)!r} cannot be read ({path.name}: {error})"
        ) from error
    return found if isinstance(found, dict) else {}
