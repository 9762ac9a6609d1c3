"""Data sets of the `datasets` library: from the hub, its cache, a saved folder or the caller."""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mi_crow.causes import machine_error
from mi_crow.datasets.fields import Fields
from mi_crow.datasets.files import content_hash
from mi_crow.datasets.records import (
    ArrowRecords,
    Identity,
    ListedRecords,
    Records,
    StreamedRecords,
)
from mi_crow.datasets.saved import no_split
from mi_crow.errors import UserError
from mi_crow.hub import first_line, hub_answers, hub_error, quiet_downloads

if TYPE_CHECKING:
    import datasets

_NO_END = 2**62  # the length of a stream of unknown length


def needs_lengths(split: str) -> bool:
    """True for a slice that depends on the number of rows (`[:10%]`, `[-5:]`)."""
    return re.search(r"\[[^\]]*[-%]", split) is not None


def hub_records(
    name: str, split: str, fields: Fields, streaming: bool, offline: bool
) -> ArrowRecords | StreamedRecords:
    """Records of a data set on the hub, or of its cached copy when the hub does not answer.

    Raises NotFoundError when it is not available, UserError for a config, split or field that it
    lacks.
    """
    import datasets

    path, _, config = name.partition(":")
    asked = not offline and hub_answers()
    try:
        with quiet_downloads(), _quietly(offline=not asked):
            builder = datasets.load_dataset_builder(path, config or None)
            streams = streaming and asked
            if not streams:
                builder.download_and_prepare()
            splits: Any = builder.as_streaming_dataset() if streams else builder.as_dataset()
    except ValueError as error:
        lines = str(error).strip().splitlines()
        raise UserError(
            f"dataset {name!r} cannot be read ({' '.join(lines[:2])[:300]})",
            hint="if it has several configs, name one: org/name:config",
        ) from error
    except Exception as error:  # the library raises errors of any type
        raise hub_error(f"dataset {name!r}", error, asked=asked) from error
    known: Any = builder.info.splits or {}
    sizes = {key: known[key].num_examples for key in splits if key in known}
    dataset, size = _of_split(splits, sizes, split, name)
    identity = {"name": path, "config": builder.config.name, "split": split, "at": builder.hash}
    if isinstance(dataset, datasets.Dataset):
        return ArrowRecords(dataset, fields, name, lambda: identity)
    return StreamedRecords(dataset, fields, name, identity, size)


def saved_records(path: Path, split: str, fields: Fields) -> ArrowRecords:
    """Records of a folder that `save_to_disk` wrote. `split` chooses where it has several."""
    import datasets

    try:
        with _quietly(offline=True):
            loaded: Any = datasets.load_from_disk(str(path))
    except Exception as error:  # for a damaged file the library raises errors of any type
        raise machine_error(error) or UserError(
            f"dataset folder {str(path)!r} cannot be read ({first_line(error)})"
        ) from error
    if isinstance(loaded, datasets.DatasetDict):
        splits: Any = loaded  # its declared type allows names that are not texts
        loaded, _ = _of_split(splits, {}, split, str(path))
    _refuse_damaged(loaded, str(path))
    files = [Path(file["filename"]) for file in loaded.cache_files]

    def identity() -> Identity:
        named = {_below(path, file): content_hash(file) for file in files}
        return {"files": named, "split": split, "rows": len(loaded)}

    return ArrowRecords(loaded, fields, str(path), identity)


def _refuse_damaged(dataset: "datasets.Dataset", source: str) -> None:
    """Raises UserError for a memory-mapped table with wrong offsets. Arrow trusts a file's offsets,
    and reading by wrong ones crashes the process."""
    import pyarrow as pa

    table = dataset.data.table
    # Every column whose values have offsets; numbers have none.
    names = [one.name for one in table.schema if not pa.types.is_primitive(one.type)]
    try:
        table.select(names).validate(full=True)
    except (pa.ArrowException, IndexError) as error:
        raise UserError(
            f"dataset folder {source!r} is damaged ({first_line(error)})", hint="save it again"
        ) from error


def loaded_records(
    dataset: "datasets.Dataset | datasets.IterableDataset | Iterable[Mapping[str, Any]]",
    fields: Fields,
    source: str,
) -> Records:
    """Records of a data set that the caller has loaded."""
    import datasets

    if isinstance(dataset, datasets.Dataset):
        rows, mark = len(dataset), dataset._fingerprint
        return ArrowRecords(dataset, fields, source, lambda: {"rows": rows, "mark": mark})
    if isinstance(dataset, datasets.IterableDataset):
        info = dataset.info
        identity = {"name": info.dataset_name, "config": info.config_name}
        return StreamedRecords(dataset, fields, source, identity)
    return ListedRecords(dataset, fields, source)


def _of_split(
    splits: Mapping[str, Any], sizes: Mapping[str, int | None], split: str, source: str
) -> tuple[Any, int | None]:
    """The data set of `split` (names joined by +, each perhaps with a slice, or `all`) and how many
    rows it has; `sizes` are those of streams, where known."""
    import datasets

    lengths: dict[str, int] = {}
    for name, dataset in splits.items():
        size = len(dataset) if isinstance(dataset, datasets.Dataset) else sizes.get(name)
        if size is None and needs_lengths(split):
            raise UserError(
                f"split {split!r} of dataset {source!r} depends on its length, which a stream does "
                "not have",
                hint="give row numbers (train[:1000]), or leave out --streaming",
            )
        lengths[name] = _NO_END if size is None else size
    wanted = "+".join(splits) if split == "all" else split
    try:
        parts = datasets.ReadInstruction.from_spec(wanted).to_absolute(lengths)
    except (ValueError, AssertionError) as error:
        raise no_split(source, split, list(splits)) from error
    chosen = [_cut(splits[one.splitname], one.from_, one.to) for one in parts]
    rows = sum(one.to - one.from_ for one in parts)
    whole = chosen[0] if len(chosen) == 1 else datasets.concatenate_datasets(chosen)
    return whole, rows if rows < _NO_END // 2 else None


def _cut(dataset: Any, start: int, stop: int) -> Any:
    """Rows [start, stop) of a data set."""
    import datasets

    if isinstance(dataset, datasets.Dataset):
        return dataset.select(range(start, stop))
    dataset = dataset.skip(start) if start else dataset
    return dataset if stop >= _NO_END else dataset.take(stop - start)


def _below(folder: Path, file: Path) -> str:
    """A file's path within its folder, which is the same on every machine."""
    return file.resolve().relative_to(folder.resolve()).as_posix()


@contextmanager
def _quietly(*, offline: bool) -> Iterator[None]:
    """Inside the block `datasets` shows no progress bars; `offline` limits it to its cache, without
    retrying the network."""
    import datasets
    import datasets.config

    before = datasets.config.HF_HUB_OFFLINE
    bars = not datasets.are_progress_bars_disabled()
    datasets.config.HF_HUB_OFFLINE = before or offline
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = before
        if bars:
            datasets.enable_progress_bars()
