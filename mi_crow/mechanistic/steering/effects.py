"""What steering does to text: the share of a topic, and the perplexity and KL it costs."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from mi_crow.errors import UserError
from mi_crow.language_model.context import ForwardContext
from mi_crow.language_model.generation import Generation, Sampling, generate_each
from mi_crow.mechanistic.steering.interventions import Intervention
from mi_crow.mechanistic.steering.steer import steering

if TYPE_CHECKING:
    from mi_crow.language_model import LanguageModel
    from mi_crow.mechanistic.sae.base import SparseAutoencoder

Judge = Callable[[Sequence[str]], Sequence[str]]  # texts -> the likeliest label of each

_BATCH = 32


@dataclass(frozen=True)
class Written:
    """Continuations of some prompts under one stack of interventions."""

    generations: list[Generation]

    @property
    def texts(self) -> list[str]:
        return [text for generation in self.generations for text in generation.texts]

    def share(self, label: str, judge: Judge) -> float:
        """Share of continuations that `judge` labels `label`."""
        found = judge(self.texts)
        return sum(one == label for one in found) / max(len(found), 1)


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
    temperature: float = 1.0,
    seed: int = 0,
) -> Written:
    """`n` sampled continuations, spread over the prompts, one batch per prompt.

    Raises UserError without a prompt, and whatever `steering` raises.
    """
    with steering(lm, sae, layer, interventions, max_acts):
        return write_now(
            lm, prompts, n=n, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed
        )


def write_now(
    lm: "LanguageModel",
    prompts: Sequence[str],
    *,
    n: int,
    max_new_tokens: int,
    temperature: float = 1.0,
    seed: int = 0,
    top_p: float = 1.0,
    plausible: float | None = None,
    kl_budget: float | None = None,
    with_nats: bool = False,
) -> Written:
    """The same under whatever acts now; the constraints are those of `LanguageModel.generate`, and
    `with_nats` is that of `generate_each`."""
    if not prompts:
        raise UserError("no prompt given", hint="give at least one, it may be empty")
    seeds = [seed + number for number in range(len(prompts))]
    # The first prompts get the remainder.
    more = n % len(prompts)
    generations: list[Generation] = []
    for some, count in (
        (slice(0, more), n // len(prompts) + 1),
        (slice(more, None), n // len(prompts)),
    ):
        if count and prompts[some]:
            sampling = Sampling(
                max_new_tokens,
                temperature,
                top_p,
                seed,
                count,
                plausible=plausible,
                kl_budget=kl_budget,
            )
            generations += generate_each(lm, prompts[some], sampling, seeds[some], with_nats)
    return Written(generations)


def perplexity(lm: "LanguageModel", written: Written) -> float:
    """Perplexity of the continuations' tokens, given their prompts, under the plain model."""
    nats, tokens = 0.0, 0
    with lm.plain():
        for generation in written.generations:
            for log_p, targets, real in teacher_forced(lm, generation):
                chosen = log_p.gather(-1, targets[..., None])[..., 0]
                nats -= float((chosen * real).sum(dtype=torch.float64))
                tokens += int(real.sum())
    return math.exp(nats / max(tokens, 1))


def divergence(lm: "LanguageModel", generation: Generation) -> float:
    """KL(plain || as it runs now) in nats per token, over the continuations of `generation`."""
    nats, tokens = 0.0, 0
    with lm.plain():
        plain = list(teacher_forced(lm, generation))
    for (p, _, real), (q, _, _) in zip(plain, teacher_forced(lm, generation), strict=True):
        kl = functional.kl_div(q, p, log_target=True, reduction="none").sum(-1)
        nats += float((kl * real).sum(dtype=torch.float64))
        tokens += int(real.sum())
    return max(nats, 0.0) / max(tokens, 1)


@torch.inference_mode()
def teacher_forced(
    lm: "LanguageModel", generation: Generation, batch: int = _BATCH
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Log-probabilities [n, length, vocabulary] that the model predicts at each token of the
    continuations, these tokens [n, length], and which of them are real; `batch` rows at a time."""
    prompt = generation.prompt_ids
    rows = [[*prompt, *ids] for ids in generation.token_ids if ids]
    yield from rows_forced(lm, rows, len(prompt), batch)


@torch.inference_mode()
def rows_forced(
    lm: "LanguageModel", rows: Sequence[list[int]], prompt_length: int, batch: int = _BATCH
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """The same for texts of any prompts of one length."""
    for start in range(0, len(rows), batch):
        encoding = lm.padded(rows[start : start + batch])
        context = ForwardContext(
            encoding.input_ids, encoding.attention_mask, encoding.special, 0, prompt_length
        )
        with lm.running(context):
            logits = lm.model(**encoding.as_inputs(), use_cache=False).logits
        # Position i predicts token i + 1: the prompt's last token predicts the first one.
        log_p = functional.log_softmax(logits[:, prompt_length - 1 : -1].float(), dim=-1)
        yield (
            log_p,
            encoding.input_ids[:, prompt_length:],
            encoding.attention_mask[:, prompt_length:].bool(),
        )
