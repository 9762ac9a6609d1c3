"""Files and folders appear whole or not at all; ids are names and unique."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mi_crow.causes import sentence_of
from mi_crow.errors import CorruptDataError, NotFoundError, UserError
from mi_crow.store.atomic import (
    read_json,
    remove_stale,
    whole_file,
    whole_folder,
    write_bytes,
    write_json,
)
from mi_crow.store.ids import make_folder, timestamp_id, validate_id
from mi_crow.store.notes import read_note, write_note


@pytest.mark.parametrize("whole", [whole_file, whole_folder])
def test_a_full_disk_is_named_by_the_folder_that_is_written(tmp_path: Path, whole: Any) -> None:
    """What is exported or kept for the next start need not be on the disk of the workspace."""
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(OSError, match="No space"), whole(tmp_path / "page"):
        raise full
    assert f"the disk of '{tmp_path}' is full" in sentence_of(full)


class Crash(Exception):
    """Stands for whatever ends a writer."""


def test_a_failed_write_leaves_the_old_file_and_no_trace(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_bytes(path, b"old")

    def crash() -> None:
        with whole_file(path) as temporary:
            temporary.write_bytes(b"half")
            raise Crash

    with pytest.raises(Crash):
        crash()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_file_is_not_seen_before_it_is_whole(tmp_path: Path) -> None:
    with whole_file(tmp_path / "deep" / "file.json") as temporary:
        temporary.write_bytes(b"x")
        assert temporary.suffix == ".json"
        assert not (tmp_path / "deep" / "file.json").exists()
    assert (tmp_path / "deep" / "file.json").read_bytes() == b"x"


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "folder"

    def crash() -> None:
        with whole_folder(target) as temporary:
            (temporary / "a").touch()
            raise Crash

    with pytest.raises(Crash):
        crash()
    assert os.listdir(tmp_path) == []
    with whole_folder(target) as temporary:
        (temporary / "deep").mkdir()
        (temporary / "deep" / "a").write_text("x")
        assert not target.exists()
    assert (target / "deep" / "a").read_text() == "x"


@pytest.mark.parametrize("content", [[], ["theirs"]])
def test_a_folder_that_exists_is_never_replaced(tmp_path: Path, content: list[str]) -> None:
    target = tmp_path / "folder"
    target.mkdir()
    for name in content:
        (target / name).touch()
    with pytest.raises(FileExistsError), whole_folder(target) as temporary:
        (temporary / "ours").touch()
    assert os.listdir(target) == content
    assert os.listdir(tmp_path) == ["folder"]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@settings(deadline=None, max_examples=30)
@given(value=VALUES)
def test_json_comes_back(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    path = tmp_path_factory.mktemp("json") / "value.json"
    write_json(path, value)
    assert read_json(path) == value


def test_reading_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no file"):
        read_json(tmp_path / "none.json")
    for content in (b"{", b"\xff\xfe{", b""):
        (tmp_path / "bad.json").write_bytes(content)
        with pytest.raises(CorruptDataError, match="not valid JSON"):
            read_json(tmp_path / "bad.json")


def test_stale_leftovers_go_and_links_are_not_followed(tmp_path: Path) -> None:
    folder, outside = tmp_path / "folder", tmp_path / "outside"
    folder.mkdir()
    outside.mkdir()
    (outside / "precious").touch()
    (folder / ".tmp-file").touch()
    (folder / ".tmp-dir").mkdir()
    (folder / ".tmp-dir" / "x").touch()
    (folder / ".tmp-link").symlink_to(outside)
    (folder / "keep").touch()
    remove_stale(folder)
    assert os.listdir(folder) == ["keep"]
    assert (outside / "precious").exists()


@given(st.text())
def test_every_accepted_id_is_a_plain_folder_name(text: str) -> None:
    try:
        validate_id(text, "run")
    except UserError:
        return
    assert Path(text).name == text
    assert text not in (".", "..")
    assert text.isascii()


@given(st.text())
def test_every_made_id_is_accepted(short: str) -> None:
    made = timestamp_id(short)
    assert validate_id(made, "run") == made
    assert len(made) <= 60


def test_made_folders_are_exclusive(tmp_path: Path) -> None:
    made = [make_folder(tmp_path / "runs", None, "x", "run") for _ in range(4)]
    assert len({folder.name for folder in made}) == 4
    assert make_folder(tmp_path / "runs", "mine", "x", "run").name == "mine"
    with pytest.raises(UserError, match="run 'mine' exists already"):
        make_folder(tmp_path / "runs", "mine", "x", "run")


def test_a_note_is_written_read_and_removed(tmp_path: Path) -> None:
    assert read_note(tmp_path) == ""
    write_note(tmp_path, "  look at feature 7 again\n")
    assert read_note(tmp_path) == "look at feature 7 again"
    write_note(tmp_path, " ")
    assert os.listdir(tmp_path) == []


def test_files_are_as_readable_as_plain_ones_whoever_wrote_them(tmp_path: Path) -> None:
    """safetensors makes its files readable for their owner alone."""
    plain = tmp_path / "plain"
    plain.write_bytes(b"")
    with whole_file(tmp_path / "file") as temporary:
        temporary.touch(mode=0o600)
    with whole_folder(tmp_path / "folder") as folder:
        (folder / "inner").touch(mode=0o600)
    modes = {path.stat().st_mode for path in (tmp_path / "file", tmp_path / "folder" / "inner")}
    assert modes == {plain.stat().st_mode}
