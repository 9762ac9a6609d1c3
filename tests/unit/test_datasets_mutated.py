"""Damaged data-set files: read or refused in a sentence, never a traceback."""

import gzip
import json
from pathlib import Path
from random import Random

import datasets
import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from mi_crow.datasets import load_texts
from mi_crow.errors import MiCrowError
from mi_crow.jobs.checks import check_dataset
from mi_crow.language_model.config import DatasetSpec

ROWS = [{"text": f"The ship {n} leaves.", "label": "a"} for n in range(12)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
PIECES = [b'"', b"{", b"[", b"\x00", b"\xff", b"nan", b"9" * 400, b"\\ud83d", b"\n", b'"text":']


def whole_files(folder: Path) -> dict[str, bytes]:
    pl.DataFrame(ROWS).write_parquet(folder / "s.parquet")
    with pa.output_stream(str(folder / "s.zst"), compression="zstd") as file:
        file.write(LINES)
    return {
        "a.jsonl": LINES,
        "b.json": json.dumps(ROWS).encode(),
        "c.csv": b"text,label\n" + b"".join(b'"ship %d",a\n' % n for n in range(12)),
        "d.txt": b"one\n\ntwo\n\nthree",
        "e.jsonl.gz": gzip.compress(LINES),
        "f.jsonl.zst": (folder / "s.zst").read_bytes(),
        "g.parquet": (folder / "s.parquet").read_bytes(),
    } | saved_folder(folder)


def saved_folder(folder: Path) -> dict[str, bytes]:
    """The files of a data set that Hugging Face `datasets` saved."""
    datasets.Dataset.from_list(ROWS).save_to_disk(folder / "saved")
    paths = sorted((folder / "saved").iterdir())
    return {f"saved/{path.name}": path.read_bytes() for path in paths}


def mutated(data: bytes, random: Random) -> bytes:
    for _ in range(random.randint(1, 6)):
        at = random.randrange(max(1, len(data)))
        middle, rest = random.choice(
            [
                (bytes([random.randrange(256)]), data[at + 1 :]),
                (b"", data[at + random.randint(1, 30) :]),
                (random.choice(PIECES), data[at:]),
                (b"", b""),
            ]
        )
        data = data[:at] + middle + rest
    return data


@pytest.mark.parametrize("count", [100, pytest.param(400, marks=pytest.mark.slow)])
def test_no_mutated_file_ends_in_a_traceback(tmp_path: Path, count: int) -> None:
    files, random = whole_files(tmp_path), Random(count)
    for _ in range(count):
        name = random.choice(list(files))
        path = tmp_path / name
        path.write_bytes(mutated(files[name], random))
        spec = DatasetSpec(str(path.parent if path.parent != tmp_path else path))
        try:
            check_dataset(spec)
            list(load_texts(spec).rows())
        except MiCrowError as error:
            assert str(error)  # noqa: PT017
        path.write_bytes(files[name])


def test_texts_that_lie_where_they_cannot_are_refused_and_do_not_end_the_process(
    tmp_path: Path,
) -> None:
    name, whole = next(
        (name, data) for name, data in saved_folder(tmp_path).items() if name.endswith(".arrow")
    )
    ends = np.cumsum([len(row["text"]) for row in ROWS], dtype=np.int32).tobytes()
    assert ends in whole
    wrong = (np.frombuffer(ends, np.int32) + 2**30).tobytes()
    (tmp_path / name).write_bytes(whole.replace(ends, wrong))
    spec = DatasetSpec(str(tmp_path / "saved"))
    with pytest.raises(MiCrowError, match="is damaged"):
        list(load_texts(spec).rows())
