"""Texts in: Python lists, local files and folders, Hugging Face datasets."""

from typing import TYPE_CHECKING, Any

from mi_crow.lazy import lazy_exports

if TYPE_CHECKING:
    from mi_crow.datasets.loading import load_texts
    from mi_crow.datasets.splits import HELDOUT, TRAIN, split_of
    from mi_crow.datasets.stream import HuggingFaceDataset, TextDataset, TextStream
    from mi_crow.datasets.texts import Render, Texts

_EXPORTS = {
    "HELDOUT": "mi_crow.datasets.splits",
    "HuggingFaceDataset": "mi_crow.datasets.stream",
    "TRAIN": "mi_crow.datasets.splits",
    "Render": "mi_crow.datasets.texts",
    "TextDataset": "mi_crow.datasets.stream",
    "TextStream": "mi_crow.datasets.stream",
    "Texts": "mi_crow.datasets.texts",
    "load_texts": "mi_crow.datasets.loading",
    "split_of": "mi_crow.datasets.splits",
}

__all__ = [
    "HELDOUT",
    "TRAIN",
    "HuggingFaceDataset",
    "Render",
    "TextDataset",
    "TextStream",
    "Texts",
    "load_texts",
    "split_of",
]


def __getattr__(name: str) -> Any:
    return lazy_exports(__name__, _EXPORTS, name)
