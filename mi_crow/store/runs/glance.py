"""A look into an activations run without its activations: splits, labels, some texts, the bytes of
each layer. Torch-free."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from mi_crow.errors import CorruptDataError
from mi_crow.store.columnar.parquet import ParquetLook, parquet_look
from mi_crow.store.runs.manifest import PartSpec, RunManifest

Item = TypeVar("Item")
_TOKENS = "tokens"  # the folder of the documents
_MOST_PARTS = 16  # whose splits and labels are counted: a large run has thousands
_MOST_ROWS = 256  # of the first part, among which the texts are
_MOST_CHARACTERS = 2000  # of one text

# Both in the order of the file: of equally frequent labels the one that comes first.
_COUNTED = (
    "coalesce(split, '') AS split, label, count(*) AS documents",
    "GROUP BY ALL ORDER BY min(file_row_number)",
)
_SAMPLED = (
    f"left(coalesce(text, ''), {_MOST_CHARACTERS}) AS text, coalesce(len(token_ids), 0) AS tokens, "
    "label, coalesce(split, '') AS split",
    f"WHERE file_row_number < {_MOST_ROWS} ORDER BY file_row_number",
)


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


def glance_at(folder: Path, manifest: RunManifest, texts: int = 48) -> Glance:
    """Reads the documents of the first parts, and `texts` evenly from the very first. Raises
    CorruptDataError for a damaged file, MachineError where the system refuses to read it."""
    splits: Counter[str] = Counter()
    labels: Counter[str] = Counter()
    sample: tuple[SampleText, ...] = ()
    with parquet_look() as look:
        for part in manifest.parts[:_MOST_PARTS]:
            for row in _asked(look, folder, part, *_COUNTED):
                splits[row["split"]] += row["documents"]
                if row["label"]:
                    labels[row["label"]] += row["documents"]
            if not sample:
                sample = _texts(look, folder, part, texts)
    return Glance(
        splits.total(),
        manifest.n_documents,
        dict(splits.most_common()),
        dict(labels.most_common()),
        sample,
        {layer.name: _layer_bytes(folder, manifest, layer.name) for layer in manifest.layers},
    )


def _texts(look: ParquetLook, folder: Path, part: PartSpec, wanted: int) -> tuple[SampleText, ...]:
    """Evenly spaced, so that a corpus that is sorted by label shows several."""
    rows = _asked(look, folder, part, *_SAMPLED)
    return tuple(
        SampleText(row["text"], row["tokens"], row["label"], row["split"])
        for row in evenly(rows, wanted)
    )


def evenly(items: Sequence[Item], wanted: int) -> Sequence[Item]:
    """This many of the items, the first among them, as far from one another as they can be. The
    steps are not all alike: labels that take turns would hide behind each other."""
    if wanted >= len(items):
        return items
    return [items[at * len(items) // wanted] for at in range(wanted)]


def _asked(
    look: ParquetLook, folder: Path, part: PartSpec, select: str, rest: str
) -> list[dict[str, Any]]:
    """Rows about the documents of a part."""
    try:
        return look.ask(folder / _TOKENS / f"{part.stem}.parquet", select, rest)
    except CorruptDataError as error:
        raise CorruptDataError(error.sentence, hint="capture the run again") from error


def _layer_bytes(folder: Path, manifest: RunManifest, layer: str) -> int:
    """As the manifest says; of older runs, as the files are."""
    sums = [part.files.get(layer) for part in manifest.parts]
    if all(sums):
        return sum(one.bytes for one in sums if one is not None)
    return sum(path.stat().st_size for path in (folder / layer).glob("part-*"))
