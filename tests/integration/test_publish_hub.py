"""`mi-crow publish` against a hub that speaks the upload protocol."""

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mi_crow.mechanistic.concepts.annotations import Annotations
from mi_crow.mechanistic.sae import TopKSae
from mi_crow.store.workspace import Workspace
from tests.helpers.local_server import Answers, LocalServer, served

pytestmark = pytest.mark.slow


class UploadHub(LocalServer):
    """Keeps what is committed; refuses everybody where `refuses`."""

    def __init__(self) -> None:
        super().__init__(_Answer)
        self.files: dict[str, bytes] = {}
        self.made: dict[str, Any] = {}
        self.refuses = False


class _Answer(Answers):
    server: UploadHub  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_GET(self) -> None:
        self._send({"id": "org/name", "sha": "0" * 40, "siblings": [], "tags": []})

    def do_POST(self) -> None:
        body = self.body()
        if self.server.refuses:
            self._send({"error": "Unauthorized"}, 401)
        elif self.path.endswith("/api/repos/create"):
            self.server.made = json.loads(body)
            self._send({"url": f"{self.server.url}/org/name"})
        elif "/preupload/" in self.path:
            asked = json.loads(body)["files"]
            files = [{"path": one["path"], "uploadMode": "regular"} for one in asked]
            self._send({"files": [{**one, "shouldIgnore": False} for one in files]})
        elif "/commit/" in self.path:
            for line in body.splitlines():
                row = json.loads(line)
                if row["key"] == "file":
                    one = row["value"]
                    self.server.files[one["path"]] = base64.b64decode(one["content"])
            oid = "1" * 40
            url = f"{self.server.url}/org/name/commit/{oid}"
            self._send({"commitUrl": url, "commitOid": oid, "success": True})
        else:  # the check of the card's front matter
            self._send({"warnings": [], "errors": []})

    def _send(self, value: Any, status: int = 200) -> None:
        self.send(status, json.dumps(value).encode(), {"Content-Type": "application/json"})


@pytest.fixture
def hub() -> Iterator[UploadHub]:
    with served(UploadHub()) as server:
        yield server


def test_an_sae_with_its_card_and_names_arrives_whole(tmp_path: Path, hub: UploadHub) -> None:
    workspace = Workspace.open(tmp_path / "w")
    TopKSae(16, 4, 2).save(workspace.saes_dir / "s")
    annotations = Annotations(workspace.annotations_path)
    annotations.set_concept("s", 3, "sails")
    annotations.close()
    surroundings = {
        **os.environ,
        "HF_ENDPOINT": hub.url,
        "HF_HUB_OFFLINE": "0",
        "HF_TOKEN": "hf_secret",
        "HF_HOME": str(tmp_path / "home"),
        "MI_CROW_WORKSPACE": str(workspace.root),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "mi_crow", "publish", "org/name", "--private", "--json"]

    def run() -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            command, capture_output=True, text=True, env=surroundings, timeout=120
        )

    done = run()
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["pushed"]
    assert (hub.made["name"], hub.made["organization"]) == ("name", "org")
    folder = workspace.sae_dir("s")
    for name in ("cfg.json", "sae_weights.safetensors"):
        assert hub.files[name] == (folder / name).read_bytes()
    assert "| 3 | sails |" in hub.files["README.md"].decode()
    assert [one["name"] for one in json.loads(hub.files["concepts.json"])] == ["sails"]
    hub.refuses = True
    refused = run()
    assert refused.returncode == 2
    assert "hf auth login" in json.loads(refused.stderr)["hint"]
    assert "hf_secret" not in refused.stderr
