"""TransformerLens's names for models, which tools built on it share, to ids on the hub."""

import re

from mi_crow.errors import NotFoundError

# TransformerLens drops the organisation, and has some short names. First match wins.
_ON_THE_HUB = (
    (r"gpt2-small", "openai-community/gpt2"),
    (r"(gpt2(?:-(?:medium|large|xl))?)", r"openai-community/\1"),
    (r"(distil)-?(gpt2)", r"distilbert/\1\2"),
    (r"(opt-.+)", r"facebook/\1"),
    (r"gpt-j(?:-6b)?", "EleutherAI/gpt-j-6b"),
    (r"gpt-neox(?:-20b)?", "EleutherAI/gpt-neox-20b"),
    (r"(gpt-neo-.+)", r"EleutherAI/\1"),
    (r"(pythia-.+)", r"EleutherAI/\1"),
    (r"(gemma-\d?.+)", r"google/\1"),
    (r"qwen([\d.]*)-([\d.]+)b(-.+)?", r"Qwen/Qwen\1-\2B\3"),  # the cache tells case apart
    (r"(qwen[\d.]*-.+)", r"Qwen/\1"),
    (r"(smollm[23]?-.+)", r"HuggingFaceTB/\1"),
    (r"(llama-2-\d+b)(-chat)?(?:-hf)?", r"meta-llama/\1\2-hf"),
    (r"((?:meta-)?llama-[\d.]+-.+)", r"meta-llama/\1"),
    (r"mistral-7b", "mistralai/Mistral-7B-v0.1"),
    (r"mistral-7b-instruct", "mistralai/Mistral-7B-Instruct-v0.1"),
    (r"(mistral-(?:nemo|7b)-.+)", r"mistralai/\1"),
    (r"mixtral(?:-8x7b)?", "mistralai/Mixtral-8x7B-v0.1"),
    (r"(phi-\d.*)", r"microsoft/\1"),
    (r"(bloom(?:-\w+)?)", r"bigscience/\1"),
    (r"(stablelm-.+)", r"stabilityai/\1"),
    (r"tiny-stories-(.+)", r"roneneldan/TinyStories-\1"),
    (r"(tinystories-.+)", r"roneneldan/\1"),
    (r"yi-(6b|34b)(-chat)?", r"01-ai/Yi-\1\2"),
    (r"(olmo-.+)", r"allenai/\1"),
)

# Weights that only TransformerLens reads.
_OF_TRANSFORMER_LENS = (
    r"(?:solu|gelu|attn-only)-\d+l.*",
    r"attn-only-.*",
    r"solu-.*",
    r"(?:othello-gpt|redwood_attn_2l|redwood-2l|grokking-.*|bert-.*|llama-(?:7|13|30|65)b(?:-hf)?)",
)


def hub_model(name: str) -> str:
    """The hub id for a TransformerLens name; other names stay as they are."""
    for pattern, replacement in _ON_THE_HUB:
        match = re.fullmatch(pattern, name, re.IGNORECASE)
        if match is not None:
            return match.expand(replacement)
    return name


def model_asked_for(name: str) -> str:
    """The hub id meant by a name that somebody typed and that is not a path.

    Ids that the hub itself knows without an organisation (`gpt2`) stay, so that they are found in
    the cache. Raises NotFoundError for a model that only TransformerLens can load.
    """
    if "/" in name or re.fullmatch(r"(?:distil)?gpt2(?:-(?:medium|large|xl))?", name):
        return name
    if any(re.fullmatch(pattern, name, re.IGNORECASE) for pattern in _OF_TRANSFORMER_LENS):
        raise NotFoundError(
            f"model {name!r} is one of TransformerLens's own, which transformers cannot load",
            hint="give a Hugging Face id (org/name), a folder, a .gguf file or `sample`",
        )
    return hub_model(name)
