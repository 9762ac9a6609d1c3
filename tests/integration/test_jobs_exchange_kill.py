"""kill -9 while a job writes an SAE: nothing half-written is seen, and a resume ends it well."""

import json
import os
import signal
import sys
from pathlib import Path

import pytest

from mi_crow.cli import main
from mi_crow.jobs import follow, job_state, resume, submit
from mi_crow.jobs.removing import unfinished
from mi_crow.store.workspace import Workspace
from tests.helpers.jobs_fixture import wait_until

SAE = Path(__file__).parent.parent / "fixtures" / "sae_formats" / "saelens_topk"

# A runner that stops in the middle of the weights, for ever.
STALLING = (
    sys.executable,
    "-c",
    """
import sys, time
from pathlib import Path
from mi_crow.mechanistic.sae import saving

def stall(tensors, path):
    Path(path).write_bytes(b"half of it")
    Path(path).with_name("stalled").touch()
    time.sleep(600)

saving.save_file = stall
from mi_crow.jobs import runner
raise SystemExit(runner.main(sys.argv[1:]))
""",
)


def kill_in_the_middle(workspace: Workspace, job: str, where: Path) -> None:
    wait_until(lambda: any(where.rglob("stalled")), 60)
    process = job_state(workspace, job).process
    assert process is not None
    process.signal(signal.SIGKILL)
    wait_until(lambda: job_state(workspace, job).status == "lost")


@pytest.mark.slow
def test_an_import_killed_while_it_writes_is_resumed(workspace: Workspace) -> None:
    params = {"path": str(SAE), "name": "a"}
    job = submit(workspace, "import", params, name="a", runner=STALLING)
    kill_in_the_middle(workspace, job, workspace.saes_dir)
    assert workspace.list_saes() == []
    assert [one.name for one in unfinished(workspace, "SAE")] == ["a"]
    (workspace.saes_dir / "a" / "stalled").unlink()
    resume(workspace, job)
    last = list(follow(workspace, job))[-1]
    assert (last["event"], last.get("result", last)["sae_id"]) == ("finished", "a")
    assert sorted(os.listdir(workspace.sae_dir("a"))) == ["cfg.json", "sae_weights.safetensors"]
    assert job_state(workspace, job).unit == "MB"


@pytest.mark.slow
def test_an_export_killed_while_it_writes_is_resumed(
    workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ("--workspace", str(workspace.root))
    assert main([*where, "import", str(SAE), "--name", "a"]) == 0
    out = tmp_path / "shared" / "out"
    out.parent.mkdir()
    job = submit(workspace, "export", {"sae_id": "a", "path": str(out)}, runner=STALLING)
    kill_in_the_middle(workspace, job, out.parent)
    assert not out.exists()
    resume(workspace, job)
    assert list(follow(workspace, job))[-1]["event"] == "finished"
    assert os.listdir(out.parent) == ["out"]
    assert sorted(os.listdir(out)) == ["cfg.json", "sae_weights.safetensors"]
    capsys.readouterr()
    assert main([*where, "export", "a", str(tmp_path / "two"), "--detach", "--json"]) == 0
    second = json.loads(capsys.readouterr().out)["job_id"]
    assert list(follow(workspace, second))[-1]["event"] == "finished"
    assert sorted(os.listdir(tmp_path / "two")) == ["cfg.json", "sae_weights.safetensors"]
