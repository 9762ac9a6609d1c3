"""Configs survive the way through spec.json, and nothing unknown gets in."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mi_crow.errors import CorruptDataError, UserError
from mi_crow.jobs.kinds import KINDS, Work, device_of, with_device
from mi_crow.jobs.spec import JobSpec, config_as_json, config_from_json
from mi_crow.language_model.config import CaptureConfig, DatasetSpec, ModelSpec
from mi_crow.mechanistic.sae.config import SaeTrainingConfig, TrainConfig
from mi_crow.mechanistic.sae.train.trainer import flushed_denormals
from mi_crow.progress import NullProgress
from mi_crow.ranks import ALONE
from mi_crow.store.workspace import Workspace

CAPTURE = CaptureConfig(ModelSpec("sample"), DatasetSpec("sample"), ("resid_post.2", "mlp_out.1"))


@settings(deadline=None, max_examples=50)
@given(
    layers=st.lists(st.text(min_size=1), min_size=1).map(tuple),
    limit=st.none() | st.integers(1, 10**12),
    model=st.text(),
)
def test_a_capture_config_comes_back_from_json(
    layers: tuple[str, ...], limit: int | None, model: str
) -> None:
    config = CaptureConfig(ModelSpec(model), DatasetSpec("d", limit=limit), layers)
    text = json.dumps(config_as_json(config))
    assert config_from_json(CaptureConfig, json.loads(text)) == config


def test_a_train_config_comes_back_from_json() -> None:
    config = TrainConfig("r", "l", expansion=4.0, training=SaeTrainingConfig(steps=5, lr=None))
    assert config_from_json(TrainConfig, json.loads(json.dumps(config_as_json(config)))) == config


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({"run_id": "r", "layer": "l", "kk": 3}, "train has no parameter 'kk'"),
        ({"run_id": "r"}, "train lacks 'layer'"),
        ({"run_id": "r", "layer": "l", "k": "3"}, "train.k must be of type int, not str"),
        ({"run_id": "r", "layer": "l", "k": True}, "train.k must be of type int, not bool"),
        ({"run_id": 7, "layer": "l"}, "train.run_id must be of type str, not int"),
        (
            {"run_id": "r", "layer": "l", "training": {"spets": 3}},
            "train.training has no parameter",
        ),
        ({"run_id": "r", "layer": "l", "training": 3}, "train.training must be an object"),
        ([], "train must be an object, not list"),
    ],
)
def test_bad_params_are_named(params: Any, says: str) -> None:
    with pytest.raises(UserError, match=says):
        config_from_json(TrainConfig, params, "train")


def test_a_whole_number_is_a_float_where_one_is_wanted() -> None:
    assert (
        config_from_json(TrainConfig, {"run_id": "r", "layer": "l", "expansion": 8}).expansion == 8
    )


def test_a_layer_list_must_be_a_list_of_texts() -> None:
    params = config_as_json(CAPTURE) | {"layers": "resid_post.2"}
    with pytest.raises(UserError, match="layers must be a list"):
        config_from_json(CaptureConfig, params)


def test_the_device_of_every_kind_can_be_read_and_changed() -> None:
    configs = [CAPTURE, TrainConfig("r", "l"), KINDS["demo"].config()]
    for config in configs:
        assert device_of(config) == "auto"
        assert device_of(with_device(config, "cuda:1")) == "cuda:1"


def test_a_spec_comes_back_and_a_broken_one_is_said_to_be_broken(tmp_path: Path) -> None:
    spec = JobSpec("train", {"run_id": "r"}, device="cpu", name="n", after="a")
    spec.save(tmp_path)
    assert JobSpec.load(tmp_path) == spec
    (tmp_path / "spec.json").write_text("[1]")
    with pytest.raises(CorruptDataError):
        JobSpec.load(tmp_path)
    (tmp_path / "spec.json").write_text('{"params": {}}')
    with pytest.raises(CorruptDataError, match="kind"):
        JobSpec.load(tmp_path)


@pytest.mark.parametrize(
    ("kind", "function"),
    [
        ("explain", "explain.job.explain_features"),
        ("explanations", "explain.explanations.job.explain_with"),
        ("evaluate", "sae.evaluation.evaluate.evaluate_sae"),
        ("steer-sweep", "steering.measure.sweep.run_sweep"),
        ("steer-auto", "steering.measure.auto.run_auto"),
        ("steer-scores", "steering.measure.output_scores.score_outputs"),
        ("vector", "vectors.job.run_make"),
        ("export", "sae.formats.exporting.export_from"),
    ],
)
def test_a_kind_of_job_does_its_work_by_one_call(
    kind: str, function: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    called: list[tuple[object, ...]] = []

    def work(*given: object, **shared: object) -> dict[str, int]:
        called.append(given)
        assert shared == ({"ranks": ALONE} if KINDS[kind].ranked else {})
        return {"seconds": 1}

    monkeypatch.setattr(f"mi_crow.mechanistic.{function}", work)
    given = Work(Workspace(tmp_path), object(), NullProgress(), None)
    with flushed_denormals():  # which work sets for its process
        assert KINDS[kind].work(given) == {"seconds": 1}
    assert called == [(given.workspace, given.config, given.progress)]
