"""Leftovers of killed writers are found and removed; what somebody still writes is not."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from mi_crow.cli import main
from mi_crow.mechanistic.sae import TopKSae
from mi_crow.mechanistic.sae.formats.exporting import export_sae
from mi_crow.store import Workspace
from mi_crow.store.atomic import temporary_name, whole_file, whole_folder
from mi_crow.store.leftovers import leftovers


def killed(work: Callable[[], None]) -> None:
    """Does `work`, which kills its process, in a child."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def die_in_folder(target: Path, size: int = 5000) -> None:
    with whole_folder(target) as folder:
        (folder / "sae_weights.safetensors").write_bytes(b"x" * size)
        os.kill(os.getpid(), signal.SIGKILL)


def die_in_file(target: Path) -> None:
    with whole_file(target) as path:
        path.write_bytes(b"x" * 70)
        os.kill(os.getpid(), signal.SIGKILL)


def doctor(workspace: Workspace, capsys: pytest.CaptureFixture[str], *flags: str) -> list[dict]:
    assert main(["doctor", *flags, "--json", "--workspace", str(workspace.root)]) == 0
    return json.loads(capsys.readouterr().out)["checks"]


def test_the_doctor_removes_what_killed_writers_left(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    killed(lambda: die_in_folder(workspace.saes_dir / "sae"))
    killed(lambda: die_in_file(workspace.activations_dir / "run" / "tokens" / "part.parquet"))
    (workspace.root / "jobs").mkdir(exist_ok=True)
    (workspace.root / "jobs" / ".tmp-0123456789ab-old").mkdir()  # of a former version
    found = list(leftovers(workspace.root))
    assert sorted(one.bytes for one in found) == [0, 70, 5000]
    with whole_folder(workspace.saes_dir / "live") as live:
        (live / "x").write_bytes(b"x")
        assert list(leftovers(workspace.root)) == found
        (said,) = doctor(workspace, capsys, "--clean")
        assert "removed 3 leftovers" in said["found"]
        assert live.is_dir()
    assert (workspace.saes_dir / "live" / "x").exists()
    assert list(workspace.root.rglob(".tmp-*")) == []
    assert doctor(workspace, capsys, "--clean")[0]["found"] == "nothing to remove"


def test_another_machine_s_writer_is_left_alone_until_its_file_is_old(
    workspace: Workspace,
) -> None:
    name = temporary_name(workspace.root / "x").name
    host = name.removeprefix(".tmp-")[:6]
    theirs = workspace.root / name.replace(host, "ffffff" if host != "ffffff" else "eeeeee")
    theirs.write_bytes(b"x")
    assert list(leftovers(workspace.root)) == []
    os.utime(theirs, (1.0, 1.0))
    assert [one.path for one in leftovers(workspace.root)] == [theirs]


def test_the_next_export_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    source, target = tmp_path / "sae", tmp_path / "out" / "copy"
    TopKSae(n_latents=32, n_inputs=8, k=4, device="cpu").save(source)
    killed(lambda: die_in_folder(target))
    other = tmp_path / "out" / ".tmp-of-somebody-else"
    other.mkdir()
    assert len(list(target.parent.iterdir())) == 2
    export_sae(source, target)
    assert sorted(entry.name for entry in target.parent.iterdir()) == [other.name, "copy"]


def test_the_next_import_removes_what_a_killed_one_left(
    workspace: Workspace, tmp_path: Path
) -> None:
    source = tmp_path / "sae"
    TopKSae(n_latents=32, n_inputs=8, k=4, device="cpu").save(source)
    killed(lambda: die_in_folder(workspace.saes_dir / "other"))
    root = str(workspace.root)
    flags = ["--name", "mine", "--layer", "resid_post.1", "--json", "--workspace", root]
    assert main(["import", str(source), *flags]) == 0
    assert [entry.name for entry in workspace.saes_dir.iterdir()] == ["mine"]
