"""Annotations that cannot be written are read; those that are replaced or removed are noticed."""

import contextlib
import os
import shutil
import sqlite3
from pathlib import Path

import pytest

from mi_crow.cli import main
from mi_crow.errors import NotFoundError, UserError
from mi_crow.mechanistic.concepts.annotations import Annotations
from mi_crow.store.workspace import Workspace
from tests.helpers.other_user import as_colleague, give_away, needs_root, read_only, small_disk


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    made = Workspace.open(tmp_path / "ws")
    annotations = Annotations(made.annotations_path)
    annotations.set_concept("sae", 7, "sea")
    annotations.close()
    return made


def names(annotations: Annotations) -> list[str]:
    return [concept.name for concept in annotations.concepts()]


def fill(disk: Path) -> None:
    with contextlib.suppress(OSError), (disk / "filler").open("wb", buffering=0) as filler:
        while True:
            filler.write(bytes(4096))


def test_a_read_only_workspace_is_read_and_says_that_tagging_is_off(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    with read_only(workspace.root):
        annotations = Annotations(workspace.annotations_path)
        assert names(annotations) == ["sea"]
        assert annotations.data_version() == annotations.data_version()
        assert annotations.read_only()
        with pytest.raises(UserError, match="nothing can be named or saved"):
            annotations.set_concept("sae", 7, "lake")
        assert main(["--workspace", str(workspace.root), "concepts", "list"]) == 0
        told = capsys.readouterr()
        assert "sea" in told.out
        assert "tagging is off" in told.err
    annotations.set_concept("sae", 8, "lake")  # as soon as it can be written
    assert names(annotations) == ["sea", "lake"]
    assert annotations.read_only() is None
    annotations.close()


def test_a_read_only_workspace_without_any_tag_says_so_too(tmp_path: Path) -> None:
    with read_only(Workspace.open(tmp_path / "ws").root):
        annotations = Annotations(tmp_path / "ws" / "annotations.sqlite")
        assert names(annotations) == []
        assert annotations.read_only()
        with pytest.raises(UserError, match="nothing can be named or saved"):
            annotations.set_concept("sae", 7, "lake")


def test_what_a_killed_colleague_had_not_yet_put_into_the_file_is_read(
    workspace: Workspace, tmp_path: Path
) -> None:
    writer = sqlite3.connect(workspace.annotations_path)
    if writer.execute("PRAGMA journal_mode=wal").fetchone()[0] != "wal":
        pytest.skip("no write-ahead log on this file system")
    writer.execute("UPDATE concepts SET name = 'ocean'")
    writer.commit()
    shutil.copytree(workspace.root, tmp_path / "left", ignore=lambda *_: ["annotations.sqlite-shm"])
    writer.close()
    with read_only(tmp_path / "left"):
        assert names(Annotations(tmp_path / "left" / "annotations.sqlite")) == ["ocean"]


def test_a_full_disk_is_read_and_tags_again_when_there_is_room(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a small disk")
    with small_disk(disk):
        annotations = Annotations(disk / "annotations.sqlite")
        annotations.set_concept("sae", 7, "sea")
        annotations.close()
        fill(disk)
        assert names(annotations) == ["sea"]
        assert annotations.read_only() == "the disk is full"
        with pytest.raises(UserError, match="the disk is full"):
            annotations.set_concept("sae", 8, "lake")
        (disk / "filler").unlink()
        annotations.set_concept("sae", 8, "lake")
        assert names(annotations) == ["sea", "lake"]
        annotations.close()


@needs_root
def test_a_colleagues_workspace_is_read_and_left_as_it_was(workspace: Workspace) -> None:
    give_away(workspace.root)
    workspace.root.chmod(0o777)  # SQLite would leave a log there that the colleague cannot write
    before = sorted(os.listdir(workspace.root))
    done = as_colleague("-m", "mi_crow", "--workspace", str(workspace.root), "concepts", "list")
    assert done.returncode == 0, done.stderr
    assert "sea" in done.stdout
    assert "tagging is off" in done.stderr
    assert sorted(os.listdir(workspace.root)) == before
    assert Annotations(workspace.annotations_path).concepts()  # and the owner goes on


def test_a_replaced_file_is_read_and_written_instead_of_the_old_one(
    workspace: Workspace, tmp_path: Path
) -> None:
    annotations = Annotations(workspace.annotations_path)
    assert names(annotations) == ["sea"]
    version = annotations.data_version()
    other = Annotations(tmp_path / "other.sqlite")
    other.set_concept("sae", 1, "mountain")
    other.close()
    os.replace(tmp_path / "other.sqlite", workspace.annotations_path)
    assert annotations.data_version() != version
    assert "replaced" in (annotations.take_notice() or "")
    assert annotations.take_notice() is None  # told once
    annotations.set_concept("sae", 2, "hill")
    assert names(Annotations(workspace.annotations_path)) == ["mountain", "hill"]
    annotations.close()


def test_a_folder_that_is_gone_is_not_made_again(workspace: Workspace, tmp_path: Path) -> None:
    annotations = Annotations(workspace.annotations_path)
    annotations.set_concept("sae", 8, "lake")
    away = workspace.root.rename(tmp_path / "away")
    with pytest.raises(NotFoundError, match="is gone"):
        annotations.set_concept("sae", 9, "river")
    assert not workspace.root.exists()
    away.rename(workspace.root)
    annotations.set_concept("sae", 9, "river")
    assert names(annotations) == ["sea", "lake", "river"]
    annotations.close()


def test_tags_after_the_file_was_removed_go_into_a_new_one(workspace: Workspace) -> None:
    annotations = Annotations(workspace.annotations_path)
    annotations.set_concept("sae", 8, "lake")
    version = annotations.data_version()
    for log in ("", "-wal", "-shm"):
        Path(f"{workspace.annotations_path}{log}").unlink(missing_ok=True)
    assert annotations.data_version() != version
    assert names(annotations) == []
    assert "removed" in (annotations.take_notice() or "")
    annotations.set_concept("sae", 9, "river")
    assert names(Annotations(workspace.annotations_path)) == ["river"]
    annotations.close()
