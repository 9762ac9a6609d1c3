"""The fifth workflow, as a user's script: detectors that look and controllers that change."""

from typing import Any

import pytest
import torch

from mi_crow.hooks import (
    Controller,
    Detector,
    FunctionController,
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
