"""Checkpoints of a training run: whole folders of tensors and facts, never pickles."""

import re
import shutil
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mi_crow.errors import CorruptDataError, MiCrowError
from mi_crow.store.atomic import read_json, remove_stale, whole_folder, write_json

_TENSORS, _FACTS = "state.safetensors", "state.json"


def save_checkpoint(
    folder: Path, step: int, tensors: dict[str, Tensor], facts: dict[str, Any]
) -> str:
    """Writes `folder`/step-<step>, then removes older ones. Gives the checkpoint's name."""
    target = folder / f"step-{step}"
    if not target.exists():
        with whole_folder(target) as temporary:
            plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
            save_file(plain, temporary / _TENSORS)
            write_json(temporary / _FACTS, {**facts, "step": step})
    for older in _checkpoints(folder)[:-1]:
        shutil.rmtree(older, ignore_errors=True)
    return target.name


def newest_checkpoint(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Tensors and facts of the newest readable checkpoint in `folder`, or None without any.

    Raises CorruptDataError when there are some and none can be read.
    """
    failure: Exception | None = None
    for candidate in reversed(_checkpoints(folder)):
        try:
            return load_file(candidate / _TENSORS), read_json(candidate / _FACTS)
        except (MiCrowError, SafetensorError, OSError, ValueError) as error:
            failure = error
    if failure is not None:
        raise CorruptDataError(
            f"no checkpoint in {str(folder)!r} can be read ({failure})",
            hint="remove that folder to train from the beginning",
        ) from failure
    return None


def remove_checkpoints(folder: Path) -> None:
    """Removes all checkpoints in `folder`: the training is over."""
    shutil.rmtree(folder, ignore_errors=True)


def _checkpoints(folder: Path) -> list[Path]:
    """Whole checkpoints, oldest first."""
    if not folder.is_dir():
        return []
    remove_stale(folder)
    named = [
        (int(match[1]), entry)
        for entry in folder.iterdir()
        if (match := re.fullmatch(r"step-(\d+)", entry.name)) and entry.is_dir()
    ]
    return [entry for _, entry in sorted(named)]
