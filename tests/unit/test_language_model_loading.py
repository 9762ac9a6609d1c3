"""Loading a model: what works, and one sentence for what does not."""

import json
import re
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig

from mi_crow import hub
from mi_crow.errors import MiCrowError, NotFoundError, UserError
from mi_crow.language_model import LanguageModel, loading
from mi_crow.language_model.config import ModelSpec
from mi_crow.language_model.loading import load_model
from mi_crow.language_model.placement import memory
from mi_crow.language_model.placement.expected import memory_sentence
from tests.helpers.tiny_models import build_model, build_tokenizer


@pytest.fixture
def copy_dir(tiny_model_dir: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model that a test may break."""
    return Path(shutil.copytree(tiny_model_dir, tmp_path / "copy"))


def refused(model: str | Path, kind: type[MiCrowError] = UserError, **options: Any) -> str:
    with pytest.raises(kind) as caught:
        LanguageModel.from_huggingface(model, **options)
    assert "\n" not in caught.value.sentence
    return caught.value.sentence


def test_a_folder_loads_in_fp32_on_the_cpu(tiny_model_dir: Path) -> None:
    lm = LanguageModel.from_huggingface(tiny_model_dir, device="cpu")
    assert (lm.dtype, lm.device.type) == (torch.float32, "cpu")
    assert not lm.model.training
    assert not any(p.requires_grad for p in lm.model.parameters())


@pytest.mark.parametrize(("dtype", "shown"), [("auto", "fp32"), ("bf16", "bf16")])
def test_the_memory_of_the_weights_is_told_before_they_are_loaded(dtype: str, shown: str) -> None:
    told = memory_sentence(ModelSpec("sample", dtype=dtype, device="cpu")) or ""
    lm = LanguageModel.from_spec(ModelSpec("sample", dtype=dtype, device="cpu"))
    loaded = {one.data_ptr(): one.nbytes for one in lm.model.parameters()}
    assert re.fullmatch(
        rf"(\d+) MB of weights in {shown} on cpu, of [\d.]+ [GM]B that are free", told
    )
    assert int(told.split()[0]) == round(sum(loaded.values()) / 1e6)
    assert memory_sentence(ModelSpec("nobody/nothing-like-it")) is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stored", "width", "native", "expected"),
    [
        ("bfloat16", 576, True, torch.bfloat16),
        (torch.bfloat16, 576, True, torch.bfloat16),
        ("bfloat16", 576, False, torch.float32),
        ("bfloat16", 192, True, torch.float32),
        ("float32", 576, True, torch.float32),
        ("float16", 576, True, torch.float32),
    ],
)
def test_auto_is_the_fastest_dtype_that_loses_nothing(
    monkeypatch: pytest.MonkeyPatch, stored: Any, width: int, native: bool, expected: torch.dtype
) -> None:
    monkeypatch.setattr(memory, "cpu_has_bf16", lambda: native)
    config = LlamaConfig(hidden_size=width)
    config.dtype = stored
    spec = ModelSpec("m", device="cpu")
    assert loading._compute_dtype(spec, torch.device("cpu"), config) == expected
    exact = ModelSpec("m", dtype="fp32")
    assert loading._compute_dtype(exact, torch.device("cpu"), config) == torch.float32


def test_a_dtype_can_be_chosen(tiny_model_dir: Path) -> None:
    assert LanguageModel.from_huggingface(tiny_model_dir, dtype="bf16").dtype == torch.bfloat16
    assert "use auto, fp32, bf16, fp16" in refused(tiny_model_dir, dtype="int3")


def test_a_relative_folder_is_found_from_everywhere(
    tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_model_dir.parent)
    lm = LanguageModel.from_huggingface(f"./{tiny_model_dir.name}")
    assert Path(lm.model_id) == tiny_model_dir


def test_loading_prints_nothing(
    tiny_model_dir: Path, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    LanguageModel.from_huggingface(tiny_model_dir)
    assert capfd.readouterr() == ("", "")
    assert list(recwarn) == []


def test_a_loaded_model_can_be_wrapped() -> None:
    tokenizer = build_tokenizer()
    model = build_model("gpt2", len(tokenizer)).train()
    lm = LanguageModel.from_local_torch(model, tokenizer)
    assert lm.model_id == "GPT2LMHeadModel"
    assert not model.training


def test_the_sample_is_a_model_like_others() -> None:
    lm = LanguageModel.from_huggingface("sample")
    assert lm.model_id == "sample"
    assert lm.layers.blocks()


def test_a_random_model_is_the_same_one_every_time_and_not_the_trained_one(
    tiny_model_dir: Path,
) -> None:
    name = f"random:{tiny_model_dir}"
    trained = LanguageModel.from_huggingface(tiny_model_dir, device="cpu").model.state_dict()
    before = torch.get_rng_state()
    lm = LanguageModel.from_huggingface(name, device="cpu")
    assert torch.equal(torch.get_rng_state(), before)
    again = LanguageModel.from_huggingface(lm.model_id, device="cpu")
    assert (lm.model_id, lm.tokenizer_hash) == (name, again.tokenizer_hash)
    drawn = again.model.state_dict()
    matrices = [key for key, value in drawn.items() if value.ndim == 2]
    assert all(torch.equal(lm.model.state_dict()[key], drawn[key]) for key in drawn)
    assert not any(torch.equal(trained[key], drawn[key]) for key in matrices)
    assert "'nowhere/at/all' not found" in refused("random:nowhere/at/all", NotFoundError)


@pytest.mark.parametrize("model", ["./nothing", "/no/such/folder", "a/b/c", "~/no-such-folder"])
def test_paths_to_nothing(model: str) -> None:
    assert refused(model, NotFoundError) == f"model folder {model!r} not found"


def test_no_name(tmp_path: Path) -> None:
    assert "no model given" in refused("")
    assert refused(tmp_path / "x.gguf", NotFoundError).endswith("not found")


def test_a_file_that_is_no_model(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("not a model")
    assert "is a file but not a .gguf one" in refused(text)
    fake = tmp_path / "fake.gguf"
    fake.write_bytes(b"nothing of the kind")
    assert "is not a GGUF file" in refused(fake)
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(b"GGUF")
    assert "cannot be loaded from GGUF" in refused(cut)


def test_folders_that_lack_something(copy_dir: Path) -> None:
    for pattern, what in (
        ("tokenizer*", "tokenizer"),
        ("*.safetensors", "weights"),
        ("config.json", "config.json"),
    ):
        for file in copy_dir.glob(pattern):
            file.unlink()
        assert f"has no {what}" in refused(copy_dir)


def test_a_folder_of_gguf_files_names_them(tmp_path: Path) -> None:
    (tmp_path / "small.gguf").write_bytes(b"GGUF")
    assert "name its GGUF file: small.gguf" in refused(tmp_path)
    assert "GGUF files there: small.gguf" in refused(
        tmp_path, NotFoundError, gguf_file="other.gguf"
    )


def test_broken_files(copy_dir: Path) -> None:
    weights = copy_dir / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    assert "cannot be loaded" in refused(copy_dir)
    (copy_dir / "config.json").write_text("{not json")
    assert "not a valid JSON file" in refused(copy_dir)


@pytest.mark.parametrize("kind", ["clip", "zorg"])
def test_what_is_no_language_model(copy_dir: Path, kind: str) -> None:
    (copy_dir / "config.json").write_text(json.dumps({"model_type": kind}))
    assert f"not a causal language model that transformers knows (it is '{kind}')" in refused(
        copy_dir
    )


def test_devices_that_are_not_here(tiny_model_dir: Path) -> None:
    assert "is not known; use cpu" in refused(tiny_model_dir, device="abacus")
    if not torch.cuda.is_available():
        assert "'cuda' is not available" in refused(tiny_model_dir, device="cuda")
    assert "'cuda:99' is not available" in refused(tiny_model_dir, device="cuda:99")


def test_a_device_of_the_config_file_that_is_not_here_is_said_to_be_from_there(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "config.toml"
    path.write_text('device = "cuda:99"\n')
    monkeypatch.setattr("mi_crow.store.settings_file.settings_path", lambda: path)
    told = "config.toml names it: mi-crow config set device auto"
    assert told in refused(tiny_model_dir, device="cuda:99")
    assert told not in refused(tiny_model_dir, device="cuda:98")


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks again after a moment fails."""

    def sleep(seconds: float) -> None:
        raise AssertionError(f"somebody waits for {seconds} s")

    monkeypatch.setattr(time, "sleep", sleep)


@pytest.mark.usefixtures("no_waiting")
def test_a_hub_id_offline_is_told_at_once() -> None:
    sentence = refused("some-org/never-cached", NotFoundError, offline=True)
    assert "'some-org/never-cached' is not in the local cache" in sentence


@pytest.mark.usefixtures("no_waiting")
def test_an_unreachable_hub_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub's own client would retry every file for 20 seconds."""
    requests: list[str] = []

    class Dead:
        def head(self, url: str, **_: Any) -> None:
            requests.append(url)
            raise ConnectionError("no route to host")

        def __getattr__(self, name: str) -> Any:
            raise AssertionError(f"a dead network was used: {name}")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr("huggingface_hub.utils.get_session", Dead)
    assert "the hub was not reached" in refused("some-org/never-cached", NotFoundError)
    assert len(requests) == 1


def test_the_environment_forbids_asking(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_session() -> Any:
        raise AssertionError("the network was asked")

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.utils.get_session", no_session)
    assert not hub.hub_answers()


class GatedRepoError(OSError):
    """Named like the hub client's own, which needs a response to be made."""


class RepositoryNotFoundError(OSError):
    pass


@pytest.mark.parametrize(
    ("cause", "asked", "says"),
    [
        (GatedRepoError("401"), True, "is gated; ask for access"),
        (RepositoryNotFoundError("401"), True, "is not on the hub; check the name"),
        (OSError("disk on fire"), True, "cannot be loaded (disk on fire)"),
        (OSError("not cached"), False, "is not in the local cache"),
    ],
)
def test_what_the_hub_says(cause: OSError, asked: bool, says: str) -> None:
    error = OSError("something went wrong")
    error.__cause__ = cause
    kept = error if says != "cannot be loaded (disk on fire)" else cause
    assert says in hub.hub_error("model 'a/b'", kept, asked=asked).sentence


def test_a_gated_model_says_how_to_log_in(monkeypatch: pytest.MonkeyPatch) -> None:
    def gated(*_: object, **__: object) -> None:
        raise OSError("You are trying to access a gated repo.\nMake sure to have access")

    monkeypatch.setattr("mi_crow.language_model.loading.hub_answers", lambda: True)
    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", gated)
    assert "run `hf auth login`" in refused("org/gated")


def test_code_from_the_hub_is_asked_for(copy_dir: Path) -> None:
    config = json.loads((copy_dir / "config.json").read_text())
    config["model_type"] = "custom"
    config["auto_map"] = {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"}
    (copy_dir / "config.json").write_text(json.dumps(config))
    assert "pass --trust-remote-code" in refused(copy_dir)


def test_a_gguf_file_in_a_hub_repository_keeps_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, str]] = []

    def note(place: str, **options: Any) -> None:
        seen.append((place, options["gguf_file"]))
        raise OSError("stop here")

    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", note)
    for spec in (
        ModelSpec("org/name", gguf_file="q4.gguf", offline=True),
        ModelSpec("org/name/q4.gguf", offline=True),
    ):
        with pytest.raises(NotFoundError):
            load_model(spec)
    assert seen == [("org/name", "q4.gguf")] * 2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_cuda_a_model_computes_in_bf16(tiny_model_dir: Path) -> None:
    lm = LanguageModel.from_huggingface(tiny_model_dir)
    assert (lm.device.type, lm.dtype) == ("cuda", torch.bfloat16)
    assert lm.generate("The ferry", max_new_tokens=4, n=3).texts
