"""Valid JSON of the wrong type is told where it is read; it never reaches a screen as it is."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mi_crow.errors import CorruptDataError
from mi_crow.jobs.events import append_event, parse_event
from mi_crow.jobs.spec import JobSpec
from mi_crow.jobs.status import STATUS_NAME, list_jobs, read_state, write_status
from mi_crow.store.runs.manifest import LayerSpec, RunManifest
from mi_crow.store.workspace import Workspace, read_sae_summary
from tests.helpers.jobs_fixture import FakeJobs
from tests.helpers.made_files import a_manifest

WRONG: tuple[Any, ...] = ("x", [], {}, [1, {}], True, 10**299, -(10**299), float("nan"), 1.5)
_CFG = {
    "architecture": "topk",
    "d_in": 8,
    "d_sae": 16,
    "k": 4,
    "metadata": {"model_name": "m", "hook_name": "h", "mi_crow": {"layer": "l", "run_id": "r"}},
}
_TEXTS = ("unit", "stage", "error", "hint", "waiting_for", "output")  # of a status
_EVALUATION = {"fvu": 0.1, "l0": 4.0, "dead_share": None, "probes": {"latents": {"1": 0.9}}}


def manifest() -> RunManifest:
    more = {"dataset": {"source": "sample"}, "rounding": {"l": [0.1, 1.0]}}
    return a_manifest("r", [LayerSpec("l", "p", 8)], 1, **more)


def test_every_wrong_value_in_a_manifest_is_told_or_harmless(tmp_path: Path):
    manifest().save(tmp_path)
    path = tmp_path / "manifest.json"
    whole = json.loads(path.read_text())
    keys = [key for key in whole if key not in ("n_documents", "n_tokens", "format_version")]
    refused = 0
    for key in keys:
        for wrong in WRONG:
            path.write_text(json.dumps(whole | {key: wrong}))
            try:
                loaded = RunManifest.load(tmp_path)
            except CorruptDataError:
                refused += 1
                continue
            # What is taken can be shown and computed with.
            assert f"{loaded.n_tokens:,}"
            assert loaded.model_id + loaded.status + loaded.dtype
            assert all(layer.point + layer.name for layer in loaded.layers)
            assert all(value >= 0 for value in loaded.rounding_fvu.values())
    assert refused > 80
    for wrong in WRONG:
        for part in ({"rank": wrong}, {"tokens": wrong}, {"documents": wrong}):
            if type(wrong) is not int:
                path.write_text(json.dumps(whole | {"parts": [whole["parts"][0] | part]}))
                with pytest.raises(CorruptDataError, match="parts 1"):
                    RunManifest.load(tmp_path)


@pytest.mark.parametrize("created", [-1.0, 1e300, 3e11], ids=str)
def test_a_time_that_no_calendar_shows_is_refused(tmp_path: Path, created: float):
    one = manifest()
    one.created = created
    one.save(tmp_path)
    with pytest.raises(CorruptDataError, match="created must be a time"):
        RunManifest.load(tmp_path)
    JobSpec("train", {}, created=created).save(tmp_path)
    with pytest.raises(CorruptDataError, match="created must be a time"):
        JobSpec.load(tmp_path)


def paths(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, inner in value.items():
        yield (*path, key)
        if isinstance(inner, dict):
            yield from paths(inner, (*path, key))


def changed(value: dict[str, Any], path: tuple[str, ...], wrong: Any) -> dict[str, Any]:
    first, *rest = path
    inner = changed(value[first], tuple(rest), wrong) if rest else wrong
    return value | {first: inner}


@pytest.mark.parametrize("path", paths(_CFG), ids=".".join)
def test_a_wrong_value_in_cfg_json_is_a_sentence(tmp_path: Path, path: tuple[str, ...]):
    told: list[str] = []
    for wrong in WRONG:
        (tmp_path / "cfg.json").write_text(json.dumps(changed(_CFG, path, wrong)))
        try:
            summary = read_sae_summary(tmp_path)
        except CorruptDataError as error:
            told.append(str(error))
            continue
        assert f"{summary.n_latents:,} {summary.n_inputs:,} {summary.layer + summary.model_id}"
        assert summary.k is None or f"{summary.k}"
    assert all("cfg.json" in sentence for sentence in told)


def test_an_evaluation_that_cannot_be_right_hides_no_sae_and_says_why(tmp_path: Path):
    (tmp_path / "cfg.json").write_text(json.dumps(_CFG))
    for path in paths(_EVALUATION):
        for wrong in ("x", [], [1], True):
            evaluation = changed(_EVALUATION, path, wrong)
            (tmp_path / "evaluation.json").write_text(json.dumps(evaluation))
            summary = read_sae_summary(tmp_path)
            assert summary.evaluation is None, (path, wrong)
            assert f"{path[-1]} must be" in summary.evaluation_trouble or path[-1] == "probes"
    (tmp_path / "evaluation.json").write_text("[1]")
    assert "is not a JSON object" in read_sae_summary(tmp_path).evaluation_trouble
    (tmp_path / "evaluation.json").write_text(json.dumps(_EVALUATION | {"fvu": float("nan")}))
    assert read_sae_summary(tmp_path).evaluation is not None


def test_a_status_of_wrong_types_is_done_without(workspace: Workspace):
    jobs = FakeJobs(workspace)
    job_id = jobs.add("finished")
    folder = workspace.job_dir(job_id)
    good = read_state(folder)
    for key in (*good.as_json(), "metrics", "exit_code", "waiting_for", "heartbeat", "t"):
        if key in ("job_id", "kind", "name", "after", "device", "nproc", "created", "stopping"):
            continue  # of the spec, or of the folder
        for wrong in ([1], {"a": "b"}, "x", -1.5e300):
            if (key in _TEXTS and wrong == "x") or (key == "result" and isinstance(wrong, dict)):
                continue
            write_status(folder, {"status": "finished", key: wrong})
            if key == "t":
                (folder / STATUS_NAME).write_text(json.dumps({"t": wrong}))
            assert read_state(folder) == good, (key, wrong)


def test_events_of_wrong_types_are_skipped_as_torn_ones_are(workspace: Workspace):
    jobs = FakeJobs(workspace)
    job_id = jobs.add("finished", result={"seconds": 2.0})
    good = list_jobs(workspace)
    folder = workspace.job_dir(job_id)
    append_event(folder, "progress", done=[], total=3)
    append_event(folder, "progress", done=1, total=3, metrics={"loss": "low"})
    append_event(folder, "progress", done=1, total=3, eta_s=float("inf"))
    append_event(folder, "failed", error={"x": 1})
    append_event(folder, "finished", result=[1])
    assert list_jobs(workspace) == good
    assert parse_event(b'{"event": 3}') is None
    assert parse_event(b'{"event": "progress", "t": "now"}') is None
    assert parse_event(b'{"event": "progress", "t": 1, "done": 2, "metrics": {"l": NaN}}')


@pytest.mark.parametrize("wrong", WRONG, ids=str)
@pytest.mark.parametrize("key", ["kind", "params", "device", "name", "after", "created", "nproc"])
def test_a_spec_of_wrong_types_is_a_sentence(tmp_path: Path, key: str, wrong: Any):
    JobSpec("train", {}).save(tmp_path)
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: wrong}))
    try:
        spec = JobSpec.load(tmp_path)
    except CorruptDataError:
        pass
    else:
        assert type(getattr(spec, key)) is type(wrong)


@pytest.mark.parametrize(
    "result",
    [[], {"sae_id": 3}, {"sae_id": "s", "steps": "many"}, {"sae_id": "s", "unknown": 1}, None],
    ids=str,
)
def test_a_training_of_wrong_types_is_a_sentence(tmp_path: Path, result: Any):
    from mi_crow.mechanistic.sae.train.run import TRAINING_NAME, _finished_result

    (tmp_path / TRAINING_NAME).write_text(json.dumps({"result": result}))
    with pytest.raises(CorruptDataError, match=TRAINING_NAME):
        _finished_result(tmp_path)
