"""Code as the published guides have it, run as it stands there."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mi_crow.datasets import TextDataset
from mi_crow.errors import UserError
from mi_crow.hooks import (
    Controller,
    FunctionController,
    HookType,
    LayerActivationDetector,
    ModelInputDetector,
    ModelOutputDetector,
)
from mi_crow.language_model import LanguageModel
from mi_crow.mechanistic.sae import TopKSae
from mi_crow.mechanistic.sae.train import SaeTrainer, SaeTrainingConfig
from mi_crow.store import LocalStore

LAYER = "model.layers.1"
TEXTS = [f"The ferry number {n} leaves the harbour at noon." for n in range(60)]


@pytest.fixture
def lm(tiny_model_dir: Path, tmp_path: Path) -> LanguageModel:
    store = LocalStore(base_path=tmp_path / "store")
    return LanguageModel.from_huggingface(str(tiny_model_dir), store=store, device="cpu")


class Halved(Controller):
    def __init__(self, layer_signature: str) -> None:
        super().__init__(hook_type=HookType.FORWARD, layer_signature=layer_signature)

    def modify_activations(self, module: Any, inputs: Any, output: Any) -> Any:
        return output * 0.5


def test_hook_types_are_an_enum_and_their_words(lm: LanguageModel) -> None:
    assert HookType.FORWARD == "forward"
    assert HookType("pre_forward") is HookType.PRE_FORWARD
    controller = Halved(LAYER)
    hook_id = lm.layers.register_hook(LAYER, controller, HookType.FORWARD)
    changed, _ = lm.inference.execute_inference(TEXTS[:1])
    plain, _ = lm.inference.execute_inference(TEXTS[:1], with_controllers=False)
    assert not torch.equal(changed.logits, plain.logits)
    assert controller in lm.layers.get_hooks()
    lm.layers.unregister_hook(hook_id)
    assert controller not in lm.layers.get_hooks()
    FunctionController(LAYER, lambda x: x * 2.0, hook_type=HookType.PRE_FORWARD)


class DoubledInputs(Controller):
    def __init__(self, layer_signature: str) -> None:
        super().__init__(hook_type=HookType.PRE_FORWARD, layer_signature=layer_signature)

    def modify_activations(self, module: Any, inputs: Any, output: Any) -> Any:
        return tuple(x * 2.0 if isinstance(x, torch.Tensor) else x for x in inputs)


class Nonsense(Halved):
    def modify_activations(self, module, inputs, output):
        return "louder"


@pytest.mark.parametrize("texts", [TEXTS[:1], [TEXTS[0], "short"]])
def test_inputs_changed_as_a_tuple(lm: LanguageModel, texts: list[str]) -> None:
    def logits(controller: Controller) -> torch.Tensor:
        hook_id = lm.layers.register_hook(LAYER, controller)
        outputs, _ = lm.inference.execute_inference(texts)
        lm.layers.unregister_hook(hook_id)
        return outputs.logits

    doubled = FunctionController(LAYER, lambda x: x * 2.0, hook_type=HookType.PRE_FORWARD)
    assert torch.equal(logits(DoubledInputs(LAYER)), logits(doubled))
    with pytest.raises(UserError, match="returned str"):
        logits(Nonsense(LAYER))


def test_the_registry_of_hooks(lm: LanguageModel) -> None:
    detector = LayerActivationDetector(LAYER, hook_id="my-detector-1")
    controller = Halved("model.layers.0")
    hook_id = lm.layers.register_hook(LAYER, detector)
    other = lm.layers.register_hook("model.layers.0", controller)
    assert hook_id == "my-detector-1"
    assert lm.layers.context._hook_id_map[hook_id] == (LAYER, HookType.FORWARD, detector)
    assert lm.layers.context._hook_registry[LAYER] == {HookType.FORWARD: [detector]}
    assert [hook.id for hook in lm.layers.get_hooks(layer_signature=LAYER)] == [hook_id]
    assert lm.layers.get_hooks(hook_type=HookType.PRE_FORWARD) == []
    assert lm.layers.get_detectors() == [detector]
    assert lm.layers.get_controllers() == [controller]
    assert lm.layers.disable_hook(other)
    assert not controller.is_enabled()
    assert lm.layers.enable_hook(other)
    assert controller.is_enabled()
    assert not lm.layers.enable_hook("none")
    for one in list(lm.layers.context._hook_id_map.keys()):
        lm.layers.unregister_hook(one)
    assert len(lm.layers.context._hook_id_map) == 0


def test_a_layer_that_is_not_there_is_a_value_error(lm: LanguageModel) -> None:
    with pytest.raises(ValueError, match="layer 'layer_0' not found"):
        lm.layers.register_hook("layer_0", LayerActivationDetector("layer_0"))
    with pytest.raises(ValueError, match="layer 'layer_0' not found"):
        lm.activations.save(layer_signature="layer_0", dataset=TextDataset(TEXTS))


def test_the_whole_model_is_looked_at_on_input_and_output(lm: LanguageModel) -> None:
    inputs, outputs = ModelInputDetector(), ModelOutputDetector()
    lm.layers.register_hook("input", inputs)
    lm.layers.register_hook("output", outputs)
    result, encodings = lm.inference.execute_inference(TEXTS[:1])
    assert torch.equal(inputs.tensor_metadata["inputs"], encodings["input_ids"])
    assert torch.equal(outputs.tensor_metadata["outputs"], result.logits)


def test_the_other_name_of_a_wandb_run() -> None:
    assert SaeTrainingConfig(wandb_run_name="gpt2-layer0").wandb_name == "gpt2-layer0"


def test_batches_of_a_data_set_one_by_one(lm: LanguageModel) -> None:
    detector = LayerActivationDetector(LAYER)
    lm.layers.register_hook(LAYER, detector)
    seen = []
    for batch in TextDataset(TEXTS[:3]):
        _, encodings = lm.inference.execute_inference(batch)
        seen.append(detector.get_captured())
        assert seen[-1].shape[:2] == encodings["input_ids"].shape
        detector.clear_captured()
    assert len(seen) == 3


@pytest.mark.slow
def test_from_activations_to_an_attached_sae(lm: LanguageModel, tmp_path: Path) -> None:
    run_id = lm.activations.save(
        layer_signature=LAYER, dataset=TextDataset(TEXTS), sample_limit=50, batch_size=8
    )
    meta = json.loads((tmp_path / "store" / "activations" / run_id / "meta.json").read_text())
    assert (meta["sample_count"], meta["batch_count"]) == (50, 7)
    sae = TopKSae(n_latents=64, n_inputs=32, k=4, device="cpu")
    config = SaeTrainingConfig(
        epochs=1,
        batch_size=64,
        lr=1e-3,
        use_wandb=True,
        wandb_project="sae-training",
        wandb_name="first",
        wandb_mode="disabled",
        wandb_tags=["guide"],  # pyright: ignore[reportArgumentType]  # as the guides write it
        use_amp=False,
        clip_grad=1.0,
        monitoring=1,
        verbose=True,
        device="cpu",
        memory_efficient=True,
    )
    assert lm.store is not None
    history = SaeTrainer(sae).train(lm.store, run_id, LAYER, config)
    assert history["loss"]
    assert sae.encoder.weight.shape == (64, 32)
    assert sae.decoder.weight.shape == (32, 64)
    assert sae.encoder.weight.norm(dim=1).shape == sae.encoder.bias.shape
    lm.attach_sae(sae, LAYER)
    assert sae in lm.layers.get_hooks()
