"""Names of layers, hooks on them, and what is refused."""

from typing import Any

import pytest
import torch
from torch import nn

from mi_crow.errors import MiCrowError, NotFoundError, UserError
from mi_crow.hooks import (
    Controller,
    Detector,
    FunctionController,
    LayerActivationDetector,
    ModelInputDetector,
    ModelOutputDetector,
)
from mi_crow.language_model import HookPoint, LanguageModel
from mi_crow.language_model.capture_pass import run_to
from tests.helpers.tiny_models import TEXTS

OUTPUT = HookPoint("model.layers.1", "resid_post.1", "output")


@pytest.mark.parametrize(
    ("signature", "point"),
    [
        ("model.layers.1", OUTPUT),
        ("resid_post.1", OUTPUT),
        (1, OUTPUT),
        ("1", OUTPUT),
        (-2, OUTPUT),
        ("blocks.1.hook_resid_post", OUTPUT),
        ("resid_pre.1", HookPoint("model.layers.1", "resid_pre.1", "input")),
        ("mlp_out.2", HookPoint("model.layers.2.mlp", "mlp_out.2", "output")),
        ("attn_out.0", HookPoint("model.layers.0.self_attn", "attn_out.0", "output")),
        ("model.norm", HookPoint("model.norm", "model.norm", "output")),
    ],
)
def test_a_layer_goes_by_many_names(
    tiny_lm: LanguageModel, signature: str | int, point: HookPoint
) -> None:
    assert tiny_lm.layers.resolve(signature) == point


@pytest.mark.parametrize("signature", ["h.99", 99, -9, "resid_post.7", "blocks.9.hook_resid_post"])
def test_an_unknown_layer_is_told_with_the_count_and_a_near_one(
    tiny_lm: LanguageModel, signature: str | int
) -> None:
    with pytest.raises(NotFoundError) as caught:
        tiny_lm.layers.resolve(signature)
    assert "not found; 3 layers, e.g. " in caught.value.sentence


def test_the_contracts_sentence(tiny_lm: LanguageModel) -> None:
    with pytest.raises(NotFoundError) as caught:
        tiny_lm.layers.resolve("h.99")
    assert caught.value.sentence == (
        "layer 'h.99' not found; 3 layers, e.g. model.layers.1, model.layers.2, model.layers.0"
    )


def test_the_three_nearest_names_are_shown(tiny_lm: LanguageModel) -> None:
    with pytest.raises(NotFoundError) as caught:
        tiny_lm.layers.resolve("resid_post.9")
    shown = caught.value.sentence.partition("e.g. ")[2].split(", ")
    assert set(shown) == {"resid_post.0", "resid_post.1", "resid_post.2"}
    with pytest.raises(NotFoundError, match=r"layer 'resid_pots\.2' not found") as caught:
        tiny_lm.layers.resolve("resid_pots.2")
    assert "3 layers, e.g. resid_post.2, " in caught.value.sentence


def test_widths_come_from_a_probe(tiny_lm: LanguageModel) -> None:
    assert tiny_lm.layers.width("model.layers.0") == 32
    assert tiny_lm.layers.width("model.layers.0.mlp.gate_proj") == 48
    assert tiny_lm.layers.width("lm_head") == len(tiny_lm.tokenizer)


def test_the_tree_counts_parameters(tiny_lm: LanguageModel) -> None:
    rows = {row["name"]: row for row in tiny_lm.layers.tree()}
    assert rows[""]["params"] == sum(p.numel() for p in tiny_lm.model.parameters())
    assert rows["model.layers.1"]["point"] == "resid_post.1"
    assert rows["lm_head"]["shape"] == [len(tiny_lm.tokenizer), 32]


def test_the_pass_stops_after_the_deepest_layer_however_they_are_listed(
    tiny_lm: LanguageModel,
) -> None:
    model = tiny_lm.model
    counts: dict[str, int] = {}

    def counting(name: str) -> Any:
        counts[name] = 0

        def count(*_: object) -> None:
            counts[name] += 1

        return model.get_submodule(name).register_forward_pre_hook(count)

    handles = [counting(name) for name in ("model.layers.1", "model.layers.2", "lm_head")]
    points = [tiny_lm.layers.resolve(name) for name in (1, "mlp_out.0", 0)]
    ids = torch.zeros(1, 4, dtype=torch.int64)
    found = run_to(tiny_lm, points, ids, torch.ones_like(ids))
    for handle in handles:
        handle.remove()
    assert set(found) == set(points)
    assert counts == {"model.layers.1": 1, "model.layers.2": 0, "lm_head": 0}


def test_a_layer_that_never_runs_is_told(tiny_lm: LanguageModel) -> None:
    tiny_lm.model.unused = nn.Linear(2, 2)
    try:
        with pytest.raises(MiCrowError, match="'unused' does not run"):
            tiny_lm.layers.width("unused")
    finally:
        del tiny_lm.model.unused


def test_capture_sees_the_plain_model(tiny_lm: LanguageModel) -> None:
    ids = torch.zeros(1, 4, dtype=torch.int64)
    point = tiny_lm.layers.resolve(1)
    plain = run_to(tiny_lm, [point], ids, torch.ones_like(ids))[point]
    with FunctionController(0, torch.zeros_like).on(tiny_lm):
        again = run_to(tiny_lm, [point], ids, torch.ones_like(ids))[point]
    assert torch.equal(plain, again)


def test_hooks_register_and_unregister(tiny_lm: LanguageModel) -> None:
    detector = LayerActivationDetector(1, hook_id="mine")
    assert tiny_lm.layers.register_hook(1, detector) == "mine"
    other = tiny_lm.layers.register_hook(2, LayerActivationDetector(2))
    assert [(hook.id, hook.layer) for hook in tiny_lm.layers.get_hooks()] == [
        ("mine", "model.layers.1"),
        (other, "model.layers.2"),
    ]
    with pytest.raises(UserError, match="'mine' is already in use"):
        tiny_lm.layers.register_hook(0, LayerActivationDetector(0, hook_id="mine"))
    assert tiny_lm.layers.unregister_hook(detector)
    assert tiny_lm.layers.unregister_hook(other)
    assert not tiny_lm.layers.unregister_hook(other)
    assert tiny_lm.layers.get_hooks() == []


def test_only_hooks_are_hooks(tiny_lm: LanguageModel) -> None:
    wrong: Any = lambda *_: None  # noqa: E731
    with pytest.raises(UserError, match="is not a hook"):
        tiny_lm.layers.register_hook(1, wrong)
    kind: Any = "sideways"
    with pytest.raises(UserError, match="'sideways' is not known"):
        FunctionController(1, torch.tanh, kind)


def test_a_context_manager_unregisters_after_an_error(tiny_lm: LanguageModel) -> None:
    with pytest.raises(RuntimeError, match="boom"), LayerActivationDetector(1).on(tiny_lm):
        raise RuntimeError("boom")
    assert tiny_lm.layers.get_hooks() == []


def test_a_disabled_hook_rests(tiny_lm: LanguageModel) -> None:
    plain, _ = tiny_lm.inference.execute_inference(TEXTS[:1])
    controller = FunctionController(1, torch.zeros_like)
    with controller.on(tiny_lm):
        controller.disable()
        same, _ = tiny_lm.inference.execute_inference(TEXTS[:1])
    assert torch.equal(plain.logits, same.logits)


def test_own_detectors_and_controllers(tiny_lm: LanguageModel) -> None:
    class Norms(Detector):
        def process_activations(self, module: Any, inputs: Any, output: Any) -> None:
            self.metadata.setdefault("norms", []).append(float(output.norm()))

    class Half(Controller):
        def modify_activations(self, module: Any, inputs: Any, output: Any) -> Any:
            return output * 0.5

    norms = Norms("resid_post.0")
    with norms.on(tiny_lm):
        tiny_lm.inference.execute_inference(TEXTS[:1])
        with Half("mlp_out.0").on(tiny_lm):
            tiny_lm.inference.execute_inference(TEXTS[:1])
    first, second = norms.metadata["norms"]
    assert first != second


def test_input_and_output_detectors(tiny_lm: LanguageModel) -> None:
    inputs, outputs = ModelInputDetector(), ModelOutputDetector()
    with inputs.on(tiny_lm), outputs.on(tiny_lm):
        output, encodings = tiny_lm.inference.execute_inference(TEXTS[:3])
    for captured, expected in (
        (inputs.get_captured_input_ids(), encodings["input_ids"]),
        (inputs.get_captured_attention_mask(), encodings["attention_mask"]),
        (outputs.get_captured_output_logits(), output.logits),
    ):
        assert captured is not None
        assert torch.equal(captured, expected)
    inputs.clear_captured()
    assert inputs.get_captured() is None


def test_a_function_must_keep_the_shape(tiny_lm: LanguageModel) -> None:
    wrong: list[Any] = [lambda x: x[:, :1], lambda x: 3]
    for function in wrong:
        controller = FunctionController(1, function)
        with (
            controller.on(tiny_lm),
            pytest.raises(UserError, match="the function on layer 1 returned"),
        ):
            tiny_lm.inference.execute_inference(TEXTS[:1])


def test_no_texts_are_refused(tiny_lm: LanguageModel) -> None:
    for wrong in ([], ""):
        with pytest.raises(UserError, match="no texts given"):
            tiny_lm.inference.execute_inference(wrong)
