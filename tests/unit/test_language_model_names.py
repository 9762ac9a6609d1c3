"""Names of models that other tools use: resolved to hub ids, or said to be nothing for us."""

import pytest

from mi_crow.errors import NotFoundError
from mi_crow.jobs.checks import check_model
from mi_crow.language_model.config import ModelSpec
from mi_crow.language_model.loading import locate
from mi_crow.language_model.model_names import hub_model, model_asked_for


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("gpt2-small", "openai-community/gpt2"),
        ("pythia-70m", "EleutherAI/pythia-70m"),
        ("Pythia-70M", "EleutherAI/Pythia-70M"),  # the hub does not mind
        ("gemma-2-2b", "google/gemma-2-2b"),
        ("gemma-2b-it", "google/gemma-2b-it"),
        ("gpt-j-6B", "EleutherAI/gpt-j-6b"),
        ("opt-125m", "facebook/opt-125m"),
        ("mistral-7b", "mistralai/Mistral-7B-v0.1"),
        ("qwen2-0.5b", "Qwen/Qwen2-0.5B"),
        ("qwen3-0.6b", "Qwen/Qwen3-0.6B"),
        ("tiny-stories-33M", "roneneldan/TinyStories-33M"),
        ("phi-2", "microsoft/phi-2"),
        ("llama-2-7b-chat", "meta-llama/llama-2-7b-chat-hf"),
        ("gpt2", "gpt2"),
        ("org/gpt2-small", "org/gpt2-small"),
        ("my-own", "my-own"),
    ],
)
def test_short_names_are_hub_ids(given: str, meant: str) -> None:
    assert model_asked_for(given) == meant
    assert locate(ModelSpec(given)).place == meant
    check_model(ModelSpec(given))


def test_files_name_models_with_their_organisation() -> None:
    assert hub_model("gpt2") == "openai-community/gpt2"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["solu-1l", "gelu-4l", "attn-only-2l", "othello-gpt", "llama-7b"])
def test_models_that_only_another_tool_has_are_said_to_be(name: str) -> None:
    with pytest.raises(NotFoundError, match="TransformerLens's own"):
        check_model(ModelSpec(name))
