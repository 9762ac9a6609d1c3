"""What the workspace holds: listed, shown, renamed, noted and removed from the command line."""

import json
from pathlib import Path
from typing import Any

import pytest

from mi_crow.cli import main
from mi_crow.mechanistic.concepts.annotations import Annotations
from mi_crow.store.runs.manifest import RunManifest
from mi_crow.store.workspace import Workspace
from tests.helpers.jobs_fixture import FakeJobs
from tests.helpers.made_files import add_run, add_sae


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    workspace = Workspace.open(tmp_path / "w")
    monkeypatch.setenv("MI_CROW_WORKSPACE", str(workspace.root))
    of = {"model_id": "org/model", "dataset": {"source": "sample"}}
    run = add_run(workspace, "first", tokens=1234, **of)
    (run / "tokens").mkdir()
    (run / "tokens" / "part-000-00000.parquet").write_bytes(b"x" * 5000)
    sae = add_sae(workspace, "sae", "first")
    (sae / "evaluation.json").write_text('{"fvu": 0.1234}')
    return workspace


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    """The JSON result of a command that works."""
    capsys.readouterr()
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a command that is refused says."""
    capsys.readouterr()
    assert main(arguments) == 2
    return capsys.readouterr().err


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert main(arguments) == 0
    return capsys.readouterr().out


def test_runs_and_saes_are_listed(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    [row] = run(capsys, "runs")
    assert (row["run_id"], row["tokens"], row["layers"]) == ("first", 1234, ["model.layers.1"])
    assert row["bytes"] > 5000
    [row] = run(capsys, "saes")
    assert (row["sae_id"], row["n_latents"], row["evaluation"]) == ("sae", 64, {"fvu": 0.1234})
    assert "1,234" in printed(capsys, "runs")
    assert "topk k=4" in printed(capsys, "saes")


def test_empty_lists_say_what_fills_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = str(Workspace.open(tmp_path / "empty").root)
    assert "mi-crow capture" in printed(capsys, "runs", "--workspace", root)
    assert "mi-crow train" in printed(capsys, "saes", "--workspace", root)
    assert run(capsys, "runs", "--workspace", root) == []


def test_one_is_shown(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    shown = printed(capsys, "runs", "show", "first")
    assert "(model.layers.1) 8 wide" in shown
    assert "None" not in shown
    assert "{" not in shown
    assert "64" in printed(capsys, "saes", "show", "sae")
    assert "run 'frist' not found; there is first" in refused(capsys, "runs", "show", "frist")
    assert "is not a valid name" in refused(capsys, "saes", "show", str(workspace.saes_dir / "sae"))


def test_a_note_is_kept(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "saes", "note", "sae", "look at feature 7")
    assert run(capsys, "saes", "note", "sae")["note"] == "look at feature 7"
    assert run(capsys, "saes", "show", "sae")["note"] == "look at feature 7"
    run(capsys, "saes", "note", "sae", "")
    assert printed(capsys, "saes", "note", "sae") == "(no note)\n"


def test_a_renamed_run_is_still_the_one_its_saes_were_trained_on(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    run(capsys, "runs", "rename", "first", "second")
    [row] = run(capsys, "runs")
    assert row["run_id"] == "second"
    assert RunManifest.load(workspace.run_dir("second")).run_id == "second"
    assert run(capsys, "saes")[0]["run_id"] == "second"


def test_a_rename_never_takes_a_name_or_a_path(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace.make_run_dir("taken", "")
    assert "exists already" in refused(capsys, "runs", "rename", "first", "taken")
    assert "is not a valid name" in refused(capsys, "runs", "rename", "first", "../x")
    assert [row["run_id"] for row in run(capsys, "runs")] == ["first"]


def test_an_sae_is_renamed_with_its_concepts_or_not_at_all(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    annotations = Annotations(workspace.annotations_path)
    annotations.set_concept("sae", 3, "tide")
    annotations.set_concept("gone", 3, "frost")
    assert "choose another id" in refused(capsys, "saes", "rename", "sae", "gone")
    assert [row["sae_id"] for row in run(capsys, "saes")] == ["sae"]
    run(capsys, "saes", "rename", "sae", "new")
    assert [row["sae_id"] for row in run(capsys, "saes")] == ["new"]
    assert [concept.name for concept in annotations.concepts("new")] == ["tide"]


def test_a_dry_run_names_every_file_and_removes_none(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    out = printed(capsys, "runs", "rm", "first", "--dry-run")
    assert "activations/first/manifest.json" in out
    assert "activations/first/tokens/part-000-00000.parquet" in out
    assert "would free" in out
    assert "another run: sae" in out
    assert workspace.run_dir("first").is_dir()


def test_removing_frees_the_space(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    result = run(capsys, "runs", "rm", "first")
    assert result["removed"]
    assert result["orphans"] == ["sae"]
    assert list(workspace.activations_dir.iterdir()) == []
    assert workspace.sae_dir("sae").is_dir()


@pytest.mark.parametrize(
    ("kind", "params", "command", "name"),
    [
        ("train", {"run_id": "first", "layer": "l"}, "runs", "first"),
        ("index", {"sae_id": "sae"}, "runs", "first"),
        ("index", {"sae_id": "sae"}, "saes", "sae"),
        ("capture", {"name": "first"}, "runs", "first"),
        ("train", {"name": "sae", "run_id": "x"}, "saes", "sae"),
    ],
)
def test_what_a_job_uses_is_neither_removed_nor_renamed(
    workspace: Workspace,
    jobs: FakeJobs,
    capsys: pytest.CaptureFixture[str],
    kind: str,
    params: dict[str, Any],
    command: str,
    name: str,
) -> None:
    job = jobs.add("running", kind, params=params)
    assert f"in use by job {job}" in refused(capsys, command, "rm", name)
    assert f"in use by job {job}" in refused(capsys, command, "rename", name, "other")
    jobs.finish(job)
    assert run(capsys, command, "rm", name)["removed"]


def test_what_an_ended_job_used_may_go(
    workspace: Workspace, jobs: FakeJobs, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs.add("finished", "train", params={"run_id": "first", "layer": "l"})
    assert run(capsys, "runs", "rm", "first")["removed"]


def test_an_evaluation_is_shown_as_figures(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {"fvu": 0.25, "l0": 4.0, "probes": {"labels": 2, "latents": {"1": 0.9}}}
    (workspace.saes_dir / "sae" / "evaluation.json").write_text(json.dumps(found))
    text = printed(capsys, "saes", "show", "sae")
    assert "fvu 0.25  l0 4" in text
    assert "{" not in text


def test_an_id_that_is_neither_run_nor_sae_cannot_be_examined(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    told = refused(capsys, "doctor", "--deep", "nosuch")
    assert "no run or SAE is called 'nosuch'" in told


def test_saes_compare_puts_what_files_declare_beside_what_was_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = Workspace.open(tmp_path / "workspace")
    for name, k, fvu in (("small", 8, 0.3), ("large", 64, 0.1)):
        folder = workspace.make_sae_dir(name, name)
        cfg = {"architecture": "topk", "d_in": 16, "d_sae": 128, "k": k, "metadata": {}}
        (folder / "cfg.json").write_text(json.dumps(cfg))
        result = {"fvu": fvu, "l0": k + 0.5, "tokens": 4096, "seconds": 2.0}
        (folder / "training.json").write_text(json.dumps({"config": {}, "result": result}))
    measured = {"fvu": 0.12, "l0": 60.0, "loss_recovered": 0.97}
    (workspace.sae_dir("large") / "evaluation.json").write_text(json.dumps(measured))
    common = ["--workspace", str(workspace.root)]
    assert main(["saes", "compare", *common, "--json"]) == 0
    found = {one["sae_id"]: one for one in json.loads(capsys.readouterr().out)}
    assert (found["large"]["k"], found["large"]["measured"]["l0"]) == (64, 60.0)
    assert found["large"]["measured"]["source"] == "evaluation"
    assert (found["small"]["tokens"], found["small"]["measured"]["fvu"]) == (4096, 0.3)
    assert main(["saes", "compare", "large", *common]) == 0
    text = capsys.readouterr().out
    assert "0.97" in text
    assert "small" not in text
    assert main(["saes", "compare", "nothing", *common]) == 2


def test_which_k_is_shown_by_l0_with_the_least_decoder_correlation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = Workspace.open(tmp_path / "workspace")
    for k, c_dec in ((64, 0.04), (8, 0.05), (24, 0.02)):
        folder = workspace.make_sae_dir(f"k{k}", f"k{k}")
        cfg = {"architecture": "topk", "d_in": 16, "d_sae": 128, "k": k, "metadata": {}}
        (folder / "cfg.json").write_text(json.dumps(cfg))
        measured = {"fvu": 1 / k, "l0": k, "ce_added": 0.5, "c_dec": c_dec}
        measured["probes"] = {"latents_accuracy": {"1": 0.6, "5": 0.8}}
        (folder / "evaluation.json").write_text(json.dumps(measured))
    common = ["--workspace", str(workspace.root)]
    assert main(["saes", "compare", "--by-l0", *common, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["sae_id"] for one in found] == ["k8", "k24", "k64"]
    assert [one["least_c_dec"] for one in found] == [False, True, False]
    assert (
        found[1]["measured"] | {"ce_added": 0.5, "c_dec": 0.02, "probe_accuracy": 0.8}
        == (found[1]["measured"])
    )
    assert main(["saes", "compare", "--by-l0", *common]) == 0
    assert "0.02 least" in capsys.readouterr().out
