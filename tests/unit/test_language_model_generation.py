"""Sampling: seeds, nucleus, ends, streaming, stopping."""

from typing import Any

import pytest
import torch

from mi_crow.errors import UserError
from mi_crow.hooks import FunctionController
from mi_crow.language_model import LanguageModel
from mi_crow.language_model.decoding.steps import Prefixes
from mi_crow.language_model.generation import Sampling, choose, generate_each, generate_sides
from tests.helpers.tiny_models import build_model, build_tokenizer


def test_a_seed_decides_the_text(tiny_lm: LanguageModel) -> None:
    first = tiny_lm.generate("The ferry", max_new_tokens=12, seed=3)
    assert tiny_lm.generate("The ferry", max_new_tokens=12, seed=3) == first
    assert tiny_lm.generate("The ferry", max_new_tokens=12, seed=4).text != first.text


def test_temperature_zero_takes_the_likeliest_token(tiny_lm: LanguageModel) -> None:
    made = tiny_lm.generate("The ferry", max_new_tokens=5, temperature=0)
    ids = list(made.prompt_ids)
    for token in made.token_ids[0]:
        with torch.no_grad():
            logits = tiny_lm.model(input_ids=torch.tensor([ids])).logits[0, -1]
        assert token == int(logits.argmax())
        ids.append(token)


def test_continuations_of_one_batch_differ_and_are_whole(tiny_lm: LanguageModel) -> None:
    made = tiny_lm.generate("The ferry", max_new_tokens=8, n=4)
    assert len(made.texts) == len(made.token_ids) == 4
    assert len(set(made.texts)) > 1
    assert made.text == made.texts[0]


def test_the_first_of_many_greedy_continuations_is_the_only_one(tiny_lm: LanguageModel) -> None:
    many = tiny_lm.generate("The ferry", max_new_tokens=8, temperature=0, n=3)
    one = tiny_lm.generate("The ferry", max_new_tokens=8, temperature=0)
    assert many.texts == [one.text] * 3


def test_streamed_pieces_are_the_text_and_never_half_a_character(tiny_lm: LanguageModel) -> None:
    for seed in range(8):
        pieces: list[str] = []
        made = tiny_lm.generate("a smile 🙂", max_new_tokens=40, seed=seed, on_token=pieces.append)
        assert "".join(pieces) == made.text
        assert all(pieces)


class Scripted:
    """A model whose next token is written down: logits that favour `script[length]`."""

    def __init__(self, lm: LanguageModel, script: list[int]) -> None:
        self._lm, self._script, self._step = lm, script, 0

    def __enter__(self) -> None:
        head = self._lm.model.get_output_embeddings()

        def force(_: Any, __: Any, logits: torch.Tensor) -> torch.Tensor:
            forced = torch.full_like(logits, -1e9)
            forced[..., self._script[self._step]] = 0.0
            self._step += 1
            return forced

        self._handle = head.register_forward_hook(force)

    def __exit__(self, *_: object) -> None:
        self._handle.remove()


def test_a_character_over_several_tokens_arrives_whole(tiny_lm: LanguageModel) -> None:
    script = tiny_lm.tokenizer("ab 🙃 ü", add_special_tokens=False).input_ids
    pieces: list[str] = []
    with Scripted(tiny_lm, script):
        made = tiny_lm.generate("The", max_new_tokens=len(script), on_token=pieces.append)
    assert made.text == "ab 🙃 ü"
    assert any("🙃" in piece for piece in pieces)
    assert not any("�" in piece for piece in pieces)


def test_the_end_token_ends_and_is_not_shown(tiny_lm: LanguageModel) -> None:
    ordinary = tiny_lm.tokenizer(" dough", add_special_tokens=False).input_ids
    script = [*ordinary, tiny_lm.tokenizer.eos_token_id, *ordinary]
    pieces: list[str] = []
    with Scripted(tiny_lm, script):
        made = tiny_lm.generate("Knead the", max_new_tokens=20, on_token=pieces.append)
    assert made.text == "".join(pieces) == " dough"
    assert made.token_ids == [ordinary]
    assert not made.stopped


def test_other_special_tokens_are_left_out_of_the_text(tiny_lm: LanguageModel) -> None:
    ordinary = tiny_lm.tokenizer(" dough", add_special_tokens=False).input_ids
    script = [tiny_lm.tokenizer.bos_token_id, *ordinary]
    pieces: list[str] = []
    with Scripted(tiny_lm, script):
        made = tiny_lm.generate("Knead", max_new_tokens=len(script), on_token=pieces.append)
    assert made.text == "".join(pieces) == " dough"


def test_it_stops_between_two_tokens_when_asked(tiny_lm: LanguageModel) -> None:
    answers = iter([False, False, True])
    made = tiny_lm.generate("The", max_new_tokens=20, should_stop=lambda: next(answers))
    assert made.stopped
    assert len(made.token_ids[0]) == 2


def test_it_never_writes_beyond_the_context(tiny_lm: LanguageModel) -> None:
    made = tiny_lm.generate("The ferry", max_new_tokens=500, temperature=0)
    assert len(made.prompt_ids) + len(made.token_ids[0]) <= 64
    whole = len(made.prompt_ids) + len(made.token_ids[0]) == 64
    assert made.shortened_to == (len(made.token_ids[0]) if whole else None)
    assert tiny_lm.generate("The ferry", max_new_tokens=3).shortened_to is None
    with pytest.raises(UserError, match="the model's context 64"):
        tiny_lm.generate("ferry " * 80)


def test_an_empty_prompt_needs_a_start_token(tiny_lm: LanguageModel) -> None:
    assert tiny_lm.generate("", max_new_tokens=3).prompt_ids == [tiny_lm.tokenizer.bos_token_id]
    tokenizer = build_tokenizer(bos=False)
    tokenizer.eos_token = None
    bare = LanguageModel.from_local_torch(build_model("llama", len(tokenizer)), tokenizer)
    with pytest.raises(UserError, match="the prompt is empty"):
        bare.generate("", max_new_tokens=3)


@pytest.mark.parametrize(
    "wrong",
    [{"max_new_tokens": 0}, {"temperature": -1.0}, {"top_p": 0.0}, {"top_p": 1.5}, {"n": 0}],
)
def test_settings_that_make_no_sense_are_refused(
    tiny_lm: LanguageModel, wrong: dict[str, Any]
) -> None:
    with pytest.raises(UserError):
        tiny_lm.generate("The", **wrong)


def test_sampling_follows_the_distribution() -> None:
    logits = torch.tensor([0.5, 0.2, 0.2, 0.1]).log().expand(40_000, -1)
    uniform = torch.rand(40_000, 1, generator=torch.Generator().manual_seed(0))
    counts = torch.bincount(choose(logits, Sampling(), uniform), minlength=4) / 40_000
    torch.testing.assert_close(counts, logits[0].exp(), rtol=0, atol=0.01)


def test_the_nucleus_holds_the_fewest_tokens_that_reach_top_p() -> None:
    logits = torch.tensor([0.1, 0.5, 0.1, 0.3]).log().expand(2_000, -1)
    uniform = torch.linspace(0, 1 - 1e-7, 2_000)[:, None]
    assert set(choose(logits, Sampling(top_p=0.75), uniform).tolist()) == {1, 3}
    assert set(choose(logits, Sampling(top_p=0.4), uniform).tolist()) == {1}


def test_a_token_without_mass_is_never_taken() -> None:
    logits = torch.tensor([[-torch.inf, 0.0, -torch.inf]])
    for uniform in (0.0, 0.5, 1 - 2**-24):
        assert choose(logits, Sampling(), torch.tensor([[uniform]])).tolist() == [1]


@pytest.mark.parametrize("temperature", [0.0, 1e-300, 1.0])
def test_predictions_that_are_not_numbers_are_said(
    tiny_lm: LanguageModel, temperature: float
) -> None:
    overflow = FunctionController("resid_post.0", lambda tensor: tensor * float("nan"))
    hook = tiny_lm.layers.register_hook("resid_post.0", overflow)
    try:
        with pytest.raises(UserError, match="not finite"):
            tiny_lm.generate("The ferry", max_new_tokens=2, temperature=temperature)
    finally:
        tiny_lm.layers.unregister_hook(hook)


def test_a_temperature_next_to_nothing_is_none(tiny_lm: LanguageModel) -> None:
    cold = tiny_lm.generate("The ferry", max_new_tokens=5, temperature=1e-300)
    assert cold.text == tiny_lm.generate("The ferry", max_new_tokens=5, temperature=0).text


@pytest.mark.parametrize("kind", ["llama", "mamba"])
def test_both_sides_of_one_batch_are_what_each_is_alone(kind: str) -> None:
    """Controllers act in the rows of their side only; a kept prompt changes nothing."""
    tokenizer = build_tokenizer()
    lm = LanguageModel.from_local_torch(build_model(kind, len(tokenizer)), tokenizer)
    prefixes, sampling = Prefixes(), Sampling(10, 0.8, seed=2, n=3)
    shift = FunctionController("resid_post.0", lambda tensor: 4 * tensor.roll(1, dims=-1))
    with shift.on(lm):
        first = generate_sides(lm, "The ferry", sampling, prefixes=prefixes, key="shift")
        again = generate_sides(lm, "The ferry", sampling, prefixes=prefixes, key="shift")
        steered = lm.generate("The ferry", 10, 0.8, seed=2, n=3)
    assert first["baseline"] == lm.generate("The ferry", 10, 0.8, seed=2, n=3)
    assert first["steered"] == steered != first["baseline"]
    assert again == first


def test_a_changed_controller_has_the_prompt_read_again(tiny_lm: LanguageModel) -> None:
    prefixes, sampling = Prefixes(), Sampling(6, 0, n=2)
    lengths: list[int] = []

    def see(tensor: torch.Tensor) -> torch.Tensor:
        lengths.append(tensor.shape[1])
        return tensor

    for size, read_again in ((0.3, True), (0.3, False), (3.0, True)):
        shift = FunctionController("resid_post.0", lambda tensor, size=size: tensor + size)
        watch = FunctionController("resid_post.1", see)
        lengths.clear()
        with shift.on(tiny_lm), watch.on(tiny_lm):
            both = generate_sides(tiny_lm, "The ferry", sampling, prefixes=prefixes, key=size)
            assert (max(lengths) > 1) is read_again
            assert both["steered"] == tiny_lm.generate("The ferry", 6, 0, n=2)


def test_prompts_of_one_length_share_a_batch_and_read_as_alone(tiny_lm):
    prompts = ["The ferry", "Knead it", "The ferry left the quay at dawn"]
    sampling = Sampling(max_new_tokens=6, temperature=0.8, n=2)
    together = generate_each(tiny_lm, prompts, sampling, [3, 4, 5])
    for prompt, seed, one in zip(prompts, (3, 4, 5), together, strict=True):
        alone = tiny_lm.generate(prompt, 6, 0.8, seed=seed, n=2)
        assert (one.prompt, one.texts, one.token_ids) == (prompt, alone.texts, alone.token_ids)


def test_the_output_matrix_is_read_once_for_all_prompts(tiny_lm):
    seen: list[bool] = []
    head = tiny_lm.model.get_output_embeddings()
    hook = head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].is_contiguous()))
    try:
        generate_each(tiny_lm, ["The ferry left", "Knead it well"], Sampling(2, 0), [0, 1])
    finally:
        hook.remove()
    assert len(seen) == 2
    assert all(seen)  # else the product copies the matrix for every prompt
