"""A server of this machine that stands for the Hugging Face Hub: its repositories are folders."""

import json
from hashlib import sha1, sha256
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.helpers.local_server import Answers, LocalServer

WEIGHTS = (".safetensors", ".npz")  # what is large on the hub
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class FakeHub(LocalServer):
    """Serves the folders of `root` (org/name) as repositories, and remembers what was fetched."""

    def __init__(self, root: Path) -> None:
        super().__init__(_Answer)
        self.root = root
        self.fetched: list[str] = []
        self.gated = False
        self.cuts = 0  # so many answers of weights break off in the middle
        self.stopped = 0  # after so many bytes, answers of weights wait until the client has gone
        self.ranges: list[str] = []  # of which parts of weights were asked for
        self.change = False  # weights arrive with another byte in them
        self.names_sums = True  # False: as a mirror that does not say which files are large


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
        if path.split("/")[2:3] == ["tree"]:  # of a folder, which no model here has
            self._send(404, b"{}", body, {"X-Error-Code": "EntryNotFound"})
            return
        files = sorted(file for file in root.rglob("*") if file.is_file())
        siblings = [
            {"rfilename": file.relative_to(root).as_posix(), "size": file.stat().st_size}
            | (_in_lfs(file) if self.server.names_sums else {})
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
        data, large = file.read_bytes(), file.suffix in WEIGHTS
        tag = sha256(data).hexdigest() if large else sha1(data).hexdigest()
        if body:
            self.server.fetched.append(file.relative_to(self.server.root / repository).as_posix())
        headers = {"ETag": f'"{tag}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if large and self.server.change:
            data = bytes([data[0] ^ 1]) + data[1:]
        first, _, last = (self.headers.get("Range") or "bytes=0-")[6:].partition("-")
        start, end = int(first), int(last) + 1 if last else len(data)
        if large and body:
            self.server.ranges.append(self.headers.get("Range") or "all")
        if large and body and self.server.stopped:
            self.send_head(200, len(data), headers)
            self.wfile.write(data[: self.server.stopped])
            self.wfile.flush()
            self.rfile.read(1)
            self.close_connection = True
            return
        if large and body and self.server.cuts:
            self.server.cuts -= 1
            self._send(200, data, body, headers, stop=len(data) // 2)
            return
        part = data[start:end]
        if len(part) < len(data):
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(data)}"
        self._send(206 if len(part) < len(data) else 200, part, body, headers)

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
    if file.suffix not in WEIGHTS:
        return {}
    size = file.stat().st_size
    return {
        "lfs": {"sha256": sha256(file.read_bytes()).hexdigest(), "size": size, "pointerSize": 9}
    }
