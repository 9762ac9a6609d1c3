"""A peer's own trainer in its own environment, waiting between blocks of steps."""

import json
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.peer.environment import surroundings

PEERS = Path(__file__).parent / "peers"


class PeerProcess:
    """One peer tool, started once; it works only between a request and its answer."""

    def __init__(self, python: Path, tool: str, arguments: dict[str, Any]) -> None:
        # Their prints and progress bars would drown the table.
        self._errors = (PEERS.parents[2] / "build" / "benchmarks" / f"{tool}.log").resolve()
        self._errors.parent.mkdir(parents=True, exist_ok=True)
        with self._errors.open("w") as errors:
            self._process = subprocess.Popen(
                [str(python), str(PEERS / f"{tool}.py"), json.dumps(arguments)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=surroundings(arguments.get("device", "cpu")),
            )
        self.facts = self._answer()

    def block(self) -> float:
        """Seconds a step of the next block of steps."""
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        return float(self._answer()["seconds"])

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            complaint = self._errors.read_text("utf-8", "replace")[-3000:]
            raise RuntimeError(f"the peer has died:\n{complaint}")
        return json.loads(line)

    def __enter__(self) -> "PeerProcess":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
