"""Train the sample model: a small Llama with its own tokenizer, on fresh passages of the grammar.

    python -m sample_data.train_model --seed 0

The model learns the sentences within a few hundred small steps and the topics much later: the loss
falls a second time. Large batches or few steps leave it blind to the topic, with a fine loss.
"""

import os

# Two busy cores: spinning OpenMP threads collapse to seconds a step when another process runs.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")

import argparse
import math
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from sample_data import model_path
from sample_data.grammar.passages import passages

PAD, BOS, EOS = "<pad>", "<s>", "</s>"
SPECIAL_IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
IGNORED = -100


@dataclass(frozen=True)
class Phase:
    """A stretch of training with its own warm-up and decay, over passages not seen before."""

    passages: int
    batch_size: int
    learning_rate: float
    warmup_steps: int


# Small batches find the topics; the second phase sharpens what is learned, which keeps rare wrong
# tokens, and with them slips from topic to topic, out of what the model writes.
PHASES = (Phase(48_000, 8, 1.5e-3, 150), Phase(32_000, 16, 1e-3, 100))


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what the trained model will be."""

    seed: int = 0
    phases: tuple[Phase, ...] = PHASES
    vocabulary: int = 4096
    width: int = 192
    layers: int = 4
    heads: int = 6
    feed_forward: int = 512
    context: int = 256


def train_tokenizer(texts: list[str], vocabulary: int, context: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer that puts BOS in front of every text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A",
        pair=f"{BOS} $A {BOS}:1 $B:1",
        special_tokens=[(BOS, tokenizer.token_to_id(BOS))],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        model_max_length=context,
        clean_up_tokenization_spaces=False,
    )


def new_model(recipe: Recipe, tokenizer: PreTrainedTokenizerBase, device: str) -> LlamaForCausalLM:
    """The untrained model on its device, in the size that the recipe says."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.width,
        intermediate_size=recipe.feed_forward,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        max_position_embeddings=recipe.context,
        tie_word_embeddings=True,
        pad_token_id=SPECIAL_IDS["pad_token_id"],
        bos_token_id=SPECIAL_IDS["bos_token_id"],
        eos_token_id=SPECIAL_IDS["eos_token_id"],
    )
    with torch.device(device):
        return LlamaForCausalLM(config)


def batches(
    encoded: list[list[int]], batch_size: int, rng: random.Random
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Ids and targets of passages of like length, one passage a row, in random order.

    Sorting within pools of 16 batches keeps padding low and each batch a mixture of topics.
    """
    pad = SPECIAL_IDS["pad_token_id"]
    for start in range(0, len(encoded), 16 * batch_size):
        pool = sorted(encoded[start : start + 16 * batch_size], key=len)
        groups = [pool[at : at + batch_size] for at in range(0, len(pool), batch_size)]
        rng.shuffle(groups)
        for group in groups:
            longest = max(map(len, group))
            ids = torch.tensor([row + [pad] * (longest - len(row)) for row in group])
            yield ids, ids.masked_fill(ids == pad, IGNORED)


def learning_rate_share(step: int, steps: int, warmup: int) -> float:
    """Linear warm-up, then a cosine down to a twentieth."""
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * progress))


def optimizer_of(model: LlamaForCausalLM, learning_rate: float) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices only."""
    matrices = [weight for weight in model.parameters() if weight.dim() > 1]
    vectors = [weight for weight in model.parameters() if weight.dim() <= 1]
    groups = [
        {"params": matrices, "weight_decay": 0.1},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.98), fused=True)


def fit(
    model: LlamaForCausalLM, encoded: list[list[int]], phase: Phase, rng: random.Random
) -> None:
    """Train the model on each passage once."""
    optimizer = optimizer_of(model, phase.learning_rate)
    steps = math.ceil(len(encoded) / phase.batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: learning_rate_share(step, steps, phase.warmup_steps)
    )
    started, losses = time.monotonic(), []
    for step, (ids, targets) in enumerate(batches(encoded, phase.batch_size, rng), start=1):
        # Padding stands on the right, so the causal mask alone keeps it out of sight.
        loss = model(input_ids=ids.to(model.device), labels=targets.to(model.device)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()
        losses.append(loss.detach())
        if step % 200 == 0 or step == steps:
            mean = torch.stack(losses[-200:]).mean().item()
            seconds = time.monotonic() - started
            print(f"step {step}/{steps}  loss {mean:.3f}  {seconds:.0f} s", flush=True)


def train(recipe: Recipe, device: str) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """The trained model and its tokenizer."""
    number = sum(phase.passages for phase in recipe.phases)
    texts = [passage.text for passage in passages(number, seed=recipe.seed)]
    tokenizer = train_tokenizer(texts[:20_000], recipe.vocabulary, recipe.context)
    encoded = iter([[*ids, SPECIAL_IDS["eos_token_id"]] for ids in tokenizer(texts)["input_ids"]])

    torch.manual_seed(recipe.seed)
    model = new_model(recipe, tokenizer, device).train()
    print(f"{number} passages, {model.num_parameters()} parameters on {device}", flush=True)
    rng = random.Random(recipe.seed)
    for phase in recipe.phases:
        fit(model, list(islice(encoded, phase.passages)), phase, rng)
    return model.eval(), tokenizer


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write the model in bfloat16 with what `from_pretrained` needs beside it."""
    model.generation_config = GenerationConfig(
        **SPECIAL_IDS,
        do_sample=True,
        temperature=1.0,
        top_k=0,
        max_new_tokens=128,
    )
    model.bfloat16().save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def main() -> None:
    """Train from the command line and write the model's folder."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    parser.add_argument("--share", type=float, default=1.0, help="of the passages, to try it out")
    parser.add_argument("--out", type=Path, default=model_path())
    arguments = parser.parse_args()

    torch.set_flush_denormal(True)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    phases = tuple(
        replace(phase, passages=round(phase.passages * arguments.share)) for phase in PHASES
    )
    recipe = Recipe(seed=arguments.seed, phases=phases)
    save(*train(recipe, device), arguments.out)
    print(f"written: {arguments.out}")


if __name__ == "__main__":
    main()
