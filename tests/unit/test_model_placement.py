"""Models that are spread over devices or quantized, and the memory that one takes."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mi_crow.cli.arguments import Parser, add_device, device_of
from mi_crow.errors import UserError
from mi_crow.jobs.device_lock import devices_of
from mi_crow.language_model import LanguageModel, loading
from mi_crow.language_model.capture_pass import run_to
from mi_crow.language_model.placement import devices, packages
from mi_crow.language_model.placement.memory import weights_bytes
from mi_crow.mechanistic.attribution.lens import logit_lens
from mi_crow.mechanistic.sae import TopKSae
from mi_crow.mechanistic.steering.interventions import Intervention
from mi_crow.mechanistic.steering.steer import steering
from mi_crow.store.settings import SPREAD

TEXT = "The ferry left the harbour before dawn."


@pytest.fixture(scope="module")
def plain() -> LanguageModel:
    return LanguageModel.from_huggingface("sample", device="cpu", dtype="fp32")


@pytest.fixture(scope="module")
def offloaded() -> LanguageModel:
    """The same with its later blocks and its norm in the files until they run."""
    pytest.importorskip("accelerate")
    places = {"model.embed_tokens": "cpu", "lm_head": "cpu", "model.rotary_emb": "cpu"}
    places |= {f"model.layers.{n}": "cpu" if n < 2 else "disk" for n in range(4)}
    places["model.norm"] = "disk"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "placement", lambda *_: {"device_map": places})
        return LanguageModel.from_huggingface("sample", device=SPREAD, dtype="fp32")


def last_logits(lm: LanguageModel) -> torch.Tensor:
    with torch.no_grad():
        return lm.model(**lm.encode([TEXT]).as_inputs()).logits


def test_an_offloaded_model_computes_and_captures_the_same(
    plain: LanguageModel, offloaded: LanguageModel
) -> None:
    assert devices.is_spread(offloaded.model)
    assert next(offloaded.model.model.layers[3].parameters()).is_meta
    torch.testing.assert_close(last_logits(offloaded), last_logits(plain))
    names = ["resid_post.1", "mlp_out.2", "attn_in.3", "resid_post.3"]
    found = []
    for lm in (plain, offloaded):
        read = run_to(lm, [lm.layers.resolve(name) for name in names], lm.encode([TEXT]).input_ids)
        found.append([one.clone() for one in read.values()])
    for wanted, got in zip(*found, strict=True):
        torch.testing.assert_close(got, wanted)
    assert offloaded.layers.survey() == plain.layers.survey()


def test_steering_and_the_lens_work_in_offloaded_blocks(
    plain: LanguageModel, offloaded: LanguageModel
) -> None:
    sae, found, lenses = TopKSae(64, 192, 8), [], []
    for lm in (plain, offloaded):
        with steering(lm, sae, "resid_post.3", [Intervention("feature:5", "add", 20.0)]):
            found.append(last_logits(lm))
        lenses.append(logit_lens(lm, lm.encode([TEXT]), 3))
    torch.testing.assert_close(found[1], found[0])
    assert not torch.equal(found[0], last_logits(plain))
    for wanted, got in zip(*lenses, strict=True):
        assert torch.equal(got.tokens, wanted.tokens)


def test_a_text_goes_on_in_the_same_way(plain: LanguageModel, offloaded: LanguageModel) -> None:
    wanted, got = (lm.generate(TEXT, 8, temperature=0) for lm in (plain, offloaded))
    assert got.text == wanted.text


def test_without_a_gpu_a_spread_model_is_in_host_memory(plain: LanguageModel) -> None:
    pytest.importorskip("accelerate")
    if torch.cuda.is_available():
        pytest.skip("for a machine without a GPU")
    lm = LanguageModel.from_huggingface("sample", device=SPREAD, dtype="fp32")
    assert lm.device == torch.device("cpu")
    torch.testing.assert_close(last_logits(lm), last_logits(plain))
    assert devices_of(SPREAD, 1) == [SPREAD]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_model_over_a_gpu_and_host_memory_computes_the_same(
    plain: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("accelerate")
    places: dict[str, int | str] = {f"model.layers.{n}": 0 if n < 2 else "cpu" for n in range(4)}
    places |= dict.fromkeys(("model.embed_tokens", "model.rotary_emb", "model.norm", "lm_head"), 0)
    monkeypatch.setattr(loading, "placement", lambda *_: {"device_map": places})
    lm = LanguageModel.from_huggingface("sample", device=SPREAD, dtype="fp32")
    assert devices.is_spread(lm.model)
    assert lm.device.type == "cuda"
    torch.testing.assert_close(last_logits(lm).cpu(), last_logits(plain), rtol=1e-3, atol=1e-3)
    point = lm.layers.resolve("resid_post.3")
    assert run_to(lm, [point], lm.encode([TEXT]).input_ids)[point].device == lm.device


@pytest.mark.parametrize("dtype", ["8bit", "4bit"])
def test_a_quantized_model_without_the_package_is_refused_in_a_sentence(
    dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=f"in {dtype} without the package") as caught:
        LanguageModel.from_huggingface("sample", device="cpu", dtype=dtype)
    assert "[big]" in caught.value.hint
    with pytest.raises(UserError, match="needs the package accelerate"):
        LanguageModel.from_huggingface("sample", device=SPREAD)
    with pytest.raises(UserError, match="neither quantized nor spread"):
        LanguageModel.from_huggingface("random:sample", device="cpu", dtype=dtype)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["8bit", "4bit"])
def test_a_quantized_model_is_near_the_whole_one(plain: LanguageModel, dtype: str) -> None:
    pytest.importorskip("bitsandbytes")
    lm = LanguageModel.from_huggingface("sample", device="cpu", dtype=dtype)
    near = torch.nn.functional.cosine_similarity(last_logits(lm).float(), last_logits(plain), -1)
    assert 0.9 < float(near.mean()) < 0.99999
    points = [lm.layers.resolve("resid_post.1")]
    assert run_to(lm, points, lm.encode([TEXT]).input_ids)[points[0]].shape[-1] == 192


def test_the_memory_of_a_model_is_known_from_the_headers_of_its_files(tmp_path: Path) -> None:
    tensors = {
        "model.embed_tokens.weight": torch.zeros(100, 8),
        "model.layers.0.mlp.up_proj.weight": torch.zeros(32, 8),
        "model.norm.weight": torch.zeros(8),
    }
    save_file(tensors, tmp_path / "model.safetensors")
    save_file(tensors, tmp_path / "copy.safetensors")  # not what is loaded
    count = 800 + 256 + 8
    assert weights_bytes(tmp_path, "fp32") == 4 * count
    assert weights_bytes(tmp_path, "bf16") == 2 * count
    assert 2 * 808 + 256 < (weights_bytes(tmp_path, "8bit") or 0) < 2 * 808 + 300
    (tmp_path / "model.safetensors").write_bytes(b"torn")
    assert weights_bytes(tmp_path, "fp32") is None


def test_a_model_that_does_not_fit_is_refused_before_it_is_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(devices, "available_memory", lambda: 1_000_000)
    with pytest.raises(UserError, match=r"'sample' takes .* in fp32, cpu has 1 MB free") as caught:
        LanguageModel.from_huggingface("sample", device="cpu", dtype="fp32")
    assert "--quantize 8bit" in caught.value.hint


def test_a_device_and_a_map_of_devices_exclude_each_other() -> None:
    parser = Parser()
    add_device(parser)
    assert device_of(parser.parse_args(["--device-map", "auto"])) == SPREAD
    with pytest.raises(UserError, match="both given"):
        device_of(parser.parse_args(["--device-map", "auto", "--device", "cpu"]))


def test_the_main_device_is_the_first_that_computes() -> None:
    class Placed:
        hf_device_map = {"embed": "cpu", "layers.0": 1, "layers.1": 0}

    assert devices.main_device(Placed(), torch.device("cpu")) == torch.device("cuda:1")
    assert devices.is_spread(Placed())
