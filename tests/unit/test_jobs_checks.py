"""What can be known to be wrong before a job starts is said at once, with nothing written."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mi_crow.errors import UserError
from mi_crow.jobs import list_jobs, submit
from mi_crow.jobs.checks import check_dataset, check_model
from mi_crow.language_model.config import DatasetSpec, ModelSpec
from mi_crow.store.workspace import Workspace
from tests.helpers.made_files import LAYER, add_run, add_sae


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    workspace = Workspace.open(tmp_path / "w")
    add_run(workspace, "r")
    add_run(workspace, "half", status="running")
    add_run(workspace, "wide", layers=(replace(LAYER, width=16),))
    add_sae(workspace, "s", "r")
    add_sae(workspace, "orphan", "gone")
    add_sae(workspace, "foreign", None)
    return workspace


TRAIN = {"run_id": "r", "layer": "resid_post.1", "k": 4}
CAPTURE = {"model": {"model": "sample"}, "dataset": {"source": "sample"}, "layers": ["x"]}


@pytest.mark.parametrize(
    ("kind", "params", "says"),
    [
        ("bake", {}, "'bake' is not known"),
        ("train", TRAIN | {"run_id": "x"}, "run 'x' not found"),
        ("train", TRAIN | {"run_id": "/tmp/r"}, "not a valid name"),
        ("train", TRAIN | {"run_id": "half"}, "not complete"),
        ("train", TRAIN | {"layer": "h.99"}, "layer 'h.99' is not in run 'r'"),
        ("train", TRAIN | {"k": 65}, "k = 65 is more than n_latents = 64"),
        ("train", TRAIN | {"expansion": 0.01}, "at least 1 latent"),
        ("train", TRAIN | {"expansion": 0.0}, "expansion must be a number above 0, not 0.0"),
        ("train", TRAIN | {"sweep_expansion": [2.0, math.inf]}, "above 0, not inf"),
        ("train", TRAIN | {"training": {"lr": math.nan}}, "learning rate must be a number above 0"),
        ("train", TRAIN | {"training": {"lr": math.inf}}, "learning rate must be a number above 0"),
        ("train", TRAIN | {"training": {"outlier_factor": math.nan}}, "outlier factor must be"),
        ("train", TRAIN | {"training": {"target_l0": math.inf}}, "target for L0 must be"),
        ("train", TRAIN | {"training": {"l1_lambda": math.nan}}, "coefficient must be a number"),
        ("train", TRAIN | {"training": {"seed": -1}}, "seed must be at least 0, not -1"),
        ("train", TRAIN | {"name": "s"}, "SAE 's' exists already"),
        ("train", TRAIN | {"name": "../s"}, "not a valid name"),
        ("train", TRAIN | {"device": "tpu"}, "device 'tpu' is not known"),
        ("index", {"sae_id": "nope"}, "SAE 'nope' not found"),
        ("index", {"sae_id": "orphan"}, "run 'gone', which SAE 'orphan' needs, is missing"),
        ("index", {"sae_id": "foreign"}, "does not say which run"),
        ("index", {"sae_id": "s", "run_id": "wide"}, "reads 8 inputs"),
        ("index", {"sae_id": "s", "seed": -1}, "seed must be at least 0"),
        ("index", {"sae_id": "s", "batch_size": 0}, "batch size must be at least 1"),
        ("evaluate", {"sae_id": "s", "documents": 0}, "documents must be at least 1"),
        ("evaluate", {"sae_id": "s", "seed": -1}, "seed must be at least 0"),
        ("evaluate", {"sae_id": "s", "batch_size": 0}, "batch size must be at least 1"),
        (
            "evaluate",
            {"sae_id": "s", "model": "/no/model/here"},
            "model '/no/model/here' not found",
        ),
        ("capture", CAPTURE | {"name": "r"}, "run 'r' exists already"),
        ("capture", CAPTURE | {"layers": []}, "no layer given"),
        ("capture", CAPTURE | {"dataset": {"source": "no/such/file"}}, "not found"),
    ],
)
def test_wrong_input_starts_nothing(
    workspace: Workspace, kind: str, params: dict[str, Any], says: str
) -> None:
    with pytest.raises(UserError, match=says):
        submit(workspace, kind, params)
    assert list_jobs(workspace) == []
    assert not workspace.jobs_dir.exists()


@pytest.mark.parametrize("kind", ["index", "evaluate"])
def test_a_run_of_another_model_is_refused_before_a_job_starts(
    workspace: Workspace, kind: str
) -> None:
    path = workspace.sae_dir("s") / "cfg.json"
    cfg = json.loads(path.read_text())
    cfg["metadata"]["mi_crow"]["tokenizer_hash"] = "f" * 16
    path.write_text(json.dumps(cfg))
    with pytest.raises(UserError, match="run 'r' is of model 'm'"):
        submit(workspace, kind, {"sae_id": "s"})
    assert list_jobs(workspace) == []


def test_a_bad_capture_does_not_even_make_the_workspace(tmp_path: Path) -> None:
    workspace = Workspace.plan(tmp_path / "new" / "w")
    with pytest.raises(UserError):
        submit(workspace, "capture", CAPTURE | {"dataset": {"source": "./nothing.txt"}})
    assert not (tmp_path / "new").exists()


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_texts_that_are_there_pass(tmp_path: Path) -> None:
    pq.write_table(pa.table({"body": ["a"]}), tmp_path / "a.parquet")
    write(tmp_path / "a.jsonl", '\n{"body": "a"}\n')
    write(tmp_path / "a.csv", "body,x\na,b\n")
    write(tmp_path / "a.txt", "text")
    for name in ("a.parquet", "a.jsonl", "a.csv"):
        check_dataset(DatasetSpec(str(tmp_path / name), text_field="body"))
    check_dataset(DatasetSpec(str(tmp_path / "a.txt")))
    check_dataset(DatasetSpec("sample"))
    check_dataset(DatasetSpec("org/name"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.txt", " \n", "is empty"),
        ("a.jsonl", "\n\n", "is empty"),
        ("a.csv", "", "is empty"),
        ("a.csv", "text\n", "is empty"),
        ("a.csv", "body\nx\n", "no field 'text'"),
        ("a.jsonl", '{"body": "x"}\n', "no field 'text'"),
        ("a.jsonl", "{oops\n", "not valid JSON"),
        ("a.jsonl", "3\n", "neither an object nor a text"),
        ("a.parquet", "PAR?", "not a valid Parquet file"),
        ("a.docx", "x", "of an unknown kind"),
    ],
)
def test_texts_that_cannot_be_used_are_named(
    tmp_path: Path, name: str, content: str, says: str
) -> None:
    with pytest.raises(UserError, match=says):
        check_dataset(DatasetSpec(str(write(tmp_path / name, content))))


def test_a_parquet_file_without_rows_or_text_is_refused(tmp_path: Path) -> None:
    empty: list[str] = []
    pq.write_table(pa.table({"text": pa.array(empty, pa.string())}), tmp_path / "empty.parquet")
    with pytest.raises(UserError, match="is empty"):
        check_dataset(DatasetSpec(str(tmp_path / "empty.parquet")))
    pq.write_table(pa.table({"body": ["a"]}), tmp_path / "other.parquet")
    with pytest.raises(UserError, match="no field 'text'") as caught:
        check_dataset(DatasetSpec(str(tmp_path / "other.parquet")))
    assert "body" in caught.value.hint


@pytest.mark.slow
def test_a_folder_needs_a_text_in_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no text files"):
        check_dataset(DatasetSpec(str(tmp_path)))
    write(tmp_path / "a.txt", "")
    with pytest.raises(UserError, match="is empty"):
        check_dataset(DatasetSpec(str(tmp_path)))
    (tmp_path / "deep").mkdir()
    write(tmp_path / "deep" / "b.md", "text")
    check_dataset(DatasetSpec(str(tmp_path)))


def test_models_are_told_apart(tmp_path: Path) -> None:
    check_model(ModelSpec("sample"))
    check_model(ModelSpec("HuggingFaceTB/SmolLM2-135M"))
    check_model(ModelSpec("gpt2"))
    check_model(ModelSpec(str(write(tmp_path / "m.gguf", ""))))
    with pytest.raises(UserError, match=r"not a \.gguf one"):
        check_model(ModelSpec(str(write(tmp_path / "m.bin", ""))))
    with pytest.raises(UserError, match=r"has no config\.json"):
        check_model(ModelSpec(str(tmp_path)))
    write(tmp_path / "config.json", "{}")
    check_model(ModelSpec(str(tmp_path)))
    for wrong in ("./nothing", "/no/where", "a/b/c", "missing.gguf"):
        with pytest.raises(UserError, match="not found"):
            check_model(ModelSpec(wrong))
