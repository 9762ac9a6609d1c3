"""Names that other tools have for models, as the Hugging Face hub knows them."""

import re

# TransformerLens drops the organisation. First match wins.
_ORGANISATIONS = (
    (r"gpt2-small", "openai-community/gpt2"),
    (r"(gpt2(?:-(?:medium|large|xl))?)", r"openai-community/\1"),
    (r"(pythia-.+)", r"EleutherAI/\1"),
    (r"(gemma-\d?.+)", r"google/\1"),
    (r"(Qwen[\d.]*-.+)", r"Qwen/\1"),
    (r"(SmolLM2?-.+)", r"HuggingFaceTB/\1"),
    (r"((?:Meta-)?Llama-[\d.]+-.+)", r"meta-llama/\1"),
    (r"mistral-7b", "mistralai/Mistral-7B-v0.1"),
)


def hub_model(name: str) -> str:
    """The hub id of a model that TransformerLens names; other names stay as they are."""
    for pattern, replacement in _ORGANISATIONS:
        match = re.fullmatch(pattern, name)
        if match is not None:
            return match.expand(replacement)
    return name
