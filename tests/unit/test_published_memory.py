"""The memory of a model on the hub is known before its weights are downloaded."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from mi_crow.errors import UserError
from mi_crow.language_model import LanguageModel
from mi_crow.language_model.config import ModelSpec
from mi_crow.language_model.placement import devices, expected
from mi_crow.language_model.placement.expected import memory_sentence
from tests.helpers.fake_hub import FakeHub
from tests.helpers.local_server import served

LARGE = 200_000  # bytes, of which the first hundred thousand are asked for with a header


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with served(FakeHub(tmp_path / "hub")) as server:
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
        yield server


@pytest.fixture
def published(hub: FakeHub, tiny_model_dir: Path) -> Path:
    """A model of several files on the hub."""
    folder = hub.root / "org" / "model"
    shutil.copytree(tiny_model_dir, folder)
    (folder / "model.safetensors").unlink()
    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    model.save_pretrained(folder, max_shard_size=30_000)
    for file in folder.glob("*.safetensors"):
        file.write_bytes(file.read_bytes() + bytes(LARGE))
    return folder


def test_the_headers_of_its_files_are_all_that_is_fetched_of_the_weights(
    hub: FakeHub, published: Path
) -> None:
    told = memory_sentence(ModelSpec("org/model", device="cpu"))
    shutil.copytree(published, hub.root / "here")
    assert told is not None
    assert (
        told.split(", of")[0]
        == str(memory_sentence(ModelSpec(str(hub.root / "here"), device="cpu"))).split(", of")[0]
    )
    assert len(hub.ranges) == len([*published.glob("*.safetensors")]) > 1
    assert set(hub.ranges) == {"bytes=0-100000"}


def test_one_that_does_not_fit_is_refused_before_it_is_downloaded(
    hub: FakeHub, published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "available_memory", lambda: 1000)
    with pytest.raises(UserError, match=r"'org/model' takes .* in fp32, cpu has .* free"):
        LanguageModel.from_huggingface("org/model", device="cpu", dtype="fp32")
    assert "all" not in hub.ranges


def test_nothing_is_said_where_the_hub_does_not_say_it(
    hub: FakeHub, published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in (*published.glob("*.safetensors"), *published.glob("*.index.json")):
        file.unlink()
    assert memory_sentence(ModelSpec("org/model", device="cpu")) is None
    save_file({"one": torch.zeros(2)}, published / "model.safetensors")
    assert memory_sentence(ModelSpec("org/model", device="cpu")) is not None
    (published / "model.safetensors").write_bytes(b"torn")
    assert memory_sentence(ModelSpec("org/model", device="cpu")) is None
    assert memory_sentence(ModelSpec("org/absent", device="cpu")) is None
    hub.gated = True
    assert memory_sentence(ModelSpec("org/model", device="cpu")) is None


def test_offline_the_hub_is_not_asked(hub: FakeHub, published: Path) -> None:
    assert memory_sentence(ModelSpec("org/model", device="cpu", offline=True)) is None
    with pytest.MonkeyPatch.context() as without:
        without.setenv("HF_HUB_OFFLINE", "1")
        assert memory_sentence(ModelSpec("org/model", device="cpu")) is None
    with pytest.MonkeyPatch.context() as without:
        without.setattr(expected, "hub_answers", lambda: False)
        assert memory_sentence(ModelSpec("org/model", device="cpu")) is None
    assert hub.fetched == []
