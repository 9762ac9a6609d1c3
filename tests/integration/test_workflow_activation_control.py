"""The fifth workflow, as a user's script: detectors that look and controllers that change."""

from typing import Any

import pytest
import torch

from mi_crow.errors import UserError
from mi_crow.hooks import (
    Controller,
    Detector,
    FunctionController,
    Hook,
    LayerActivationDetector,
    ModelInputDetector,
    ModelOutputDetector,
)
from mi_crow.language_model import LanguageModel

TEXTS = ["The old harbour was quiet.", "Fold in the flour, then rest the dough for an hour."]


class TokenNorms(Detector):
    """A detector of one's own: the norm of every token."""

    def process_activations(self, module: Any, inputs: Any, output: Any) -> None:
        hidden = output if isinstance(output, torch.Tensor) else output[0]
        self.tensor_metadata["norms"] = hidden.norm(dim=-1)


class Dampen(Controller):
    """A controller of one's own: half the activation from a layer on."""

    def modify_activations(self, module: Any, inputs: Any, output: Any) -> Any:
        return output * 0.5


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return LanguageModel.from_huggingface("sample", device="cpu")


@pytest.fixture(autouse=True)
def _no_hook_is_left_behind(lm: LanguageModel):
    yield
    assert lm.layers.get_hooks() == []


def test_detectors_see_what_goes_through_the_model(lm: LanguageModel) -> None:
    layer = LayerActivationDetector("model.layers.2")
    norms = TokenNorms("resid_post.2")
    model_input, model_output = ModelInputDetector(), ModelOutputDetector()
    hook_ids = [
        lm.layers.register_hook("model.layers.2", layer),
        lm.layers.register_hook("resid_post.2", norms),
        lm.layers.register_hook("", model_input),
        lm.layers.register_hook("", model_output),
    ]
    assert [hook.id for hook in lm.layers.get_hooks()] == hook_ids
    output, encodings = lm.inference.execute_inference(TEXTS)
    for hook_id in hook_ids:
        assert lm.layers.unregister_hook(hook_id)
    activations = layer.get_captured()
    assert activations is not None
    width = lm.layers.width("model.layers.2")
    assert activations.shape == (*encodings["input_ids"].shape, width)
    torch.testing.assert_close(norms.get_captured()["norms"], activations.norm(dim=-1))
    assert torch.equal(model_input.get_captured(), encodings["input_ids"].cpu())  # type: ignore[arg-type]
    assert torch.equal(model_output.get_captured(), output.logits)  # type: ignore[arg-type]


def test_controllers_change_what_follows_and_can_be_switched_off(lm: LanguageModel) -> None:
    plain, _ = lm.inference.execute_inference(TEXTS)
    with Dampen("model.layers.2").on(lm) as dampen:
        changed, _ = lm.inference.execute_inference(TEXTS)
        without, _ = lm.inference.execute_inference(TEXTS, with_controllers=False)
        dampen.disable()
        disabled, _ = lm.inference.execute_inference(TEXTS)
    after, _ = lm.inference.execute_inference(TEXTS)
    assert not torch.allclose(changed.logits, plain.logits, atol=1e-2)
    for same in (without, disabled, after):
        assert torch.equal(same.logits, plain.logits)


def test_a_function_is_a_controller_and_acts_on_generation_too(lm: LanguageModel) -> None:
    plain = lm.generate(TEXTS[0], max_new_tokens=12, seed=2)
    controller = FunctionController("resid_post.1", lambda x: -x)
    hook_id = lm.layers.register_hook("resid_post.1", controller)
    turned = lm.generate(TEXTS[0], max_new_tokens=12, seed=2)
    original = lm.generate(TEXTS[0], max_new_tokens=12, seed=2, with_controllers=False)
    lm.layers.unregister_hook(hook_id)
    assert turned.text != plain.text
    assert original.text == plain.text


def test_a_hook_is_unregistered_when_the_work_fails(lm: LanguageModel) -> None:
    def fail(x: torch.Tensor) -> torch.Tensor:
        raise ArithmeticError("no")

    def work() -> None:
        with FunctionController("resid_post.1", fail).on(lm):
            lm.inference.execute_inference(TEXTS)

    with pytest.raises(ArithmeticError):
        work()
    assert not lm.layers.unregister_hook("no such hook")
    lm.inference.execute_inference(TEXTS)


class Fails(Detector):
    def process_activations(self, module: Any, inputs: Any, output: Any) -> None:
        raise ArithmeticError("no")


@pytest.mark.parametrize(
    "hook",
    [
        Fails("resid_post.0"),
        Dampen("resid_post.0"),
        LayerActivationDetector("resid_post.0"),
        ModelInputDetector(),
        ModelOutputDetector(),
        FunctionController("resid_post.0", lambda x: x * 0),
    ],
    ids=lambda hook: type(hook).__name__,
)
def test_every_kind_of_hook_unregisters_whatever_happens_in_its_block(
    lm: LanguageModel, hook: Hook
) -> None:
    plain, _ = lm.inference.execute_inference(TEXTS)

    def work() -> None:
        with hook.on(lm), FunctionController("resid_pre.1", torch.neg).on(lm):
            assert len(lm.layers.get_hooks()) == 2
            lm.inference.execute_inference(TEXTS)
            raise ArithmeticError("in the user's own code")

    for _ in range(2):  # and it can be used again
        with pytest.raises(ArithmeticError):
            work()
        assert lm.layers.get_hooks() == []
    with pytest.raises(KeyboardInterrupt), hook.bind(lm):
        raise KeyboardInterrupt
    after, _ = lm.inference.execute_inference(TEXTS)
    assert torch.equal(after.logits, plain.logits)


def test_controllers_follow_each_other_in_the_order_of_registration(lm: LanguageModel) -> None:
    def result(*functions: Any) -> torch.Tensor:
        ids = [
            lm.layers.register_hook("resid_post.3", FunctionController("resid_post.3", function))
            for function in functions
        ]
        with LayerActivationDetector("resid_post.3").on(lm) as detector:
            lm.inference.execute_inference(TEXTS)
        for hook_id in ids:
            assert lm.layers.unregister_hook(hook_id)
            assert not lm.layers.unregister_hook(hook_id)
        captured = detector.get_captured()
        assert captured is not None
        return captured

    plain = result()
    assert torch.equal(result(lambda x: x + 1, lambda x: x * 2), (plain + 1) * 2)
    assert torch.equal(result(lambda x: x * 2, lambda x: x + 1), plain * 2 + 1)


def test_a_controller_before_a_layer_changes_what_the_layer_reads(lm: LanguageModel) -> None:
    class Zero(Controller):
        def modify_activations(self, module: Any, inputs: Any, output: Any) -> Any:
            assert output is None
            return torch.zeros_like(inputs)

    first, second = LayerActivationDetector("resid_post.1"), LayerActivationDetector("mlp_out.2")
    with Zero("model.layers.2.mlp", "pre_forward").on(lm), first.on(lm), second.on(lm):
        lm.inference.execute_inference(TEXTS)
    seen, silenced = first.get_captured(), second.get_captured()
    assert seen is not None
    assert silenced is not None
    assert seen.abs().max() > 0  # what comes before is as it was
    assert silenced.abs().max() == 0  # an MLP without biases answers zero with zero


def test_a_function_that_gives_no_tensor_of_the_same_shape_is_told(lm: LanguageModel) -> None:
    wrongs: list[Any] = [lambda x: x[:, :1], lambda x: None]
    for wrong in wrongs:
        with (
            FunctionController("resid_post.1", wrong).on(lm),
            pytest.raises(UserError, match=r"the function on layer 'resid_post\.1' returned"),
        ):
            lm.inference.execute_inference(TEXTS)
