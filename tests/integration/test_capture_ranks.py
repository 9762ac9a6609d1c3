"""Two processes capture what one would: the same tokens and values, whoever died on the way."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mi_crow.jobs import follow, job_state, resume, submit
from mi_crow.jobs.spec import config_as_json
from mi_crow.language_model.capture.job import capture_run
from mi_crow.language_model.config import CaptureConfig, DatasetSpec, ModelSpec
from mi_crow.store.runs.manifest import RunManifest
from mi_crow.store.runs.reader import RunReader
from mi_crow.store.workspace import Workspace

pytestmark = pytest.mark.slow

LAYER = "resid_post.2"
TEXTS = 200
CONFIG = CaptureConfig(
    ModelSpec("sample", dtype="fp32", device="cpu"),
    DatasetSpec("sample", limit=TEXTS),
    (LAYER,),
    dtype="fp32",
    batch_size=8,
    shard_size=16,
)
FLAGS = (
    *("--model-dtype", "fp32", "--device", "cpu", "--limit", str(TEXTS), "--layer", LAYER),
    *("--dtype", "fp32", "--batch-size", "8", "--shard-size", "16", "--json"),
)

Rows = dict[tuple[int, int], np.ndarray]  # by (document, position)


def rows_of(run_dir: Path) -> Rows:
    found: Rows = {}
    for part in RunReader(run_dir, LAYER).parts():
        values = part.take(slice(None)).numpy()
        places = zip(part.row_document.tolist(), part.row_position.tolist(), strict=True)
        for place, value in zip(places, values, strict=True):
            assert place not in found, "captured twice"
            found[place] = value
    return found


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    """What one undisturbed process captures."""
    workspace = Workspace.open(tmp_path_factory.mktemp("alone") / "workspace")
    return rows_of(workspace.run_dir(capture_run(workspace, CONFIG).run_id))


def assert_same(run_dir: Path, alone: Rows) -> None:
    manifest, rows = RunManifest.load(run_dir), rows_of(run_dir)
    assert manifest.status == "complete"
    assert {part.rank for part in manifest.parts} == {0, 1}
    order = [(part.shard, part.piece) for part in manifest.parts]
    assert order == sorted(set(order))
    assert rows.keys() == alone.keys()
    furthest = max(float(np.abs(rows[place] - alone[place]).max()) for place in alone)
    assert furthest <= 1e-5
    named = {part.stem for part in manifest.parts}
    assert {path.stem for path in (run_dir / "tokens").glob("*.parquet")} == named


def test_a_process_that_dies_fails_the_capture_and_a_resume_completes_it(
    workspace: Workspace, alone: Rows
) -> None:
    job = submit(workspace, "capture", config_as_json(CONFIG), launcher="torchrun", nproc=2)
    events = follow(workspace, job)
    assert any(event["event"] == "checkpoint" for event in events)  # stops at the first
    os.kill(rank_pid(workspace, job, 1), signal.SIGKILL)
    last = list(events)[-1]
    assert (last["event"], last["error"]) == ("failed", "rank 1 of 2 was killed (signal 9)")
    run_id = job_state(workspace, job).output
    assert run_id is not None
    assert RunManifest.load(workspace.run_dir(run_id)).status == "running"
    resume(workspace, job)
    last = list(follow(workspace, job))[-1]
    assert last["event"] == "finished", last
    assert last["result"]["run_id"] == run_id
    assert last["result"]["tokens"] == len(alone)
    assert_same(workspace.run_dir(run_id), alone)


def test_torchrun_by_hand_captures_in_the_foreground(workspace: Workspace, alone: Rows) -> None:
    done = by_hand(workspace, "--name", "mine")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["run_id"], result["documents"]) == ("mine", TEXTS)
    assert not workspace.jobs_dir.exists()
    assert_same(workspace.run_dir("mine"), alone)
    done = by_hand(workspace, "--name", "mine")
    assert done.returncode != 0
    assert done.stdout == ""
    told = [line for line in done.stderr.splitlines() if line.startswith('{"error"')]
    assert [json.loads(line)["error"] for line in told] == ["run 'mine' exists already"]


def by_hand(workspace: Workspace, *flags: str) -> "subprocess.CompletedProcess[str]":
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone")
    command = ("-m", "mi_crow", "capture", "--workspace", str(workspace.root))
    return subprocess.run(
        [*torchrun, "--nproc-per-node", "2", *command, *FLAGS, *flags],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        # torchrun leaves a folder behind each time
        env=os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": str(workspace.root.parent)},
    )


def rank_pid(workspace: Workspace, job: str, rank: int) -> int:
    """The process of one rank: a grandchild of the job's own process."""
    process = job_state(workspace, job).process
    assert process is not None
    [agent] = children(process.pid)
    for pid in children(agent):
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        if f"RANK={rank}".encode() in environment:
            return pid
    raise AssertionError(f"no rank {rank}")


def children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]
