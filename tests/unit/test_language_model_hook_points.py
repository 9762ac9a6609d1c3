"""Hook points of many architectures: what is added to the residual stream is what adds up to it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mi_crow.cli import main
from mi_crow.errors import MiCrowError, UserError
from mi_crow.hooks import FunctionController, LayerActivationDetector
from mi_crow.language_model import LanguageModel
from mi_crow.language_model.capture_pass import run_to
from mi_crow.mechanistic.sae.substitute import substitute
from mi_crow.store import LocalStore
from tests.helpers.architectures import SPECIFICS, tiny
from tests.helpers.tiny_models import TEXTS

# One of each kind by default; the others take longer than they are likely to find something.
USUAL = ("llama", "gpt_neox", "gemma2", "olmo2", "granite", "bloom", "opt", "mamba", "llama4_text")
EVERY = [
    pytest.param(name, marks=[] if name in USUAL else [pytest.mark.slow])
    for name in SPECIFICS
    if name not in ("gemma3n_text", "rwkv")
]
# Blocks without a stream between their sub-layers.
PARALLEL = ("gpt_neox", "gptj", "codegen", "phi", "falcon", "falcon with two norms", "cohere")
PARALLEL += ("cohere2", "stablelm in parallel")
ALONE = ("mamba", "mamba2")


@pytest.fixture(autouse=True)
def _without_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


def read(lm: LanguageModel, *names: str) -> list[Tensor]:
    ids = torch.tensor([lm.tokenizer(TEXTS[0])["input_ids"][:24]])
    points = [lm.layers.resolve(name) for name in names]
    found = run_to(lm, points, ids)
    return [found[point] for point in points]


def close(one: Tensor, other: Tensor) -> None:
    assert float((one - other).norm() / other.norm()) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY)
def test_contributions_add_up_to_the_stream(name: str) -> None:
    lm = tiny(name)
    ids = torch.tensor([lm.tokenizer(TEXTS[0])["input_ids"][:24]])
    before = lm.model(input_ids=ids, use_cache=False).logits
    for block in range(3):
        if name in ALONE:
            pre, attention, post = read(
                lm, f"resid_pre.{block}", f"attn_out.{block}", f"resid_post.{block}"
            )
            close(pre + attention, post)
            continue
        pre, attention, mlp, post = read(
            lm, *(f"{kind}.{block}" for kind in ("resid_pre", "attn_out", "mlp_out", "resid_post"))
        )
        close(pre + attention + mlp, post)
        if name in PARALLEL:
            with pytest.raises(UserError, match=r"resid_mid.* run in parallel"):
                lm.layers.resolve(f"resid_mid.{block}")
        else:
            close(pre + attention, read(lm, f"resid_mid.{block}")[0])
    # What is written there acts on the stream by as much.
    for point in ("attn_out.1",) if name in ALONE else ("attn_out.1", "mlp_out.1"):
        (post,) = read(lm, "resid_post.1")
        with FunctionController(point, lambda x: x * 1.0).on(lm):
            same = lm.model(input_ids=ids, use_cache=False).logits
        assert torch.equal(same, before)
        with substitute(lm, point, lambda x: x + 0.5):
            changed = Moved(lm)(ids)
        if point == "mlp_out.1" or name in ALONE or name in PARALLEL:
            close(changed, post + 0.5)


class Moved:
    """The stream behind block 1 in a pass that runs as it is hooked."""

    def __init__(self, lm: LanguageModel) -> None:
        self._lm = lm

    def __call__(self, ids: Tensor) -> Tensor:
        with LayerActivationDetector("resid_post.1").on(self._lm) as detector:
            self._lm.model(input_ids=ids, use_cache=False)
        found = detector.get_captured()
        assert found is not None
        return found


@pytest.mark.parametrize(
    ("name", "point", "module", "scale"),
    [
        ("gemma2", "mlp_out.1", "post_feedforward_layernorm", 1.0),
        ("gemma2", "mlp_raw.1", "mlp", 1.0),
        ("gemma2", "attn_out.1", "post_attention_layernorm", 1.0),
        ("olmo2", "attn_out.1", "post_attention_layernorm", 1.0),
        ("granite", "mlp_out.1", "mlp", 0.22),
        ("granite", "mlp_raw.1", "mlp", 1.0),
        ("bloom", "mlp_out.1", "mlp.dense_4h_to_h", 1.0),
        ("bloom", "mlp_raw.1", "mlp", 1.0),
        ("opt", "mlp_out.1", "fc2", 1.0),
        ("llama", "z.1", "self_attn.o_proj", 1.0),
        ("bloom", "z.1", "self_attention.dense", 1.0),
        ("llama", "mlp_in.1", "mlp", 1.0),
        ("opt", "mlp_in.1", "fc1", 1.0),
    ],
)
def test_where_a_point_is(name: str, point: str, module: str, scale: float) -> None:
    lm = tiny(name)
    found = lm.layers.resolve(point)
    assert (found.name.removeprefix(f"{lm.layers.blocks()[1]}."), found.scale) == (module, scale)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["gemma2", "granite", "gpt_neox"])
def test_half_precision_finds_the_same_points(name: str, dtype: torch.dtype) -> None:
    whole, half = tiny(name), tiny(name, dtype)
    for point in ("attn_out.1", "mlp_out.1", "mlp_raw.1", "mlp_in.1", "z.1"):
        assert half.layers.resolve(point) == whole.layers.resolve(point)


def test_a_coarsely_rounded_stream_hides_neither_of_two_modules() -> None:
    whole, half = tiny("falcon_h1"), tiny("falcon_h1", torch.bfloat16)
    with torch.no_grad():
        half.model.get_input_embeddings().weight.mul_(200)
    assert half.layers.resolve("attn_out.1") == whole.layers.resolve("attn_out.1")
    assert len(half.layers.resolve("attn_out.1").plus) == 1


def test_a_model_with_a_massive_token_is_measured_all_the_same() -> None:
    lm = tiny("gemma2", torch.bfloat16)
    with torch.no_grad():
        weight = lm.model.get_input_embeddings().weight
        weight[:7] *= 300
        weight[7:] *= 8
    assert lm.layers.resolve("mlp_out.2").name.endswith("post_feedforward_layernorm")


def test_writing_the_stream_between_changes_all_that_follows() -> None:
    lm = tiny("granite")
    ids = torch.tensor([lm.tokenizer(TEXTS[0])["input_ids"][:24]])
    with FunctionController("resid_mid.1", lambda x: torch.full_like(x, 0.5)).on(lm):
        post = Moved(lm)(ids)
        with LayerActivationDetector("mlp_out.1").on(lm) as detector:
            lm.model(input_ids=ids, use_cache=False)
    contribution = detector.get_captured()
    assert contribution is not None
    close(0.5 + contribution, post)


@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt_neox", "falcon with two norms"])
def test_before_a_norms_gain_values_are_normalised(name: str) -> None:
    lm = tiny(name)
    point = lm.layers.resolve("blocks.1.ln2.hook_normalized")
    (normalised,) = read(lm, "blocks.1.ln2.hook_normalized")
    torch.testing.assert_close(
        normalised.square().mean(-1), torch.ones(normalised.shape[:2]), rtol=1e-2, atol=1e-2
    )
    (mlp_in,) = read(lm, "mlp_in.1")
    norm = lm.model.get_submodule(point.name)
    gain = norm.weight + (1 if point.gain == "1+w" else 0)
    bias = getattr(norm, "bias", None)
    rebuilt = normalised * gain + (bias if bias is not None else 0)
    torch.testing.assert_close(rebuilt, mlp_in, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("blocks.1.hook_resid_pre", "resid_pre.1"),
        ("blocks.1.hook_resid_mid", "resid_mid.1"),
        ("blocks.1.hook_mlp_in", "resid_mid.1"),  # theirs is before the norm
        ("blocks.1.hook_mlp_out", "mlp_out.1"),
        ("blocks.1.hook_attn_out", "attn_out.1"),
        ("blocks.1.attn.hook_z", "z.1"),
        ("blocks.1.mlp.hook_in", "mlp_in.1"),
        ("hook_embed", "resid_pre.0"),
        ("model.layers.1.mlp.input", "mlp_in.1"),
        ("model.layers.1.output", "resid_post.1"),
        ("layers.1.mlp", "mlp_raw.1"),
    ],
)
def test_other_tools_names_mean_the_same_tensor(theirs: str, ours: str) -> None:
    lm = tiny("gemma2")
    assert lm.layers.resolve(theirs).same_tensor(lm.layers.resolve(ours))


def test_what_a_module_takes_can_be_read_and_changed() -> None:
    lm = tiny("llama")
    ids = torch.tensor([lm.tokenizer(TEXTS[0])["input_ids"][:24]])
    z, out = read(lm, "model.layers.1.self_attn.o_proj.input", "attn_out.1")
    close(lm.model.model.layers[1].self_attn.o_proj(z), out)
    with FunctionController("z.1", torch.zeros_like).on(lm):
        with LayerActivationDetector("attn_out.1").on(lm) as detector:
            lm.model(input_ids=ids, use_cache=False)
        found = detector.get_captured()
    assert found is not None
    assert not found.any()


def test_streams_side_by_side_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    lm = tiny("gemma3n_text")
    lm.store = LocalStore(tmp_path)
    with pytest.raises(UserError, match=r"carries 4 streams at once") as caught:
        lm.activations.save("resid_post.1", TEXTS, run_name="r")
    assert "mlp_raw.1" in caught.value.hint
    assert not (tmp_path / "activations").exists() or not any((tmp_path / "activations").iterdir())
    with pytest.raises(UserError, match=r"'mlp_out.1' of .* 4 streams"):
        lm.layers.width("mlp_out.1")
    assert lm.layers.width("mlp_raw.1") == 32


@pytest.mark.parametrize("name", ["qwen3", "gemma3_text"])  # heads before and after the tokens
def test_heads_of_a_token_stand_side_by_side(name: str) -> None:
    lm = tiny(name)
    point = lm.layers.resolve("model.layers.1.self_attn.q_norm")
    assert lm.layers.width(point) == 32
    seen: list[Tensor] = []
    module = lm.model.get_submodule(point.name)
    handle = module.register_forward_hook(lambda _, __, output: seen.append(output))
    rows = read(lm, point.name)[0]
    handle.remove()
    whole = seen[-1] if name == "qwen3" else seen[-1].transpose(1, 2)
    assert torch.equal(rows[0, 3, 8:16], whole[0, 3, 1])


class Pooled(nn.Module):
    """Gives as many rows as there are tokens, in another order."""

    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(0, 1).flatten(0, 1)


def test_rows_in_another_order_are_refused() -> None:
    lm = tiny("llama")
    block = lm.model.model.layers[1]
    block.mlp.pooled = Pooled()
    block.mlp.register_forward_hook(lambda module, args, _: (module.pooled(args[0]), None)[1])
    with pytest.raises(UserError, match="not one row per token"):
        lm.layers.width("model.layers.1.mlp.pooled")


def test_flat_rows_are_one_a_token() -> None:
    lm = tiny("qwen3_moe")
    gate = read(lm, "model.layers.1.mlp.gate")[0]
    assert gate.shape == (1, 24, 4)
    mlp_in = read(lm, "mlp_in.1")[0]
    torch.testing.assert_close(gate, mlp_in @ lm.model.model.layers[1].mlp.gate.weight.T)


def test_a_sub_layer_that_is_added_to_in_place_is_read_before() -> None:
    lm = tiny("falcon")
    alone = read(lm, "mlp_out.1")[0]
    beside = read(lm, "mlp_out.1", "resid_post.1")[0]
    assert torch.equal(alone, beside)


def test_a_tower_that_does_not_run_on_text_is_not_taken_for_the_blocks() -> None:
    lm = tiny("llama")
    lm.model.vision_tower = nn.Module()
    first = nn.ModuleList(tiny("llama").model.model.layers)
    lm.model.vision_tower.layers = first
    # In definition order the tower comes first, as in models that see.
    modules = lm.model._modules
    for name in ("model", "lm_head"):
        modules[name] = modules.pop(name)
    fresh = LanguageModel.from_local_torch(lm.model, lm.tokenizer)
    assert fresh.layers.blocks() == [f"model.layers.{number}" for number in range(3)]


@pytest.mark.parametrize(
    ("name", "norm"),
    [
        ("lfm2", "model.embedding_norm"),
        ("biogpt", "biogpt.layer_norm"),
        ("rwkv", "rwkv.ln_out"),
        ("gpt2", "transformer.ln_f"),
    ],
)
def test_the_final_norm_is_what_feeds_the_head(name: str, norm: str) -> None:
    lm = tiny(name)
    assert lm.layers.unembedding()[0] is lm.model.get_submodule(norm)


def test_a_probe_is_not_noticed_by_detectors() -> None:
    lm = tiny("llama")
    with LayerActivationDetector(1).on(lm) as detector:
        lm.layers.resolve("mlp_out.1")
        lm.layers.width("z.0")
        assert detector.get_captured() is None


def test_stored_names_mean_what_was_captured() -> None:
    lm = tiny("gemma2")
    layers = lm.layers
    # Before, mlp_out was the sub-module's own output.
    old = layers.stored("model.layers.1.mlp", "mlp_out.1")
    assert old.same_tensor(layers.resolve("mlp_raw.1"))
    for name in ("mlp_out.1", "mlp_raw.1", "mlp_in.1", "z.1", "resid_pre.1", "resid_mid.1"):
        point = layers.resolve(name)
        assert layers.stored(point.stored, point.point) == point
    assert layers.stored("", "mlp_out.1") == layers.resolve("mlp_out.1")


def test_a_sae_on_a_scaled_contribution_is_captured_and_read_back(tmp_path: Path) -> None:
    lm = tiny("granite")
    lm.store = LocalStore(tmp_path)
    run = lm.activations.save(["mlp_out.1", "mlp_raw.1", "mlp_in.1"], TEXTS, dtype="fp32")
    from mi_crow.store.runs.reader import RunReader

    folder = lm.store.workspace.run_dir(run)
    rows = {name: read_all(RunReader(folder, name)) for name in ("mlp_out.1", "mlp_raw.1")}
    close(rows["mlp_out.1"], 0.22 * rows["mlp_raw.1"])


def read_all(reader: Any) -> Tensor:
    return torch.cat([part.take(slice(None)) for part in reader.parts()]).float()


def test_the_command_lists_what_a_model_has_and_says_what_it_lacks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lm = tiny("gpt_neox")
    lm.model.save_pretrained(tmp_path)
    lm.tokenizer.save_pretrained(tmp_path)
    assert main(["layers", "--model", str(tmp_path), "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    assert "not available in blocks 0-2: resid_mid (its sub-layers run in parallel" in said
    assert main(["layers", "--model", str(tmp_path), "--device", "cpu", "--json"]) == 0
    rows = {row["point"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["mlp_out.1"]["shape"] == rows["z.1"]["shape"] == [32]
    assert rows["resid_mid.1"]["shape"] is None
    assert "in parallel" in rows["resid_mid.1"]["reason"]


def test_blocks_with_children_that_are_none_are_listed() -> None:
    lm = tiny("granitemoehybrid")
    points = {row["point"] for row in lm.layers.describe()}
    assert points >= {f"{kind}.{n}" for kind in ("attn_out", "mlp_out") for n in range(3)}


def test_points_that_a_block_lacks_say_why() -> None:
    lm = tiny("gpt_neox")
    rows = lm.layers.survey()
    missing = {row["point"]: row["reason"] for row in rows if "reason" in row}
    assert missing.keys() == {"resid_mid.0", "resid_mid.1", "resid_mid.2"}
    assert all("in parallel" in reason for reason in missing.values())
    with pytest.raises(MiCrowError, match="only sub-layer is not an MLP"):
        tiny("mamba").layers.resolve("mlp_out.0")


def test_a_module_that_blocks_share_is_no_hook_point_of_one_of_them() -> None:
    lm = tiny("llama")
    layers: Any = lm.model.get_submodule("model.layers")
    layers[2].mlp = layers[0].mlp
    for name in ("mlp_out.0", "mlp_raw.2"):
        with pytest.raises(UserError, match=r"model\.layers\..\.mlp is one .*blocks 0, 2 share"):
            lm.layers.resolve(name)
    assert lm.layers.resolve("attn_out.0").name == "model.layers.0.self_attn"
    assert lm.layers.resolve("resid_post.2").name == "model.layers.2"
    [told] = [row for row in lm.layers.survey() if row["point"] == "mlp_out.2"]
    assert told["shape"] is None


def test_dropout_does_not_disturb_what_is_measured() -> None:
    lm, trained = tiny("gpt_neox"), tiny("gpt_neox")
    for module in trained.model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.5
    trained.model.train()
    assert trained.layers.survey() == lm.layers.survey()
    assert all(module.training for module in trained.model.modules())


class Quantised(nn.Module):
    """A linear layer as GPTQ and AWQ have them: nothing in it is a parameter."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.register_buffer("qweight", linear.weight.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.get_buffer("qweight").T


def test_quantised_layers_without_parameters_are_measured_as_others() -> None:
    lm, quantised = tiny("gemma2"), tiny("gemma2")
    layers = quantised.model.get_submodule("model.layers")
    for name, module in list(layers.named_modules()):
        if isinstance(module, nn.Linear):
            owner, _, last = name.rpartition(".")
            setattr(layers.get_submodule(owner), last, Quantised(module))
    assert quantised.layers.survey() == lm.layers.survey()


@pytest.mark.parametrize(
    ("name", "projection"),
    [
        ("llama", "self_attn.o_proj"),
        ("gemma2", "self_attn.o_proj"),
        ("gpt_neox", "attention.dense"),
    ],
)
def test_an_attention_that_adds_nothing_has_its_points(name: str, projection: str) -> None:
    lm = tiny(name)
    block = lm.model.get_submodule(lm.layers.blocks()[1])
    for parameter in block.get_submodule(projection).parameters():
        parameter.zero_()
    pre, attention, mlp, post = read(lm, "resid_pre.1", "attn_out.1", "mlp_out.1", "resid_post.1")
    assert not attention.any()
    close(pre + mlp, post)
