"""Two processes index what one would, row for row, whoever died on the way."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

from mi_crow.jobs import follow, resume, submit
from mi_crow.jobs.spec import config_as_json
from mi_crow.language_model.capture.job import capture_run
from mi_crow.language_model.config import CaptureConfig, DatasetSpec, ModelSpec
from mi_crow.mechanistic.features.config import READING, IndexConfig
from mi_crow.mechanistic.sae import SaeMetadata, TopKSae
from mi_crow.store.runs.manifest import RunManifest
from mi_crow.store.workspace import Workspace
from tests.integration.test_capture_ranks import rank_pid
from tests.unit.test_features_job import files, tables

pytestmark = pytest.mark.slow

CONFIG = IndexConfig("sae", device="cpu", names=False)


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A run of the sample model and an SAE, indexed by one process."""
    workspace = Workspace.open(tmp_path_factory.mktemp("ranks") / "workspace")
    config = CaptureConfig(
        ModelSpec("sample", dtype="fp32", device="cpu"),
        DatasetSpec("sample", limit=200),
        ("resid_post.2",),
        batch_size=8,
        shard_size=24,
    )
    run_id = capture_run(workspace, config).run_id
    manifest = RunManifest.load(workspace.run_dir(run_id))
    width = manifest.layers[0].width
    sae = TopKSae(700, width, 16, seed=1)
    sae.metadata = SaeMetadata(
        model_name="sample",
        layer=manifest.layers[0].name,
        point="resid_post.2",
        run_id=run_id,
        tokenizer_hash=manifest.tokenizer_hash,
    )
    for name in ("sae", "alone"):
        sae.save(workspace.make_sae_dir(name, name))
    last = run(workspace, submit(workspace, "index", params(replace(CONFIG, sae_id="alone"))))
    assert last["event"] == "finished", last
    return workspace


def params(config: IndexConfig) -> dict[str, Any]:
    return config_as_json(config)


def run(workspace: Workspace, job: str) -> dict[str, Any]:
    return list(follow(workspace, job))[-1]


def check(workspace: Workspace) -> None:
    expected = tables(workspace.index_path("alone"))
    found = tables(workspace.index_path("sae"))
    for table, content in expected.items():
        assert found[table] == content, table
    assert len(expected["documents"]) == 200
    assert len(expected["coactivations"]) > 700
    workspace.index_path("sae").unlink()


def test_a_killed_rank_leaves_no_index_and_a_resume_builds_it(indexed: Workspace) -> None:
    job = submit(indexed, "index", params(CONFIG), launcher="torchrun", nproc=2)
    events = follow(indexed, job)
    assert any(event.get("message") == READING for event in events)  # stops there
    os.kill(rank_pid(indexed, job, 1), signal.SIGKILL)
    last = list(events)[-1]
    assert (last["event"], last["error"]) == ("failed", "rank 1 of 2 was killed (signal 9)")
    assert not indexed.index_path("sae").exists()
    resume(indexed, job)
    last = run(indexed, job)
    assert last["event"] == "finished", last
    assert last["result"]["tokens"] > 5_000
    check(indexed)
    assert not [name for name in files(indexed) if ".tmp-" in name and "saes/" in name]


def test_torchrun_by_hand_indexes_in_the_foreground(indexed: Workspace) -> None:
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone")
    command = ("-m", "mi_crow", "index", "--workspace", str(indexed.root), "--sae", "sae")
    done = subprocess.run(
        [*torchrun, "--nproc-per-node", "2", *command, "--device", "cpu", "--no-names", "--json"],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        env=os.environ | {"TMPDIR": str(indexed.root.parent)},
    )
    assert done.returncode == 0, done.stderr
    assert '"features": 700' in done.stdout
    check(indexed)


def test_the_launcher_is_a_flag_of_the_command(indexed: Workspace) -> None:
    asked = ("index", "--sae", "none", "--launcher", "torchrun", "--nproc", "2")
    done = subprocess.run(
        [sys.executable, "-m", "mi_crow", *asked, "--workspace", str(indexed.root)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("SAE 'none' not found")
