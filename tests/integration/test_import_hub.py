"""`mi-crow import` from the hub: it asks for what it needs and for nothing else."""

import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from mi_crow.store.workspace import Workspace
from tests.helpers.fake_hub import COMMIT, FakeHub
from tests.helpers.local_server import served
from tests.helpers.sae_files import MAKERS, write_json, write_sparsify

pytestmark = pytest.mark.slow


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[FakeHub]:
    with served(FakeHub(tmp_path / "hub")) as server:
        yield server


def surroundings(tmp_path: Path, hub: str) -> dict[str, str]:
    return {
        **os.environ,
        "HF_ENDPOINT": hub,
        "HF_HUB_OFFLINE": "0",
        "HF_HOME": str(tmp_path / "home"),
        "MI_CROW_WORKSPACE": str(tmp_path / "w"),
        "OMP_NUM_THREADS": "1",
    }


def command_of(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "mi_crow", *arguments, "--json"]


def run(
    tmp_path: Path, hub: FakeHub | str, *arguments: str, command: str = "import"
) -> "subprocess.CompletedProcess[str]":
    around = surroundings(tmp_path, hub if isinstance(hub, str) else hub.url)
    words = command_of(command, *arguments)
    return subprocess.run(words, capture_output=True, text=True, env=around, timeout=120)


def test_only_the_files_of_one_sae_are_fetched_and_then_kept(tmp_path: Path, hub: FakeHub) -> None:
    repository = tmp_path / "hub/org/run"
    for name in ("layers.1", "layers.2"):
        write_sparsify(repository / name)
    write_json(repository / "config.json", {"model": "org/model"})
    (repository / "optimizer.pt").write_bytes(b"0" * 1000)
    several = run(tmp_path, hub, "org/run")
    assert several.returncode == 2
    assert "layers.1, layers.2" in json.loads(several.stderr)["hint"]
    assert hub.fetched == []
    done = run(tmp_path, hub, "org/run", "--layer", "layers.2")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["sae_id"], found["layer"]) == ("run-layers.2", "resid_post.2")
    assert (found["source"], found["model"]) == ("org/run/layers.2", "org/model")
    assert sorted(hub.fetched) == ["config.json", "layers.2/cfg.json", "layers.2/sae.safetensors"]
    own = json.loads((tmp_path / "w/saes/run-layers.2/cfg.json").read_text())["metadata"]["mi_crow"]
    assert own["source_revision"] == COMMIT
    before = list(hub.fetched)
    again = run(tmp_path, hub, "org/run/layers.2", "--offline", "--name", "again")
    assert again.returncode == 0, again.stderr
    assert hub.fetched == before


def test_what_the_hub_does_not_have_is_said(tmp_path: Path, hub: FakeHub) -> None:
    MAKERS["openai_relu"](tmp_path / "hub/org/openai")
    done = run(tmp_path, hub, "org/absent")
    assert done.returncode == 2
    assert "not on the hub" in json.loads(done.stderr)["error"]
    assert not (tmp_path / "w").exists()


def test_a_download_that_breaks_off_goes_on_where_it_stopped(tmp_path: Path, hub: FakeHub) -> None:
    write_sparsify(tmp_path / "hub/org/run/layers.1")
    hub.cuts = 1
    done = run(tmp_path, hub, "org/run")
    assert done.returncode == 0, done.stderr
    assert hub.fetched.count("layers.1/sae.safetensors") == 2


def parts(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "home/hub").glob("models--*/blobs/*.incomplete"))


def kill_in_the_middle(tmp_path: Path, hub: FakeHub, stop: int) -> None:
    """Kills an import of org/run when it has `stop` bytes of the weights."""
    hub.stopped = stop
    with subprocess.Popen(
        command_of("import", "org/run"),
        env=surroundings(tmp_path, hub.url),
        stdout=subprocess.DEVNULL,
    ) as process:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and process.poll() is None:
            if [one.stat().st_size for one in parts(tmp_path)] == [stop]:
                break
            time.sleep(0.05)
        process.kill()
    hub.stopped = 0


def write_large(repository: Path) -> None:
    """An SAE with 12 MB of weights."""
    inputs, latents = 64, 24_000
    tensors = {
        "encoder.weight": torch.full((latents, inputs), 0.1),
        "encoder.bias": torch.zeros(latents),
        "W_dec": torch.full((latents, inputs), 0.1),
        "b_dec": torch.zeros(inputs),
    }
    write_sparsify(repository / "layers.1", tensors=tensors, d_in=inputs, num_latents=latents)


@pytest.mark.parametrize("names_sums", [True, False], ids=["sha256", "etag"])
def test_a_killed_download_goes_on_and_leaves_nothing(
    tmp_path: Path, hub: FakeHub, names_sums: bool
) -> None:
    write_large(tmp_path / "hub/org/run")
    hub.names_sums = names_sums
    stop = 10 * 2**20  # the Hub's client writes after so many
    kill_in_the_middle(tmp_path, hub, stop)
    (part,) = parts(tmp_path)
    other = part.with_name(f"{part.stem}.0a1b2c3d.incomplete")  # as the Hub's client leaves them
    other.write_bytes(b"0")
    done = run(tmp_path, hub, "org/run")
    assert done.returncode == 0, done.stderr
    assert hub.ranges == ["all", f"bytes={stop}-"]
    assert parts(tmp_path) == []


def test_what_is_too_large_for_one_request_comes_in_ranges(tmp_path: Path, hub: FakeHub) -> None:
    write_large(tmp_path / "hub/org/run")
    small = (
        "import sys; from huggingface_hub import constants; "
        "constants.MAX_HTTP_DOWNLOAD_SIZE = 10**7; "
        "from mi_crow.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", small, "import", "org/run", "--json"],
        capture_output=True,
        text=True,
        env=surroundings(tmp_path, hub.url),
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    first = 8 * 2**20
    assert hub.ranges == [f"bytes=0-{first - 1}", f"bytes={first}-"]


def test_doctor_removes_downloads_that_nobody_goes_on_with(tmp_path: Path, hub: FakeHub) -> None:
    blobs = tmp_path / "home/hub/models--org--run/blobs"
    blobs.mkdir(parents=True)
    lock = tmp_path / "home/hub/.locks/models--org--run/ab.lock"
    lock.parent.mkdir(parents=True)
    for name in ("ab.incomplete", "cd.incomplete", "cd.01234567.incomplete"):
        (blobs / name).write_bytes(b"0")
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        Workspace(tmp_path / "w").ensure()
        done = run(tmp_path, hub, "--clean", command="doctor")
    assert "removed 2 leftovers" in done.stdout, done.stderr
    assert [one.name for one in parts(tmp_path)] == ["ab.incomplete"]


def test_a_part_in_the_cache_is_not_blamed_on_the_repository(tmp_path: Path, hub: FakeHub) -> None:
    write_sparsify(tmp_path / "hub/org/run/layers.1")
    hub.cuts = 100
    broken = run(tmp_path, hub, "org/run")
    assert broken.returncode == 2
    said = json.loads(broken.stderr)
    assert "the download of SAE 'org/run' broke off" in said["error"]
    assert said["hint"] == "run it again: it goes on where it stopped"
    for where, arguments in (("http://127.0.0.1:9", ()), (hub, ("--offline",))):
        absent = run(tmp_path, where, "org/run", *arguments)
        assert absent.returncode == 2
        said = json.loads(absent.stderr)["error"]
        assert said.startswith(
            "the hub is not asked when offline" if arguments else "the hub was not reached"
        )
        assert "its local cache of 'org/run' holds only a part (cfg.json, but no" in said


def test_a_file_that_was_changed_on_its_way_is_refused(tmp_path: Path, hub: FakeHub) -> None:
    write_sparsify(tmp_path / "hub/org/run/layers.1")
    hub.change = True
    refused = run(tmp_path, hub, "org/run")
    assert refused.returncode != 0
    assert "its sha256 is not the hub's" in json.loads(refused.stderr)["error"]
    assert not (tmp_path / "w/saes").exists() or not any((tmp_path / "w/saes").iterdir())
    hub.change = False
    done = run(tmp_path, hub, "org/run")  # nothing of the damaged file was kept
    assert done.returncode == 0, done.stderr


def test_a_gated_repository_says_how_to_get_in(tmp_path: Path, hub: FakeHub) -> None:
    write_sparsify(tmp_path / "hub/org/run/layers.1")
    hub.gated = True
    refused = run(tmp_path, hub, "org/run")
    assert refused.returncode == 2
    said = json.loads(refused.stderr)
    assert "is gated" in said["error"]
    assert "hf auth login" in said["hint"]
