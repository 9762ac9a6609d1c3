"""Decoding in a static cache, and by a captured pass, says what decoding in a growing cache says.

A CUDA graph is stood in for by the operations of a pass, recorded and run again (`recorded_graph`),
and what CUDA code would do by tensors on a GPU that have no values (`FakeTensorMode`).
"""

import gc
import logging
import weakref
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, suppress
from typing import Any

import pytest
import torch
from torch import Tensor

from mi_crow.hooks import FunctionController
from mi_crow.language_model import LanguageModel
from mi_crow.language_model.decoding import one_token, steps
from mi_crow.language_model.decoding.steps import Decode, Prefixes, Steps
from mi_crow.language_model.decoding.watched import watching
from mi_crow.language_model.generation import Sampling, generate_each
from mi_crow.mechanistic.sae import TopKSae
from mi_crow.mechanistic.sae.rules import some_latents
from mi_crow.mechanistic.steering import controllers
from mi_crow.mechanistic.steering.interventions import parse_intervention
from mi_crow.mechanistic.steering.steer import SaeAt, SteeringParts, steering_with
from mi_crow.mechanistic.vectors.stored import SteeringVector
from tests.helpers.cache_models import build_kind
from tests.helpers.no_values import NO_VALUES, captured
from tests.helpers.recorded_graph import record
from tests.helpers.steering_fixture import LAYER, tiny_sae
from tests.helpers.tiny_models import build_tokenizer

PROMPTS = ("The ferry left the harbour before dawn.", "Knead the dough, cover it with a cloth")
KINDS = ("llama", "gpt2", "gpt_neox", "gemma2", "gemma3_text", "qwen3")
OTHERS = [
    "biogpt",
    "codegen",
    "cohere2",
    "deepseek_v3",
    "falcon",
    "gpt_oss",
    "llama4_text",
    "mistral",
    "opt",
    "xglm",
]
NEW = 12


def model_of(kind: str) -> LanguageModel:
    tokenizer = build_tokenizer(vocabulary=300)
    return LanguageModel.from_local_torch(build_kind(kind, len(tokenizer)), tokenizer)


@torch.inference_mode()
def written(
    lm: LanguageModel,
    decode: Decode | None,
    controlled: Sequence[bool] = (False,),
    new: int = NEW,
    **settings: Any,
) -> tuple[Tensor, Steps]:
    """Logits [new, branches, rows, vocabulary], and the passes that they came from. Every third
    token is sampled, so that rows differ."""
    prompts = [lm.tokenize([prompt])[0][:11] for prompt in PROMPTS]
    passes = Steps(lm, prompts, controlled, 2, new_tokens=new, decode=decode, **settings)
    found, generator = [], torch.Generator().manual_seed(0)
    for number in range(new):
        found.append(passes.logits().clone())
        chosen = found[-1].argmax(-1).flatten()
        if number % 3 == 0:
            likely = torch.softmax(found[-1].flatten(0, 1), -1)
            chosen = torch.multinomial(likely, 1, generator=generator)[:, 0]
        passes.append(chosen)
    return torch.stack(found), passes


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Passes are recorded on the CPU, which is to take no branch of its own; how often."""
    count: list[int] = []

    def counted(run: Any, device: torch.device) -> Any:
        replay = record(run, device)
        count.append(1)
        return replay

    monkeypatch.setattr(one_token, "capture", counted)
    monkeypatch.setattr(steps, "_ROOM", 4)  # so that it is not enough
    monkeypatch.setattr(steps, "_WORTH_CAPTURING", 2)
    for module in (controllers, some_latents):
        monkeypatch.setattr(module, "_FEW", 0)
    return count


def slow_but(every: Iterable[str], *fast: str) -> list[Any]:
    """Parameters, of which all but some are tried in slow runs only."""
    return [one if one in fast else pytest.param(one, marks=pytest.mark.slow) for one in every]


@pytest.mark.parametrize("kind", slow_but(KINDS, "llama", "gemma2"))
def test_a_static_cache_and_a_captured_pass_predict_what_a_growing_cache_does(
    kind: str, recorded: list[int]
) -> None:
    """With more tokens than the windows of gemma2 and gemma3 have, and than there is room for."""
    lm = model_of(kind)
    wanted, _ = written(lm, "growing")
    for decode in ("static", "graph"):
        found, passes = written(lm, decode)
        assert passes._room > 0
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5 * float(wanted.abs().max()))
        assert torch.equal(found.argmax(-1), wanted.argmax(-1))
    assert len(recorded) == 3  # once for each size of the cache


def test_a_kept_prompt_is_gone_on_from_in_a_static_cache(
    tiny_lm: LanguageModel, recorded: list[int]
) -> None:
    prefixes, lengths = Prefixes(), list[int]()
    watch = FunctionController("resid_post.0", lambda x: (lengths.append(x.shape[1]), x)[1])
    wanted, _ = written(tiny_lm, "growing")
    for decode in ("static", "graph", "growing"):
        with watch.on(tiny_lm):
            found, _ = written(tiny_lm, decode, (True,), prefixes=prefixes, key="watch")
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    assert lengths.count(11) == 1
    assert not recorded  # a function might do anything


@pytest.mark.slow
@pytest.mark.parametrize("kind", OTHERS)
def test_a_static_cache_of_other_models_predicts_the_same(kind: str) -> None:
    lm = model_of(kind)
    wanted, _ = written(lm, "growing")
    found, passes = written(lm, "static")
    assert passes._room > 0
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5 * float(wanted.abs().max()))


GROWING = {
    "mamba": "",
    "bamba": "",
    "phi3": "rotates keys by the length",
    "mpt": "no static cache for MptForCausalLM",
    "bloom": "takes no positions",
}


@pytest.mark.parametrize("kind", slow_but(GROWING, "mamba", "phi3"))
def test_other_models_keep_their_growing_cache(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    lm = model_of(kind)
    with caplog.at_level(logging.INFO):
        found, passes = written(lm, "graph", new=24)  # which is where phi3's other context begins
    assert passes._room == 0
    assert GROWING[kind] in caplog.text
    wanted, _ = written(lm, "growing", new=24)
    assert torch.equal(found, wanted)


@pytest.mark.slow
def test_states_beside_keys_and_values_are_read_again_for_each_prompt() -> None:
    lm = model_of("minimax")
    with torch.inference_mode():
        alone = written(lm, None, (False, False))[0]
    assert torch.equal(alone[0, 0], alone[0, 1])


STACKS: dict[str, str] = {
    "3=+4": "",
    "3=+0.5norm": "",
    "3=+4 on generated": "",
    "3=floor 2": "",
    "3=4": "",
    "3=x3": "",
    "3=project 0": "",
    "3=+4?5>0.1": "",
    "3=swap 2 against 5": "",
    "vector:calm=+0.5norm": "",
    f"layer:{LAYER}=x1.5": "",
    "3=+4 on window 12:14": "some of the generated tokens",
    "3=+4 on tokens 7": "some of the generated tokens",
    "3=+4@decay 16": "decay changes",
    "3=+4@feedback": "feedback changes",
}


def steered_by(
    lm: LanguageModel, change: str, sae: TopKSae | None = None
) -> AbstractContextManager[None]:
    vector = SteeringVector("calm", {LAYER: torch.linspace(-1, 1, 32)})
    own = SaeAt(sae or tiny_sae(50.0), lm.layers.resolve(LAYER), None, {3: 4.0, 5: 4.0})
    parts = SteeringParts(own, vectors={"calm": vector})
    return steering_with(lm, parts, [parse_intervention(change)])


FAST = ("3=+0.5norm", "3=floor 2", "3=+4 on window 12:14", "3=+4@feedback")


@pytest.mark.parametrize("change", slow_but(STACKS, *FAST))
def test_steered_texts_are_the_same_and_captured_where_they_may_be(
    change: str, tiny_lm: LanguageModel, recorded: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    strengths = [1.0, 0.5]
    with steered_by(tiny_lm, change), caplog.at_level(logging.INFO):
        wanted, _ = written(tiny_lm, "growing", (False, True), strengths=strengths)
        found, _ = written(tiny_lm, "graph", (False, True), strengths=strengths)
    assert not torch.equal(wanted[:, 0], wanted[:, 1])
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    assert (not recorded) is bool(STACKS[change])
    assert STACKS[change] in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_captured_looks_at_no_value_and_copies_nothing_to_the_device(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm, sae, count = model_of(kind), tiny_sae(50.0), list[int]()
    layer = lm.layers.resolve("resid_post.1")
    lm.layers.width(layer)

    def counted(run: Any, device: torch.device) -> Any:
        replay = captured(run, device)
        count.append(1)
        return replay

    monkeypatch.setattr(one_token, "capture", counted)
    lm.model.to(NO_VALUES)
    lm.device = NO_VALUES
    allowed = [change for change, reason in STACKS.items() if not reason and change[0] == "3"]
    for change in allowed:
        own = SaeAt(sae.to(NO_VALUES), layer, None, {3: 4.0, 5: 4.0})
        with (
            torch.inference_mode(),
            steering_with(lm, SteeringParts(own), [parse_intervention(change)]),
        ):
            passes = Steps(
                lm, [[5, 6], [7, 8]], (False, True), 2, decode="graph", strengths=[1.0, 0.5]
            )
            for _ in range(3):
                passes.append(passes.logits().argmax(-1).flatten())
    assert len(count) == len(allowed)


def test_a_model_that_looks_at_values_is_not_captured(
    recorded: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    """OPT asks its cache how many tokens it has, as a number."""
    lm = model_of("opt")
    wanted, _ = written(lm, "growing")
    with caplog.at_level(logging.INFO):
        found, passes = written(lm, "graph")
    assert passes._room > 0
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5 * float(wanted.abs().max()))
    assert not recorded
    assert "looks at values in every pass" in caplog.text
    assert all(one.levelno < logging.WARNING for one in caplog.records)


X = torch.ones(4, device=NO_VALUES)


@pytest.mark.parametrize(
    ("does", "reason"),
    [
        (lambda: X.sum().item(), "looks"),
        (lambda: bool(X.sum() > 0), "looks"),
        (lambda: X[X > 0], "looks"),
        (lambda: torch.isin(X, X), "looks"),
        (lambda: torch.zeros(2).to(NO_VALUES), "reads"),
        (lambda: X.copy_(torch.zeros(4)), "reads"),
        (lambda: torch.tensor(0.0, device=NO_VALUES), "reads"),
        (lambda: X.new_tensor([1.0]), "reads"),
        (lambda: X[[0]], "reads"),
        (lambda: X[..., [-1]], "reads"),
        (lambda: torch.where(X > 0, X + 1, -torch.inf).masked_fill(X > 0, 0.0)[1:], ""),
        (lambda: torch.arange(4, device=NO_VALUES).to(torch.float32) @ X, ""),
        (lambda: torch.zeros(3)[[0]].tolist(), ""),
        (lambda: torch.tensor([1, 2]).sum().item(), ""),
    ],
)
@pytest.mark.parametrize("inference", [False, True])
def test_a_pass_tells_what_a_graph_could_not_hold(
    does: Callable[[], object], reason: str, inference: bool
) -> None:
    """On a device without values, where a look at one raises."""
    with (
        torch.inference_mode(inference),
        watching(NO_VALUES) as watched,
        suppress(NotImplementedError, RuntimeError),
    ):
        does()
    assert (reason in watched.reason) if reason else not watched.reason


def test_a_hook_that_nobody_asked_keeps_a_pass_from_being_captured(
    tiny_lm: LanguageModel, recorded: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[int] = []
    handle = tiny_lm.model.register_forward_hook(lambda *_: seen.append(1))
    try:
        with caplog.at_level(logging.INFO):
            written(tiny_lm, "graph")
    finally:
        handle.remove()
    assert len(seen) == NEW
    assert "a hook of its own" in caplog.text
    written(tiny_lm, "graph")
    assert recorded


def test_a_capture_that_fails_is_said_and_changes_nothing(
    tiny_lm: LanguageModel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(run: Any, device: torch.device) -> Any:
        record(run, device)
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(one_token, "capture", fail)
    wanted, _ = written(tiny_lm, "static")
    found, _ = written(tiny_lm, "graph")
    assert torch.equal(found, wanted)
    assert caplog.text.count("not permitted when stream is capturing") == 1


def test_memory_that_is_full_while_a_pass_is_captured_is_no_reason_to_go_on(
    tiny_lm: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(run: Any, device: torch.device) -> Any:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(one_token, "capture", fail)
    with pytest.raises(torch.OutOfMemoryError):
        written(tiny_lm, "graph")


def test_a_static_cache_goes_with_its_passes(tiny_lm: LanguageModel, recorded: list[int]) -> None:
    """It is the largest thing in a GPU's memory: nothing waits for the garbage collector."""
    gc.disable()
    try:
        _, passes = written(tiny_lm, "graph")
        keys = weakref.ref(passes._cache.layers[0].keys)
        del passes
        assert keys() is None
    finally:
        gc.enable()


def test_generation_has_room_for_as_many_tokens_as_are_asked_for(
    tiny_lm: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    whole = steps.with_room

    def watched(*args: Any) -> Any:
        seen.append(args[-1])
        return whole(*args)

    monkeypatch.setattr(steps, "with_room", watched)
    wanted = generate_each(tiny_lm, PROMPTS, Sampling(6, 0, n=2), [1, 2])
    assert not seen  # on a CPU the cache grows
    monkeypatch.setattr(steps, "best_decode", lambda device: "static")
    assert generate_each(tiny_lm, PROMPTS, Sampling(6, 0, n=2), [1, 2]) == wanted
    assert seen == sorted(len(one.prompt_ids) + 6 for one in wanted)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("kind", KINDS)
def test_a_cuda_graph_predicts_what_a_growing_cache_does(
    kind: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(steps, "_ROOM", 6)
    tokenizer = build_tokenizer(vocabulary=300)
    model = build_kind(kind, len(tokenizer))
    lm = LanguageModel.from_local_torch(model, tokenizer, device="cuda")
    own = SaeAt(tiny_sae(50.0).to(lm.device), lm.layers.resolve("resid_post.1"), None, {})
    for change in ("3=+0.5norm", "3=floor 2", "3=+4?5>0.1"):
        with steering_with(lm, SteeringParts(own), [parse_intervention(change)]):
            wanted, _ = written(lm, "growing", (False, True), 32)
            found, _ = written(lm, None, (False, True), 32)  # a graph is what CUDA has
        apart = 1e-4 * float(wanted.abs().max())
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=apart)
    assert not caplog.records  # nothing that could not be captured
