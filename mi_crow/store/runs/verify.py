"""Whether a run's files are what was written: a check of every byte, or of their consistency.

Reading a whole run is as slow as its disk; summing takes a tenth of that. So opening a run checks
sizes and a few rows, and these full checks are for a capture that resumes after a power cut, and
for the doctor.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mi_crow.errors import CorruptDataError
from mi_crow.progress import Progress, raise_if_stopped
from mi_crow.store.checksums import difference, sum_of
from mi_crow.store.runs.manifest import LayerSpec, PartSpec, RunManifest
from mi_crow.store.runs.parts import TOKENS, RunPart, dequantised, held_out, row_norms

_READERS = 4  # summing is one thread's work a file, and disks like several requests
_ROWS_AT_ONCE = 4096
# How far rounding takes the length of a row from the one that was noted before it.
_TOLERANCE = {"fp32": 1e-4, "bf16": 0.01, "fp16": 0.01, "int8": 0.5}


@dataclass(frozen=True)
class Damage:
    """One file that differs from what was written."""

    part: PartSpec
    path: Path
    why: str


def damaged_files(
    run_dir: Path, manifest: RunManifest, progress: Progress | None = None
) -> Iterator[Damage]:
    """The files of a run that are missing or differ from the manifest in size or checksum, part by
    part. Reads every byte. Files without a checksum only have to exist.

    Raises OSError for a file that the system refuses to read, CancelledError when `progress` asks
    to stop.
    """

    def look(wanted: tuple[PartSpec, str]) -> Damage | None:
        if progress is not None:
            raise_if_stopped(progress)
        part, folder = wanted
        path = part_file(run_dir, part, folder)
        try:
            if (written := part.files.get(folder)) is None:
                path.stat()
                return None
            why = difference(written, sum_of(path))
        except FileNotFoundError:
            why = "it is missing"
        return Damage(part, path, why) if why else None

    folders = [TOKENS, *(layer.name for layer in manifest.layers)]
    files = [(part, folder) for part in manifest.parts for folder in folders]
    with ThreadPoolExecutor(_READERS) as readers:
        yield from (one for one in readers.map(look, files) if one is not None)


def part_file(run_dir: Path, part: PartSpec, folder: str) -> Path:
    """The part's file in a folder of the run."""
    suffix = "parquet" if folder == TOKENS else "safetensors"
    return run_dir / folder / f"{part.stem}.{suffix}"


def false_statements(run_dir: Path, manifest: RunManifest) -> Iterator[Damage]:
    """The files of a run whose content contradicts itself or the manifest: norms that do not match
    the rows, splits and counts that do not match the documents. Reads every row."""
    for part in manifest.parts:
        for layer in manifest.layers:
            path = part_file(run_dir, part, layer.name)
            try:
                why = _contradiction(RunPart(run_dir, layer, manifest.dtype, part), manifest, layer)
            except CorruptDataError as error:
                why = str(error)
            if why:
                yield Damage(part, path, why)


def _contradiction(part: RunPart, manifest: RunManifest, layer: LayerSpec) -> str:
    counts = part.kept_counts  # compares them with the manifest's
    starting = int((part.columns("window")["window"].to_numpy() == 0).sum())
    packed = manifest.settings.get("pack")  # then a row holds several documents
    if not packed and starting != part.spec.documents:
        return f"{starting:,} documents begin in it, the manifest says {part.spec.documents:,}"
    split = np.repeat(held_out(part.columns("split")), counts)
    if not np.array_equal(part.row_split.numpy(), split):
        return "its held-out rows are not those of its documents"
    for start in range(0, len(part), _ROWS_AT_ONCE):
        rows = part.read_rows(slice(start, min(start + _ROWS_AT_ONCE, len(part))))
        values = rows.values if rows.scales is None else dequantised(rows.values, rows.scales)
        off = (row_norms(values) - rows.norms).abs()
        # Of fp16, what is below its range becomes zero.
        wrong = ~(off <= _TOLERANCE[manifest.dtype] * rows.norms + 1e-6 * layer.width**0.5)
        if bool(torch.any(wrong)):
            row = start + int(wrong.nonzero()[0, 0])
            return f"the norm of row {row:,} is not the length of the row"
    return ""
