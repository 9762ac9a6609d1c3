"""What steering does to text: the share of a topic, and what it costs in perplexity."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from mi_crow.language_model.tokenize import pad
from mi_crow.mechanistic.steering.interventions import Intervention
from mi_crow.mechanistic.steering.steer import steering

if TYPE_CHECKING:
    from mi_crow.language_model import Generation, LanguageModel
    from mi_crow.mechanistic.sae import SparseAutoencoder

Judge = Callable[[Sequence[str]], Sequence[str]]  # texts -> the likeliest label of each

_BATCH = 32


@dataclass(frozen=True)
class Written:
    """Continuations of some prompts under one stack of interventions."""

    generations: "list[Generation]"

    @property
    def texts(self) -> list[str]:
        return [text for generation in self.generations for text in generation.texts]

    def share(self, label: str, judge: Judge) -> float:
        """Share of continuations that `judge` puts on `label`."""
        labels = judge(self.texts)
        return sum(found == label for found in labels) / len(labels)


def write_continuations(
    lm: "LanguageModel",
    sae: "SparseAutoencoder",
    layer: str,
    prompts: Sequence[str],
    interventions: Sequence[Intervention],
    max_acts: Mapping[int, float],
    *,
    n: int,
    max_new_tokens: int,
    seed: int,
) -> Written:
    """`n` sampled continuations (temperature 1), spread over the prompts, one batch a prompt."""
    each = math.ceil(n / len(prompts))
    generations = []
    with steering(lm, sae, layer, interventions, max_acts):
        for number, prompt in enumerate(prompts):
            count = min(each, n - number * each)
            if count > 0:
                generations.append(lm.generate(prompt, max_new_tokens, seed=seed + number, n=count))
    return Written(generations)


@torch.inference_mode()
def perplexity(lm: "LanguageModel", written: Written) -> float:
    """Perplexity of the continuations' tokens, given their prompts, under the plain model."""
    rows: list[list[int]] = []
    starts: list[int] = []
    for generation in written.generations:
        prompt = lm.tokenizer(generation.prompt)["input_ids"]
        for ids in generation.token_ids:
            if ids:
                rows.append([*prompt, *ids])
                starts.append(len(prompt))
    nats, tokens = 0.0, 0
    for first in range(0, len(rows), _BATCH):
        encoding = pad(rows[first : first + _BATCH], lm.tokenizer).to(lm.device)
        with lm.plain():
            logits = lm.inference.run(encoding).logits[:, :-1].float()
        targets = encoding.input_ids[:, 1:]
        losses = torch.nn.functional.cross_entropy(
            logits.transpose(1, 2), targets, reduction="none"
        )
        places = torch.arange(targets.shape[1], device=targets.device) + 1
        begin = torch.tensor(starts[first : first + _BATCH], device=targets.device)
        counted = (places[None] >= begin[:, None]) & encoding.attention_mask[:, 1:].bool()
        nats += float((losses * counted).sum())
        tokens += int(counted.sum())
    return math.exp(nats / max(tokens, 1))
