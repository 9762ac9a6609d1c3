"""Random models of a few thousand parameters and real small tokenizers, for the tests."""

from pathlib import Path
from typing import Any

import torch

TEXTS = [
    "The ferry left the harbour before dawn and the gulls followed it out to sea.",
    "Knead the dough, cover it with a cloth and let it rise for an hour.",
    "The judge adjourned the hearing until the second witness could be found.",
    "A cold front moves in from the north; expect sleet above four hundred metres.",
    "She tuned the cello, drew the bow once and waited for the conductor.",
    "Prune the roses in March, just above a bud that faces outward.",
    "The rook takes on d5 and black has nothing better than to trade queens.",
    "Sort the list in place, then return the index of the first match.",
    "The ward was quiet; the nurse wrote down the pulse and dimmed the lamp.",
    "Granite cools slowly under the ground, so its crystals grow large.",
    "“Naïve?” he asked. “No — à la carte, 12 €, and a smile 🙂.”",
    "The goalkeeper punched the corner away and the whistle ended it.",
]


def build_tokenizer(bos: bool = True, pad: bool = True, vocabulary: int = 384) -> Any:
    """A byte-level BPE tokenizer trained on TEXTS; `bos` adds <s> in front of every text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = (["<s>"] if bos else []) + ["</s>"] + (["<pad>"] if pad else [])
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        # The special tokens go last: id 0 is an ordinary token here.
        special_tokens=[],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.add_special_tokens(special)
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>" if bos else None,
        eos_token="</s>",
        pad_token="<pad>" if pad else None,
        clean_up_tokenization_spaces=False,
    )


def build_model(architecture: str, vocabulary: int, eos: int | None = None) -> Any:
    """A random causal LM with 3 blocks of width 32: llama, gpt2, gpt_neox, gemma, gemma2, qwen2,
    qwen3."""
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 64,
    }
    if architecture == "gpt2":
        sizes = {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64}
    if architecture == "gpt_neox":
        del sizes["num_key_value_heads"], sizes["head_dim"]
    if architecture in ("gemma2", "gemma3_text"):
        sizes["sliding_window"] = 8  # shorter than the tests' texts
    ends = {"bos_token_id": None, "eos_token_id": eos, "pad_token_id": None}
    config = AutoConfig.for_model(architecture, vocab_size=vocabulary, **sizes, **ends)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config).eval()
        # The usual 0.02 would give nearly uniform logits: every continuation alike.
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.data.mul_(8.0)
    return model


def save_tiny_llama(folder: Path, vocabulary: int = 384) -> Path:
    """Writes a random Llama with its tokenizer to `folder`, as the hub would hold it."""
    tokenizer = build_tokenizer(vocabulary=vocabulary)
    build_model("llama", len(tokenizer), tokenizer.eos_token_id).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_tuned(model_dir: Path, folder: Path) -> Path:
    """The model of `model_dir` with other weights, as if it had been trained further."""
    from mi_crow.language_model import LanguageModel

    lm = LanguageModel.from_huggingface(model_dir, device="cpu")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in lm.model.model.layers.parameters():
            if parameter.ndim == 2:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter += 0.5 * parameter.std() * noise
    lm.model.save_pretrained(folder)
    lm.tokenizer.save_pretrained(folder)
    return folder
