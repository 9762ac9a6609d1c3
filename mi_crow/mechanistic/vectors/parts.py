"""What is done of a vector that is being made: the texts that were read, the steps of its training.

Each part is one safetensors file in a folder beside the vectors, so that a job that was stopped or
killed goes on from there to the same vector. The folder goes with the end of the work.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mi_crow.mechanistic.vectors.activations import TextActivations
from mi_crow.store.atomic import TMP_PREFIX, remove_stale, whole_file
from mi_crow.store.workspace import Workspace

if TYPE_CHECKING:
    from mi_crow.language_model import HookPoint

PREFIX = f"{TMP_PREFIX}vector-"  # as `store.leftovers` knows it


class Parts:
    """The finished parts of one vector."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        if folder.is_dir():
            remove_stale(folder)

    @classmethod
    def of(cls, workspace: Workspace, fingerprint: str) -> "Parts":
        """Those of the vector whose settings have this fingerprint."""
        return cls(workspace.vectors_dir / f"{PREFIX}{fingerprint}")

    def side(
        self, number: int, points: "Sequence[HookPoint]"
    ) -> "dict[HookPoint, TextActivations] | None":
        """The activations on one of the sets of texts, where they were read before."""
        held = self.load(f"texts-{number}")
        if held is None:
            return None
        ends, texts = held["ends"], held["texts"].tolist()
        return {
            point: TextActivations(held[f"rows {point.point}"].float(), ends, texts)
            for point in points
        }

    def keep_side(self, number: int, found: "Mapping[HookPoint, TextActivations]") -> None:
        """Keeps them."""
        first = next(iter(found.values()))
        rows = {f"rows {point.point}": _compact(one.rows) for point, one in found.items()}
        self.keep(
            f"texts-{number}",
            {"ends": first.ends, "texts": torch.tensor(first.model_texts), **rows},
        )

    def load(self, name: str) -> dict[str, Tensor] | None:
        """The tensors of a part; None where it was not kept, or cannot be read."""
        from safetensors.torch import load_file

        path = self._folder / f"{name}.safetensors"
        if not path.is_file():
            return None
        try:
            return load_file(path)
        except Exception:  # the Rust reader's own kinds of errors: the part is made again
            return None

    def keep(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """Writes a part, whole or not at all."""
        from safetensors.torch import save_file

        with whole_file(self._folder / f"{name}.safetensors") as temporary:
            save_file({key: one.detach().cpu().clone() for key, one in tensors.items()}, temporary)

    def clear(self) -> None:
        """Removes everything: the vector is written."""
        shutil.rmtree(self._folder, ignore_errors=True)


def _compact(rows: Tensor) -> Tensor:
    """The same numbers in half the bytes, where they came from a model in bf16."""
    half = rows.to(torch.bfloat16)
    return half if torch.equal(half.float(), rows) else rows
