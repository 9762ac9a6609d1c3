"""What the system refuses is told by its cause, whichever library met it."""

import errno
import os
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

from mi_crow.causes import cause_of, explained, machine_error, sentence_of
from mi_crow.errors import CorruptDataError, MachineError, UserError
from mi_crow.store.atomic import temporary_name

CODES = {
    errno.ENOMEM: "out of memory",
    errno.ENOSPC: "is full",
    errno.EDQUOT: "quota",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.EMFILE: "too many open files",
    errno.EIO: "input/output error",
    errno.EROFS: "read-only file system",
}


def as_rust(code: int) -> Exception:
    return RuntimeError(f"I/O error: {os.strerror(code)} (os error {code})")


def as_duckdb(code: int) -> Exception:
    return duckdb.IOException(f'IO Error: Could not write file "/w/x": {os.strerror(code)}')


def as_torch(code: int) -> Exception:
    return RuntimeError(f"unable to mmap 4 bytes from file </w/x>: {os.strerror(code)} ({code})")


def as_arrow(code: int) -> Exception:
    return pa.ArrowException(f"[Errno {code}] Failed. Detail: [errno {code}] something")


def as_wrapped(code: int) -> Exception:
    try:
        try:
            raise OSError(code, os.strerror(code), "/w/x")
        except OSError as error:
            raise ValueError("the header could not be read") from error
    except ValueError as outer:
        return outer


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("made", [as_rust, as_duckdb, as_torch, as_arrow, as_wrapped])
def test_every_library_s_error_says_its_cause_and_what_to_do(made: object, code: int) -> None:
    told = machine_error(made(code), "/w/part")  # type: ignore[operator]
    assert told is not None
    assert CODES[code] in str(told)
    assert "'/w/part'" in str(told)
    assert told.hint
    assert not any(word in told.sentence for word in ("damaged", "capture", "package"))


def test_what_the_system_did_not_refuse_stays_what_it_was() -> None:
    plain = ValueError("k must be positive")
    assert cause_of(plain) is None
    assert explained(plain) is plain
    damaged = CorruptDataError("x is damaged")
    damaged.__cause__ = OSError(errno.EACCES, "Permission denied")
    assert explained(damaged) is damaged
    assert sentence_of(UserError("no", hint="yes")) == "no; yes"


def test_a_system_error_without_a_sentence_of_its_own_has_no_number(tmp_path: Path):
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(NotADirectoryError) as raised:
        (file / "folder").mkdir()
    assert sentence_of(raised.value) == f"'{file}/folder' cannot be used (not a directory)"
    assert sentence_of(OSError(errno.EBUSY, "Device or resource busy")) == "device or resource busy"
    assert sentence_of(OSError(errno.EBADF, "Bad file descriptor", 7)) == "bad file descriptor"
    assert sentence_of(OSError("no such thing")) == "no such thing"
    # What was tried first and answered otherwise is not why it failed then.
    later = ValueError("not JSON")
    later.__context__ = FileNotFoundError(errno.ENOENT, "No such file", "/w/x")
    assert cause_of(later) is None


def test_sqlite_s_own_numbers_are_understood(tmp_path: Path) -> None:
    database = sqlite3.connect(tmp_path / "a.sqlite")
    database.execute("CREATE TABLE a (b TEXT)")
    database.execute("PRAGMA max_page_count=3")
    with pytest.raises(sqlite3.OperationalError) as caught:
        database.execute("INSERT INTO a VALUES (?)", ["x" * 100_000])
    assert cause_of(caught.value) == errno.ENOSPC
    database.close()


def in_child(program: str, folder: Path) -> list[str]:
    """The lines that a program prints, in a process whose limits it may lower for good."""
    done = subprocess.run(
        [sys.executable, "-c", _PRELUDE + textwrap.dedent(program), str(folder)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


_PRELUDE = """
import os, resource, sys
from pathlib import Path
from mi_crow.causes import sentence_of
folder = Path(sys.argv[1])

def say(*calls):
    for call in calls:
        try:
            call()
            print("it worked")
        except Exception as error:
            print(f"{type(error).__name__}: {sentence_of(error)}")
"""


@pytest.fixture
def part(tmp_path: Path) -> Path:
    """A folder with a part's two files, weights and a database."""
    save_file({"activations": torch.zeros(30_000_000)}, tmp_path / "a.safetensors")
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "a.parquet")
    torch.save({"W": torch.zeros(4)}, tmp_path / "a.pt")
    duckdb.connect(str(tmp_path / "features.duckdb")).close()
    (tmp_path / "a.safetensors").chmod(0o644)
    return tmp_path


@pytest.mark.slow
def test_mapping_rows_without_memory_is_not_told_as_damage(part: Path) -> None:
    said = in_child(
        """
        from mi_crow.store.runs.layer_file import LayerFile
        from mi_crow.mechanistic.sae.formats.tensor_files import read_safetensors
        file = LayerFile(folder / "a.safetensors")
        size = int(Path("/proc/self/statm").read_text().split()[0]) * 4096
        resource.setrlimit(resource.RLIMIT_AS, (size + (20 << 20),) * 2)
        say(
            lambda: file.tensor("activations"),
            lambda: file.read("activations"),
            lambda: read_safetensors(folder / "a.safetensors"),
        )
        """,
        part,
    )
    assert len(said) == 3
    for line in said:
        assert "out of memory" in line
        assert "damaged" not in line
        assert "capture" not in line


@pytest.mark.slow
def test_too_many_open_files_is_not_told_as_damage(part: Path) -> None:
    said = in_child(
        """
        import torch
        from mi_crow.store.runs.layer_file import LayerFile
        from mi_crow.mechanistic.sae.formats.tensor_files import read_safetensors, read_torch
        from mi_crow.mechanistic.features.connection import connect
        from mi_crow.mechanistic.features.similar import DecoderRows
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
        say(
            lambda: LayerFile(folder / "a.safetensors"),
            lambda: read_safetensors(folder / "a.safetensors"),
        )
        """,
        part,
    )
    assert len(said) == 2
    for line in said:
        assert line.startswith("MachineError: too many open files")
        assert "ulimit -n" in line


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_what_may_not_be_read_is_told_as_that(part: Path) -> None:
    for file in part.iterdir():
        file.chmod(0)
    for folder in (part, *part.parents):
        if folder.owner() == "root" and not folder.stat().st_mode & 0o001:
            folder.chmod(folder.stat().st_mode | 0o011)
    said = in_child(
        """
        import pyarrow.parquet
        from mi_crow.store.runs.layer_file import LayerFile
        from mi_crow.mechanistic.sae.formats.tensor_files import read_safetensors, read_torch
        from mi_crow.mechanistic.features.similar import DecoderRows
        os.setgid(65534)
        os.setuid(65534)
        say(
            lambda: LayerFile(folder / "a.safetensors"),
            lambda: read_safetensors(folder / "a.safetensors"),
            lambda: read_torch(folder / "a.pt"),
            lambda: pyarrow.parquet.ParquetFile(folder / "a.parquet"),
        )
        """,
        part,
    )
    assert len(said) == 4
    for line in said:
        assert "permission denied" in line
        assert "damaged" not in line
        assert "not a whole" not in line


def test_safetensors_calls_a_refused_file_missing_and_is_asked_again(tmp_path: Path) -> None:
    missing = tmp_path / "gone.safetensors"
    with pytest.raises(FileNotFoundError) as caught:
        load_file(missing)
    assert machine_error(caught.value, missing) is None
    told = machine_error(caught.value, missing, tell_missing=True)
    assert isinstance(told, MachineError)
    assert "is missing" in str(told)


def test_a_temporary_file_is_named_as_what_it_was_to_become(tmp_path):
    error = OSError(errno.ENOSPC, "No space left", str(temporary_name(tmp_path / "note.txt")))
    assert sentence_of(error) == f"the disk of '{tmp_path}/note.txt' is full; free some space there"
