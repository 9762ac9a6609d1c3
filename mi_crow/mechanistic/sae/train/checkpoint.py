"""Checkpoints of a training: folders of tensors and JSON, written atomically, never pickles."""

import re
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mi_crow.causes import machine_error
from mi_crow.errors import CorruptDataError, MiCrowError
from mi_crow.store.atomic import read_json, remove_stale, whole_folder, write_json
from mi_crow.store.checksums import FileSum, difference, forget_cached, sum_of

_TENSORS, _FACTS = "state.safetensors", "state.json"
_SUM = "tensors_sum"  # in the facts: size and checksum of the tensors' file


def save_checkpoint(
    folder: Path, step: int, tensors: dict[str, Tensor], facts: dict[str, Any]
) -> str:
    """Writes `folder`/step-<step>, and removes older checkpoints once it was read back from the
    disk unchanged. Returns the checkpoint's name."""
    target = folder / f"step-{step}"
    if target.exists() and not _is_whole(target):  # left by a power cut
        shutil.rmtree(target)
    if not target.exists():
        with whole_folder(target) as temporary:
            plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
            save_file(plain, temporary / _TENSORS)
            written = asdict(sum_of(temporary / _TENSORS))
            write_json(temporary / _FACTS, {**facts, "step": step, _SUM: written})
    forget_cached(target / _TENSORS)
    if _is_whole(target):
        for older in _checkpoints(folder)[:-1]:
            shutil.rmtree(older, ignore_errors=True)
    return target.name


def _is_whole(checkpoint: Path) -> bool:
    """Whether a checkpoint can be read and has the written checksum."""
    try:
        return not _damage(checkpoint, read_json(checkpoint / _FACTS))
    except (MiCrowError, OSError):
        return False


def _damage(checkpoint: Path, facts: Any) -> str:
    """How the tensors' file differs from what was written; '' if not, or if no sum is known."""
    if not isinstance(facts, dict) or _SUM not in facts:  # from older versions
        return ""
    try:
        return difference(FileSum.from_json(facts[_SUM]), sum_of(checkpoint / _TENSORS))
    except (KeyError, TypeError):
        return "its checksum is not valid"


def newest_checkpoint(
    folder: Path, tell: Callable[[str], None] | None = None
) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Tensors and facts of the newest whole checkpoint in `folder`, or None without any. Newer ones
    that are damaged are reported to `tell`.

    Raises CorruptDataError when there are some and none can be read, MachineError where the system
    refuses to read one.
    """
    failure: Exception | None = None
    for candidate in reversed(_checkpoints(folder)):
        try:
            facts = read_json(candidate / _FACTS)
            if why := _damage(candidate, facts):
                raise CorruptDataError(f"{candidate / _TENSORS} is damaged ({why})")
            return load_file(candidate / _TENSORS), facts
        except (MiCrowError, SafetensorError, OSError, ValueError, MemoryError) as error:
            if (refused := machine_error(error, candidate / _TENSORS)) is not None:
                raise refused from error
            failure = error
            if tell is not None:
                tell(
                    f"checkpoint {candidate.name} cannot be read ({error}): using the one before it"
                )
    if failure is not None:
        raise CorruptDataError(
            f"no checkpoint in {str(folder)!r} can be read ({failure})",
            hint="remove that folder to train from the beginning",
        ) from failure
    return None


def remove_checkpoints(folder: Path) -> None:
    """Removes all checkpoints in `folder` when the training has ended."""
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
