"""A renaming that is killed anywhere is finished or taken back at the next start."""

import json
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from mi_crow.errors import UserError
from mi_crow.jobs.dependents import dependents_of
from mi_crow.jobs.renaming import rename_run, rename_sae
from mi_crow.jobs.spec import JobSpec
from mi_crow.jobs.status import write_status
from mi_crow.mechanistic.concepts.annotations import Annotations
from mi_crow.mechanistic.steering.measure.checks import made_for
from mi_crow.mechanistic.steering.measure.results import list_measurements, open_measurement
from mi_crow.mechanistic.vectors.stored import (
    SteeringVector,
    list_vectors,
    load_vector,
    save_vector,
    vector_path,
)
from mi_crow.store.atomic import write_json
from mi_crow.store.workspace import RENAMING_NAME, Workspace, read_sae_summary
from tests.helpers.made_files import add_run, add_sae

# What a process does to a disk one step at a time; a kill may come before each.
_STEPS = ("os.rename", "os.remove", "sqlite3.connect", "fcntl.flock")


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    workspace = Workspace.open(tmp_path / "w")
    add_run(workspace, "old", tokens=None)
    for name in ("old", "other"):
        sae = add_sae(workspace, name, "old")
        write_json(sae / "training.json", {"config": {"run_id": "old"}, "result": {}})
    job = workspace.make_job_dir("train")
    JobSpec("train", {"run_id": "old", "layer": "resid_post.1"}).save(job)
    write_json(job / "output.json", {"what": "sae", "id": "old"})
    write_status(job, {"status": "cancelled", "resumable": True, "output": "old"})
    annotations = Annotations(workspace.annotations_path)
    annotations.set_concept("old", 3, "three")
    annotations.close()
    return workspace


def killed_at(step: int, work: Callable[[], None]) -> bool:
    """Does `work` in a process that is killed before its `step`-th step; false when it has fewer
    steps and came to its end."""
    child = os.fork()
    if child == 0:
        taken = 0

        def watch(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal taken
            if event in _STEPS:
                taken += 1
                if taken == step:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(watch)
        try:
            work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def names_of_sae(root: Path) -> set[str]:
    """Every id that something has for the renamed SAE, once the workspace was opened."""
    workspace = Workspace.open(root)
    assert not (workspace.root / RENAMING_NAME).exists()
    annotations = Annotations(workspace.annotations_path)
    [job] = workspace.jobs_dir.iterdir()
    found = {
        *(sae.sae_id for sae in workspace.list_saes() if sae.sae_id != "other"),
        *(concept.sae_id for concept in annotations.concepts()),
        *(change.sae_id for change in annotations.history()),
        json.loads((job / "output.json").read_text())["id"],
        json.loads((job / "status.json").read_text())["output"],
    }
    annotations.close()
    return found


def names_of_run(root: Path) -> set[str | None]:
    workspace = Workspace.open(root)
    assert not (workspace.root / RENAMING_NAME).exists()
    [run] = workspace.list_runs()
    [job] = workspace.jobs_dir.iterdir()
    return {
        run.run_id,
        run.manifest.run_id,
        JobSpec.load(job).params["run_id"],
        *(read_sae_summary(sae.path).run_id for sae in workspace.list_saes()),
        *(
            json.loads((sae.path / "training.json").read_text())["config"]["run_id"]
            for sae in workspace.list_saes()
        ),
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rename", "names"), [(rename_sae, names_of_sae), (rename_run, names_of_run)]
)
def test_a_kill_at_any_step_leaves_one_name(
    workspace: Workspace,
    rename: Callable[[Workspace, str, str], None],
    names: Callable[[Path], set[str]],
) -> None:
    outcomes, now, step = set(), "old", 1
    while killed_at(step, partial(rename, workspace, now, {"old": "new", "new": "old"}[now])):
        found = names(workspace.root)
        assert len(found) == 1, f"killed before step {step}: {found}"
        outcomes.add("finished" if found != {now} else "taken back")
        (now,) = found
        step += 1
    assert step > 6
    assert outcomes == {"finished", "taken back"}


def test_what_names_an_sae_follows_it(workspace: Workspace) -> None:
    rename_sae(workspace, "old", "new")
    assert names_of_sae(workspace.root) == {"new"}
    rename_sae(workspace, "new", "old")
    assert names_of_sae(workspace.root) == {"old"}


def test_what_was_measured_of_an_sae_follows_it(workspace: Workspace) -> None:
    beside = {"target": "feature:old/3", "op": "add", "value": 1.0, "sae": "old"}
    own = {"target": "feature:4", "op": "add", "value": 1.0}
    for name, sae_id in (("own", "old"), ("beside", "other")):
        config = {"sae_id": sae_id, "interventions": [beside, own]}
        instead = {"feature:old/3": "feature:old/9", "vector:calm": "vector:calm"}
        open_measurement(workspace, name, "sweep", config).finish(
            {"sae_id": sae_id, "control_targets": instead, "arms": [{"interventions": [beside]}]}
        )
    job = workspace.make_job_dir("steer-sweep")
    JobSpec("steer-sweep", {"sae_id": "other", "interventions": [beside]}).save(job)
    rename_sae(workspace, "old", "new")
    found = {one["name"]: one for one in list_measurements(workspace)}
    assert found["own"]["config"]["sae_id"] == found["own"]["result"]["sae_id"] == "new"
    assert found["beside"]["result"]["sae_id"] == "other"
    for one in found.values():
        assert [held["target"] for held in one["config"]["interventions"]] == [
            "feature:new/3",
            "feature:4",
        ]
        result = one["result"]
        assert result["arms"][0]["interventions"][0]["sae"] == "new"
        assert result["control_targets"]["feature:new/3"] == "feature:new/9"
        assert len(result["control_targets"]) == 2
    [held] = JobSpec.load(job).params["interventions"]
    assert (held["target"], held["sae"]) == ("feature:new/3", "new")


def test_what_a_vector_was_made_of_follows_it(workspace: Workspace) -> None:
    wanted = {
        "features": {"method": "features", "sae": "old", "note": "calm"},
        "topic": {"of": {"sae": "old", "feature": 3, "label": "tides"}},
        "refined": {"refined": {"of": "old", "sae": "old"}},
        "others": {"sae": "other", "of": "old"},
    }
    directions = {"resid_post.1": torch.arange(8.0)}
    for name, made in wanted.items():
        save_vector(workspace, SteeringVector(name, directions, made))
    before = vector_path(workspace, "others").stat().st_mtime_ns
    rename_sae(workspace, "old", "new")
    assert made_for(workspace, "topic", "new") == ("tides", 3)
    held = {one.name: load_vector(workspace, one.name) for one in list_vectors(workspace)}
    assert {name: dict(one.made) for name, one in held.items()} == {
        "features": {"method": "features", "sae": "new", "note": "calm"},
        "topic": {"of": {"sae": "new", "feature": 3, "label": "tides"}},
        "refined": {"refined": {"of": "old", "sae": "new"}},
        "others": {"sae": "other", "of": "old"},
    }
    for one in held.values():
        assert torch.equal(one.directions["resid_post.1"], directions["resid_post.1"])
    assert vector_path(workspace, "others").stat().st_mtime_ns == before


def test_what_was_trained_from_an_sae_follows_it(workspace: Workspace) -> None:
    for name, config in (("old", {"name": "old"}), ("other", {"name": "other", "init": "old"})):
        own = {"config": config, "result": {"sae_id": name}}
        write_json(workspace.sae_dir(name) / "training.json", own)
    write_json(workspace.sae_dir("old") / "evaluation.json", {"sae_id": "old", "fvu": 0.1})
    rename_sae(workspace, "old", "new")

    def said(sae_id: str, name: str) -> Any:
        return json.loads((workspace.sae_dir(sae_id) / name).read_text())

    own = {"config": {"name": "new"}, "result": {"sae_id": "new"}}
    assert said("new", "training.json") == own
    assert said("new", "evaluation.json") == {"sae_id": "new", "fvu": 0.1}
    assert said("other", "training.json")["config"] == {"name": "other", "init": "new"}


def test_an_index_finds_a_renamed_run_under_its_old_id(workspace: Workspace) -> None:
    rename_run(workspace, "old", "new")
    rename_run(workspace, "new", "newer")
    assert names_of_run(workspace.root) == {"newer"}
    assert workspace.run_named("old") == workspace.run_named("new") == "newer"
    assert workspace.run_named("never") == "never"


def test_both_runs_of_a_crosscoder_of_two_models_follow(workspace: Workspace) -> None:
    cfg = workspace.sae_dir("old") / "cfg.json"
    stored = json.loads(cfg.read_text())
    stored["models"] = [
        {"role": "base", "name": "m", "revision": None, "run_id": "elsewhere"},
        {"role": "tuned", "name": "n", "revision": None, "run_id": "old"},
    ]
    cfg.write_text(json.dumps(stored))
    rename_run(workspace, "old", "new")
    found = read_sae_summary(workspace.sae_dir("old"))
    assert found.models == (("base", "m", "elsewhere"), ("tuned", "n", "new"))
    assert dependents_of(workspace, "run", "elsewhere").saes == ["old"]


def test_concepts_of_another_sae_are_never_taken_over(workspace: Workspace) -> None:
    annotations = Annotations(workspace.annotations_path)
    annotations.set_concept("removed", 1, "what an SAE of this id left")
    annotations.close()
    with pytest.raises(UserError, match="concepts of another SAE 'removed'"):
        rename_sae(workspace, "old", "removed")
    assert [sae.sae_id for sae in workspace.list_saes()] == ["old", "other"]
    assert not (workspace.root / RENAMING_NAME).exists()
    # The same when only the one who opens the workspace finds out.
    (workspace.saes_dir / "old").rename(workspace.saes_dir / "removed")
    write_json(workspace.root / RENAMING_NAME, {"what": "SAE", "old": "old", "new": "removed"})
    assert [sae.sae_id for sae in Workspace.open(workspace.root).list_saes()] == ["old", "other"]


def test_a_record_that_is_none_of_ours_hinders_nobody(workspace: Workspace) -> None:
    for text in ("{}", "[1]", "not JSON", '{"what": "run", "old": "../x", "new": "y"}'):
        (workspace.root / RENAMING_NAME).write_text(text)
        assert names_of_run(workspace.root) == {"old"}
