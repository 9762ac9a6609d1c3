"""kill -9 in the middle of a capture, at moments nobody chose: what is there is whole, and the
capture goes on to exactly the files of one that was left alone."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mi_crow.language_model.config import CaptureConfig, DatasetSpec, ModelSpec
from mi_crow.store import RunManifest, Workspace
from mi_crow.store.runs.reader import RunReader

pytestmark = pytest.mark.slow

DOCUMENTS, PARTS = 320, 20
KILLS = 2
WAIT_S = 120.0
WORKER = """
import sys
from pathlib import Path
import torch
from mi_crow.language_model.capture.job import capture_run
from mi_crow.store import Workspace
from tests.integration.test_capture_kill import config
torch.set_num_threads(1)
workspace = Workspace.open(Path(sys.argv[1]), create=False)
capture_run(workspace, config(), run_dir=workspace.activations_dir / sys.argv[2])
"""


def config() -> CaptureConfig:
    return CaptureConfig(
        ModelSpec("sample", device="cpu"),
        DatasetSpec("sample", limit=DOCUMENTS),
        ("resid_post.0", "mlp_out.1"),
        shard_size=DOCUMENTS // PARTS,
        batch_size=4,
        long_documents="split",
        context_length=48,
    )


def parts_of(run_dir: Path) -> dict[str, bytes]:
    return {str(p.relative_to(run_dir)): p.read_bytes() for p in sorted(run_dir.rglob("part-*"))}


def committed(run_dir: Path) -> int:
    manifest = run_dir / "manifest.json"
    return len(RunManifest.load(run_dir).parts) if manifest.exists() else 0


def start(run_dir: Path) -> "subprocess.Popen[bytes]":
    """A process that captures into the folder, or goes on there."""
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, str(run_dir.parents[1]), run_dir.name],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def kill_in_the_middle(run_dir: Path, moment: random.Random) -> int:
    """Starts a capture, kills it some time after it has committed another part or two; gives how
    many parts are committed then."""
    wanted = committed(run_dir) + moment.randint(1, 3)
    worker = start(run_dir)
    try:
        deadline = time.monotonic() + WAIT_S
        while committed(run_dir) < wanted and worker.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.002)
        time.sleep(moment.random() * 0.05)
        worker.send_signal(signal.SIGKILL)
    finally:
        worker.kill()
        worker.wait()
    return committed(run_dir)


def test_killed_captures_end_with_the_same_bytes(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path / "workspace")
    whole, run_dir = (workspace.make_run_dir(name, "") for name in ("whole", "killed"))
    assert start(whole).wait(WAIT_S) == 0
    moment = random.Random(0)
    for _ in range(KILLS):
        there = kill_in_the_middle(run_dir, moment)
        assert 0 < there < PARTS, "the capture was over before it was killed"
        # What is committed can be read, each token of it.
        reader = RunReader(run_dir, "resid_post.0")
        assert sum(len(part.take(slice(None))) for part in reader.parts()) == reader.n_tokens
        assert not RunManifest.load(run_dir).complete
    assert start(run_dir).wait(WAIT_S) == 0
    assert RunManifest.load(run_dir).n_documents == DOCUMENTS
    assert parts_of(run_dir) == parts_of(whole)
    assert list(run_dir.rglob(".tmp-*")) == []
