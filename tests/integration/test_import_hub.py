"""`mi-crow import` from the hub: it asks for what it needs and for nothing else."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from tests.helpers.sae_files import MAKERS, write_json, write_sparsify

pytestmark = pytest.mark.slow

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class FakeHub(ThreadingHTTPServer):
    """Serves the folders of `root` (org/name) as repositories, and remembers what was fetched."""

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.root = root
        self.fetched: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Answer(BaseHTTPRequestHandler):
    server: FakeHub  # pyright: ignore[reportIncompatibleVariableOverride]

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""

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
        data = file.read_bytes()
        if body:
            self.server.fetched.append(file.relative_to(self.server.root / repository).as_posix())
        headers = {"ETag": f'"{sha1(data).hexdigest()}"', "X-Repo-Commit": COMMIT}
        self._send(200, data, body, headers)

    def _send(
        self, status: int, data: bytes, body: bool, headers: dict[str, str] | None = None
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body:
            self.wfile.write(data)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[FakeHub]:
    server = FakeHub(tmp_path / "hub")
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


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
