"""Texts in: Python lists, local files and folders, Hugging Face datasets."""

from typing import TYPE_CHECKING

from mi_crow.lazy import Getter, lazy_exports

if TYPE_CHECKING:
    from mi_crow.datasets.loading import load_texts
    from mi_crow.datasets.splits import HELDOUT, TRAIN, split_of
    from mi_crow.datasets.stream import HuggingFaceDataset, TextDataset, TextStream
    from mi_crow.datasets.texts import Render, Texts

__getattr__: Getter = lazy_exports(
    __name__,
    {
        "loading": ("load_texts",),
        "splits": ("HELDOUT", "TRAIN", "split_of"),
        "stream": ("HuggingFaceDataset", "TextDataset", "TextStream"),
        "texts": ("Render", "Texts"),
    },
)

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
