"""A look into an activations run without its activations: splits, labels, some texts, the bytes of
each layer. Torch-free."""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mi_crow.causes import machine_error
from mi_crow.errors import CorruptDataError
from mi_crow.store.runs.manifest import PartSpec, RunManifest

_TOKENS = "tokens"  # the folder of the documents
_MOST_PARTS = 16  # whose splits and labels are counted: a large run has thousands
_MOST_ROWS = 256  # of the first part, among which the texts are
_MOST_CHARACTERS = 2000  # of one text


@dataclass(frozen=True)
class SampleText:
    """One document of the run, or a window of one."""

    text: str  # its beginning
    tokens: int
    label: str | None = None
    split: str = ""


@dataclass(frozen=True)
class Glance:
    """What `glance_at` found."""

    counted: int = 0  # documents or windows whose split and label were read
    total: int = 0
    splits: Mapping[str, int] = field(default_factory=dict)
    labels: Mapping[str, int] = field(default_factory=dict)  # most frequent first
    texts: tuple[SampleText, ...] = ()
    layer_bytes: Mapping[str, int] = field(default_factory=dict)  # by the layer's name


def glance_at(folder: Path, manifest: RunManifest, texts: int = 12) -> Glance:
    """Reads the documents of the first parts, and `texts` evenly from the very first. Raises
    CorruptDataError for a damaged file, MachineError where the system refuses to read it."""
    splits: Counter[str] = Counter()
    labels: Counter[str] = Counter()
    sample: tuple[SampleText, ...] = ()
    for part in manifest.parts[:_MOST_PARTS]:
        with _documents(folder, part) as file:
            table = file.read(["split", "label"])
        splits.update(split or "" for split in table["split"].to_pylist())
        labels.update(label for label in table["label"].to_pylist() if label)
        if not sample:
            sample = _texts(folder, part, texts)
    return Glance(
        splits.total(),
        manifest.n_documents,
        dict(splits.most_common()),
        dict(labels.most_common()),
        sample,
        {layer.name: _layer_bytes(folder, manifest, layer.name) for layer in manifest.layers},
    )


def _texts(folder: Path, part: PartSpec, wanted: int) -> tuple[SampleText, ...]:
    """Evenly spaced, so that a corpus that is sorted by label shows several."""
    columns = ["text", "label", "split", "token_ids"]
    with _documents(folder, part) as file:
        batch = next(file.iter_batches(_MOST_ROWS, columns=columns), None)
        rows = [] if batch is None else batch.to_pylist()
    step = max(len(rows) // max(wanted, 1), 1)
    return tuple(
        SampleText(
            (row["text"] or "")[:_MOST_CHARACTERS],
            len(row["token_ids"] or ()),
            row["label"],
            row["split"] or "",
        )
        for row in rows[::step][:wanted]
    )


@contextmanager
def _documents(folder: Path, part: PartSpec) -> Iterator[Any]:
    """The open file of a part's documents."""
    import pyarrow
    from pyarrow import parquet

    path = folder / _TOKENS / f"{part.stem}.parquet"
    try:
        with parquet.ParquetFile(path) as file:
            yield file
    except (pyarrow.ArrowException, OSError, ValueError, KeyError) as error:
        words = str(error).strip().splitlines() or [type(error).__name__]
        raise machine_error(error, path) or CorruptDataError(
            f"{path} is damaged ({words[0]})", hint="capture the run again"
        ) from error


def _layer_bytes(folder: Path, manifest: RunManifest, layer: str) -> int:
    """As the manifest says; of older runs, as the files are."""
    sums = [part.files.get(layer) for part in manifest.parts]
    if all(sums):
        return sum(one.bytes for one in sums if one is not None)
    return sum(path.stat().st_size for path in (folder / layer).glob("part-*"))
