"""An SAE that was found among files, before any of them is read. Torch-free."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mi_crow.mechanistic.sae.cross_layer.record import CrossLayerRecord
    from mi_crow.mechanistic.sae.formats.record import SaeRecord


@dataclass(frozen=True)
class FoundSae:
    """One SAE among the files of a folder or repository, which are named with `/`."""

    format: str
    label: str  # its folder, or its file where one folder holds several; '' for the root itself
    weights: str  # the file that it was recognised by
    files: tuple[str, ...]  # all that are read, including optional ones
    # Takes the root, the place that it came from, and the layer that the user asked for.
    read: "Callable[[Path, str, str | None], SaeRecord | CrossLayerRecord]"
    number: int | None = None  # of its block, where its name says that


def folder_of(name: str) -> tuple[str, str]:
    """The folder and the name of a file; '' for the root."""
    folder, _, file = name.rpartition("/")
    return folder, file


def joined(folder: str, file: str) -> str:
    """`file` in `folder`, which may be ''."""
    return f"{folder}/{file}" if folder else file


def above(folder: str, file: str, known: set[str]) -> str | None:
    """`file` in `folder` or in the nearest folder above it, within the root."""
    parts = folder.split("/") if folder else []
    for count in range(len(parts), -1, -1):
        candidate = joined("/".join(parts[:count]), file)
        if candidate in known:
            return candidate
    return None


_BLOCK = re.compile(r"(?:[\w.]*\b(?:layers?|h|blocks)[._])?(\d+)")


def block_number(layer: str) -> int | None:
    """The number in `15`, `layers.15`, `model.layers.15` or `layer_15`; None for hook points."""
    match = _BLOCK.fullmatch(layer)
    return int(match[1]) if match is not None else None
