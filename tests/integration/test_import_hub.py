"""`mi-crow import` from the hub: it asks for what it needs and for nothing else."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha1, sha256
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from tests.helpers.local_server import Answers, LocalServer, served
from tests.helpers.sae_files import MAKERS, write_json, write_sparsify

pytestmark = pytest.mark.slow

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class FakeHub(LocalServer):
    """Serves the folders of `root` (org/name) as repositories, and remembers what was fetched."""

    def __init__(self, root: Path) -> None:
        super().__init__(_Answer)
        self.root = root
        self.fetched: list[str] = []
        self.gated = False
        self.cuts = 0  # so many answers of weights break off in the middle
        self.change = False  # weights arrive with another byte in them


class _Answer(Answers):
    server: FakeHub  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        path = unquote(urlsplit(self.path).path).strip("/")
        if not path:
            self._send(200, b"hub", body)
        elif path.startswith("api/models/"):
            self._describe(path.removeprefix("api/models/"), body)
        else:
            self._file(path, body)

    def _describe(self, path: str, body: bool) -> None:
        repository = "/".join(path.split("/")[:2])
        root = self.server.root / repository
        if not root.is_dir():
            self._send(404, b"{}", body, {"X-Error-Code": "RepoNotFound"})
            return
        files = sorted(file for file in root.rglob("*") if file.is_file())
        siblings = [
            {"rfilename": file.relative_to(root).as_posix(), "size": file.stat().st_size}
            | _in_lfs(file)
            for file in files
        ]
        answer = {"id": repository, "sha": COMMIT, "siblings": siblings, "tags": []}
        self._send(200, json.dumps(answer).encode(), body, {"Content-Type": "application/json"})

    def _file(self, path: str, body: bool) -> None:
        repository, _, rest = path.partition("/resolve/")
        file = self.server.root / repository / rest.partition("/")[2]
        if not file.is_file():
            self._send(404, b"", body, {"X-Error-Code": "EntryNotFound"})
            return
        if self.server.gated:
            self._send(403, b"", body, {"X-Error-Code": "GatedRepo"})
            return
        data, large = file.read_bytes(), file.suffix == ".safetensors"
        tag = sha256(data).hexdigest() if large else sha1(data).hexdigest()
        if body:
            self.server.fetched.append(file.relative_to(self.server.root / repository).as_posix())
        headers = {"ETag": f'"{tag}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if large and self.server.change:
            data = bytes([data[0] ^ 1]) + data[1:]
        start = int((self.headers.get("Range") or "bytes=0-")[6:].partition("-")[0])
        if large and body and self.server.cuts:
            self.server.cuts -= 1
            self._send(200, data, body, headers, stop=len(data) // 2)
            return
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        self._send(206 if start else 200, data[start:], body, headers)

    def _send(
        self,
        status: int,
        data: bytes,
        body: bool,
        headers: dict[str, str] | None = None,
        stop: int | None = None,
    ) -> None:
        self.send_head(status, len(data), headers)
        if body:
            self.wfile.write(data[:stop])
        if stop is not None:
            self.close_connection = True


def _in_lfs(file: Path) -> dict[str, Any]:
    if file.suffix != ".safetensors":
        return {}
    size = file.stat().st_size
    return {
        "lfs": {"sha256": sha256(file.read_bytes()).hexdigest(), "size": size, "pointerSize": 9}
    }


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[FakeHub]:
    with served(FakeHub(tmp_path / "hub")) as server:
        yield server


def run(tmp_path: Path, hub: FakeHub, *arguments: str) -> "subprocess.CompletedProcess[str]":
    surroundings = {
        **os.environ,
        "HF_ENDPOINT": hub.url,
        "HF_HUB_OFFLINE": "0",
        "HF_HOME": str(tmp_path / "home"),
        "MI_CROW_WORKSPACE": str(tmp_path / "w"),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "mi_crow", "import", *arguments, "--json"]
    return subprocess.run(command, capture_output=True, text=True, env=surroundings, timeout=120)


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
