"""Files of the right name that a power cut left full of zeros: each has another to go on from."""

import json
from pathlib import Path

import pytest

from mi_crow.errors import CorruptDataError
from mi_crow.jobs.events import append_event
from mi_crow.jobs.kinds import kind_of
from mi_crow.jobs.metrics_rescue import repair_metrics
from mi_crow.jobs.output import reserve_output
from mi_crow.jobs.status import read_state, write_status
from mi_crow.mechanistic.sae.config import TrainConfig
from mi_crow.mechanistic.sae.train.metrics import MetricsTable, read_rows
from mi_crow.store import RunManifest, Workspace
from mi_crow.store.backup_copy import copy_path
from tests.helpers.jobs_fixture import FakeJobs
from tests.helpers.progress import Watched
from tests.helpers.stored_runs import write_run


def torn(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def test_a_run_is_read_from_its_manifest_s_copy(workspace: Workspace) -> None:
    folder = workspace.make_run_dir("run", "")
    written = write_run(folder, [[3, 2], [4]])
    torn(folder / "manifest.json")
    assert RunManifest.load(folder) == written
    assert [run.run_id for run in workspace.list_runs()] == ["run"]
    torn(copy_path(folder / "manifest.json"))
    with pytest.raises(CorruptDataError, match=r"manifest\.json is not valid JSON"):
        RunManifest.load(folder)


def a_training(workspace: Workspace) -> Path:
    """The folder of a lost training of the SAE `sae`, whose events tell of steps 10 to 30."""
    jobs = FakeJobs(workspace)
    job = workspace.jobs_dir / jobs.add("lost", "train", done=10, metrics={"loss": 3.0})
    for step in (20, 30):
        append_event(
            job, "progress", done=step, total=40, unit="step", metrics={"loss": 40.0 - step}
        )
    workspace.make_sae_dir("sae", "")
    (job / "output.json").write_text(json.dumps({"what": "sae", "id": "sae"}))
    write_status(job, {"status": "running", "done": 30, "output": "sae"})
    return job


def test_a_job_s_state_comes_from_its_events(workspace: Workspace) -> None:
    job = a_training(workspace)
    torn(job / "status.json")
    state = read_state(job)
    assert (state.status, state.done, state.total, state.output) == ("lost", 30, 40, "sae")


def test_a_job_s_output_is_known_from_its_status(workspace: Workspace) -> None:
    job = a_training(workspace)
    torn(job / "output.json")
    config = TrainConfig("demo", "resid_post.2")
    assert reserve_output(workspace, job, kind_of("train"), config) == workspace.saes_dir / "sae"
    torn(job / "status.json")
    with pytest.raises(CorruptDataError, match=r"output\.json"):
        reserve_output(workspace, job, kind_of("train"), config)


def test_metrics_are_made_again_from_the_events(workspace: Workspace) -> None:
    a_training(workspace)
    path = workspace.saes_dir / "sae" / "metrics.parquet"
    MetricsTable([{"step": step, "loss": 1.0} for step in range(100)]).write(path)
    log = Watched()
    repair_metrics(workspace, path.parent, log)
    assert len(read_rows(path)) == 100
    assert log.lines == []
    torn(path)
    repair_metrics(workspace, path.parent, log)
    assert [(row["step"], row["loss"]) for row in read_rows(path)] == [
        (10, 3.0),
        (20, 20.0),
        (30, 10.0),
    ]
    assert "restored 3 readings from the job's events" in log.lines[0]


def test_a_flipped_bit_in_the_metrics_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "metrics.parquet"
    MetricsTable([{"step": step, "loss": step / 7} for step in range(2000)]).write(path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(CorruptDataError, match="is damaged"):
        read_rows(path)
