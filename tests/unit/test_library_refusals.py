"""What cannot be loaded, waited for or asked, each in a sentence, without a model being loaded."""

import errno
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers

from mi_crow.errors import CancelledError, MiCrowError, UserError
from mi_crow.jobs import runner
from mi_crow.language_model import loading
from mi_crow.language_model.capture.tokenizer_process import tokens_of
from mi_crow.language_model.config import ModelSpec
from mi_crow.mechanistic.attribution import run
from mi_crow.mechanistic.sae import SaeMetadata
from mi_crow.mechanistic.steering.fits import all_maxima, looked_up, same_model
from mi_crow.mechanistic.steering.interventions import parse_intervention
from mi_crow.store.workspace import Workspace

HUB = loading.Source("org/name", None, "org/name", False)
FOLDER = loading.Source("/m", None, "/m", True)
GGUF = loading.Source("/m", "a.gguf", "/m/a.gguf", True)


@pytest.mark.parametrize(
    ("source", "error", "says"),
    [
        (FOLDER, torch.OutOfMemoryError("CUDA out of memory"), "does not fit into the memory of"),
        (FOLDER, OSError(errno.ENOSPC, "No space left on device", "/c"), "is full"),
        (GGUF, ImportError("No module named 'gguf'"), "needs a package that is missing (No module"),
        (FOLDER, ValueError("pass trust_remote_code=True"), "requires its own code; read it"),
        (
            FOLDER,
            ValueError("Unrecognized configuration class <x.configuration_t5.T5Config>"),
            "is not a causal language model that transformers knows (it is 't5')",
        ),
        (
            FOLDER,
            ValueError("Transformers does not recognize this architecture"),
            "is not a causal language model that transformers knows; give another",
        ),
        (GGUF, ValueError("cut"), "cannot be loaded from GGUF (cut); the file may be cut short"),
        (FOLDER, ValueError("odd"), "cannot be loaded (odd)"),
        (HUB, ValueError("odd"), "cannot be loaded (odd)"),
        (HUB, OSError("odd"), "is not in the local cache"),
    ],
)
def test_why_a_model_cannot_be_loaded(source: loading.Source, error: Exception, says: str) -> None:
    with pytest.raises(MiCrowError) as caught, loading._one_sentence(ModelSpec("m"), source, False):
        raise error
    assert says in caught.value.sentence


def test_only_a_lack_of_memory_is_one() -> None:
    with (
        pytest.raises(UserError, match="'m' does not fit into the memory of cpu"),
        loading._fitting(ModelSpec("m"), torch.device("cpu")),
    ):
        raise MemoryError
    with pytest.raises(KeyError), loading._fitting(ModelSpec("m"), torch.device("cpu")):
        raise KeyError("other")


@pytest.mark.parametrize(
    ("model", "place", "file"),
    [
        ("org/name/q4.gguf", "org/name", "q4.gguf"),
        ("org/name", "org/name", None),
    ],
)
def test_a_file_of_a_hub_repository(model: str, place: str, file: str | None) -> None:
    found = loading.locate(ModelSpec(model))
    assert (found.place, found.gguf_file, found.model_id) == (place, file, model)
    assert not found.local


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (" ", "no model given"),
        ("a/b/c/d", "model folder 'a/b/c/d' not found"),
        ("./q4.gguf", "model file './q4.gguf' not found"),
    ],
)
def test_what_is_nowhere(model: str, says: str) -> None:
    with pytest.raises(UserError) as caught:
        loading.locate(ModelSpec(model))
    assert caught.value.sentence.startswith(says)


def test_a_folder_that_holds_something_else(tmp_path: Path) -> None:
    def refused(model: Path, **more: Any) -> str:
        with pytest.raises(UserError) as caught:
            loading.locate(ModelSpec(str(model), **more))
        return caught.value.sentence

    assert refused(tmp_path).endswith("has no config.json; give a model's folder")
    (tmp_path / "a.gguf").write_bytes(b"none")
    assert refused(tmp_path).endswith("has no config.json; name its GGUF file: a.gguf")
    assert "GGUF files there: a.gguf" in refused(tmp_path, gguf_file="b.gguf")
    assert "is not a GGUF file" in refused(tmp_path, gguf_file="a.gguf")
    (tmp_path / "a.gguf").write_bytes(b"GGUF....")
    found = loading.locate(ModelSpec(str(tmp_path), gguf_file="a.gguf"))
    assert (found.place, found.gguf_file) == (str(tmp_path), "a.gguf")
    (tmp_path / "notes.txt").write_text("x")
    assert "is a file but not a .gguf one" in refused(tmp_path / "notes.txt")


def test_offsets_are_only_of_long_texts() -> None:
    encoder = Tokenizer(models.WordLevel({"a": 0, "b": 1, "?": 2}, unk_token="?"))
    encoder.pre_tokenizer = pre_tokenizers.Whitespace()
    found = tokens_of(encoder, ["a b", "b", "b x a"], 2).to_pydict()
    assert found["ids"] == [[0, 1], [1], [1, 2, 0]]
    assert found["starts"] == [None, None, [0, 2, 4]]
    assert found["ends"] == [None, None, [1, 3, 5]]
    assert tokens_of(encoder, ["a b"], None).to_pydict()["starts"] == [None]


def test_the_sae_whose_feature_is_asked_for() -> None:
    sites = [SimpleNamespace(sae_id="one"), SimpleNamespace(sae_id="two")]

    def found(feature: str | None) -> Any:
        return run._target_site(sites, SimpleNamespace(feature=feature))  # pyright: ignore[reportArgumentType]

    assert found(None) is None
    assert found("3") is sites[1]
    assert found("one/3") is sites[0]
    with pytest.raises(UserError, match="SAE 'three' is not among those given"):
        found("three/3")
    assert run.feature_number("one/7", 8) == 7
    with pytest.raises(UserError, match="feature 8 is not in the SAE"):
        run.feature_number("one/8", 8)


@pytest.mark.parametrize(
    ("asked", "kind"),
    [
        ({"against": "x"}, "difference"),
        ({"log_probability": True}, "log_probability"),
        ({"raw_logit": True}, "logit"),
        ({}, "centred_logit"),
    ],
)
def test_what_is_attributed(asked: dict[str, Any], kind: str) -> None:
    known = {"against": None, "log_probability": False, "raw_logit": False}
    assert run._kind(SimpleNamespace(**known | asked)) == kind  # pyright: ignore[reportArgumentType]


def test_saes_of_two_models_are_not_loaded_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "open_sae", lambda _, name, __: (SaeMetadata(), ModelSpec(name[0])))
    with pytest.raises(UserError, match="SAE 'b1' reads 'b', 'a1' reads 'a'"):
        run.load_together(Workspace(tmp_path), ["a1", "a2", "b1"], "cpu")


@pytest.mark.parametrize(
    ("older", "holder", "says"),
    [
        (2, "j1 in workspace w", "job j1 in workspace w on cuda:0, 2 jobs ahead"),
        (0, "j1 in workspace w", "job j1 in workspace w on cuda:0"),
        (1, "", "cuda:0 (1 job ahead)"),
        (0, "", "cuda:0 (in use by another job)"),
    ],
)
def test_whom_a_job_waits_for(older: int, holder: str, says: str) -> None:
    queue = SimpleNamespace(ahead=lambda: older, holder=lambda: holder)
    assert runner._what_holds(queue, "cuda:0") == says  # pyright: ignore[reportArgumentType]


def test_nobody_waits_for_a_device_called_auto(monkeypatch: pytest.MonkeyPatch) -> None:
    queue = SimpleNamespace(ahead=lambda: 0, holder=lambda: "j1")
    for device, says in [("cuda-0", "job j1 on cuda:0"), ("cpu", "job j1 on cpu")]:
        monkeypatch.setattr(runner, "device_key", lambda _, device=device: device)
        assert runner._what_holds(queue, "auto") == says  # pyright: ignore[reportArgumentType]


def test_a_job_waits_for_another_until_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = iter(["running", "finished", "running", "failed", "running"])
    said: list[str] = []
    stops = iter([False, False, True])
    reporter: Any = SimpleNamespace(waiting=said.append, wait_for_stop=lambda _: next(stops))

    def state(*_: object) -> SimpleNamespace:
        status = next(states)
        return SimpleNamespace(status=status, active=status == "running")

    monkeypatch.setattr(runner, "job_state", state)
    workspace = Workspace(tmp_path)
    runner._wait_for_job(workspace, None, reporter)
    assert said == []
    runner._wait_for_job(workspace, "first", reporter)
    assert said == ["job first"]
    with pytest.raises(UserError, match="job 'first', which must finish first, is failed"):
        runner._wait_for_job(workspace, "first", reporter)
    with pytest.raises(CancelledError):
        runner._wait_for_job(workspace, "first", reporter)


def test_features_that_do_not_name_their_sae(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    with pytest.raises(UserError, match="does not name its SAE"):
        all_maxima(workspace, None, [parse_intervention("3=+0.5max")])
    with pytest.raises(UserError, match="tag sea does not name its SAE"):
        looked_up(workspace, [parse_intervention("tag:sea=+1")], None)
    with pytest.raises(UserError, match="no feature of SAE 's' has tag 'sea'"):
        looked_up(workspace, [parse_intervention("tag:sea=+1")], "s")
    assert same_model("a", "1", "b", "1")
    assert not same_model("a", "1", "a", "2")
    assert same_model("a", None, "", "2")
    assert not same_model("a", None, "b", "2")
