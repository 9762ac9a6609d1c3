"""Captured runs that benchmarks share: made once by the library, kept in the user's cache."""

import json
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from platformdirs import user_cache_dir
from torch import Tensor

from mi_crow.language_model.capture.job import capture_run
from mi_crow.language_model.config import CaptureConfig, DatasetSpec, ModelSpec
from mi_crow.mechanistic.sae.source import HELDOUT, TRAIN, TensorSource
from mi_crow.progress import NullProgress
from mi_crow.store.runs.manifest import MANIFEST_NAME, RunManifest
from mi_crow.store.runs.reader import RunReader
from mi_crow.store.workspace import Workspace
from tests.benchmarks.capture import real_documents
from tests.real_model.smollm2 import model_folder

SMOLLM2_LAYER = "resid_post.15"
SAMPLE_LAYER = "resid_post.2"
OUTLIER_FACTOR = 10.0


def smollm2_run() -> RunReader:
    """Layer 15 of SmolLM2-135M on fortunes and Python's own help, up to 128 tokens of each text.

    About 650k tokens where the fortunes are installed. The capture takes some minutes, once.
    """
    with tempfile.TemporaryDirectory() as scratch:
        texts = Path(scratch) / "texts.jsonl"
        lines = [json.dumps({"text": text}) for text in real_documents(sys.maxsize)]
        texts.write_text("\n".join(lines) + "\n", "utf-8")
        return _run("smollm2-15", str(model_folder()), str(texts), SMOLLM2_LAYER)


def sample_run() -> RunReader:
    """The layer of the sample model that `mi-crow demo` trains on, on the sample corpus."""
    return _run("sample-2", "sample", "sample", SAMPLE_LAYER)


def _run(name: str, model: str, texts: str, layer: str) -> RunReader:
    workspace = Workspace.open(Path(user_cache_dir("mi-crow")) / "benchmarks")
    folder = workspace.activations_dir / name
    whole = (folder / MANIFEST_NAME).is_file() and RunManifest.load(folder).status == "complete"
    if not whole:
        if folder.exists():
            workspace.delete(folder)  # its texts lay in a folder that is gone
        config = CaptureConfig(ModelSpec(model), DatasetSpec(texts), (layer,), name=name)
        capture_run(workspace, config, _Told())
    return RunReader(folder, RunManifest.load(folder).layer(layer).name)


class _Told(NullProgress):
    """A line now and then, since a capture takes minutes."""

    def __init__(self) -> None:
        self._told = time.monotonic()

    def update(
        self, done: int, total: int, unit: str, metrics: Mapping[str, float] | None = None
    ) -> None:
        if time.monotonic() - self._told > 30:
            self._told = time.monotonic()
            print(f"capturing: {done:,} of {total:,} {unit}s", flush=True)


@dataclass(frozen=True)
class CapturedTokens:
    """What every trainer learns from, and what every SAE is measured on: [n, d], as stored."""

    train: Tensor  # outliers left out
    heldout: Tensor  # with them
    outlier_norm: float

    @classmethod
    def of(cls, reader: RunReader) -> "CapturedTokens":
        outlier_norm = OUTLIER_FACTOR * reader.median_norm()
        train = reader.sample(reader.count(TRAIN), 0, TRAIN, outlier_norm)
        heldout = reader.sample(reader.count(HELDOUT), 0, HELDOUT)
        return cls(train, heldout, outlier_norm)

    def source(self) -> TensorSource:
        """Both splits for our trainer; the training rows come first."""
        mask = torch.arange(len(self.train) + len(self.heldout)) >= len(self.train)
        return TensorSource(torch.cat([self.train, self.heldout]), mask)

    def order(self, batch_size: int, steps: int, seed: int) -> Tensor:
        """The rows of `train` in the order in which our trainer takes them: int64
        [steps * batch_size]."""
        rows = torch.arange(len(self.train), dtype=torch.float64)[:, None]
        numbers = TensorSource(rows, torch.zeros(len(rows), dtype=torch.bool))
        batches = numbers.batches(batch_size, seed)
        return torch.cat([next(batches)[:, 0].long() for _ in range(steps)])
