"""Continuations of several prompts, and what a model says of them when it reads them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from mi_crow.errors import UserError
from mi_crow.language_model.context import ForwardContext
from mi_crow.language_model.generation import Generation, Sampling, generate_each

if TYPE_CHECKING:
    from mi_crow.language_model import LanguageModel

_BATCH = 32
_LONGEST, _DOCUMENTS = 128, 8  # tokens of a held-out document that are read; documents at once


@dataclass(frozen=True)
class Written:
    """Continuations of some prompts under one stack of interventions."""

    generations: list[Generation]

    @property
    def texts(self) -> list[str]:
        return [text for generation in self.generations for text in generation.texts]


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
    """`n` sampled continuations, spread over the prompts, under whatever acts now. The constraints
    are those of `LanguageModel.generate`, and `with_nats` is that of `generate_each`.

    Raises UserError without a prompt.
    """
    sampling = Sampling(
        max_new_tokens, temperature, top_p, seed, plausible=plausible, kl_budget=kl_budget
    )
    return write_together(lm, prompts, sampling, n, (1.0,), with_nats)[0]


def write_together(
    lm: "LanguageModel",
    prompts: Sequence[str],
    sampling: Sampling,
    n: int,
    strengths: Sequence[float],
    with_nats: bool = False,
) -> list[Written]:
    """What `write_now` writes where the amounts of what acts now are multiplied by each of
    `strengths`, all in one batch. Raises UserError without a prompt."""
    if not prompts:
        raise UserError("no prompt given", hint="give at least one, it may be empty")
    seeds = [sampling.seed + number for number in range(len(prompts))]
    # The first prompts get the remainder.
    more = n % len(prompts)
    written: list[list[Generation]] = [[] for _ in strengths]
    for some, count in (
        (slice(0, more), n // len(prompts) + 1),
        (slice(more, None), n // len(prompts)),
    ):
        own = prompts[some]
        if not count or not own:
            continue
        every = [strength for strength in strengths for _ in own]
        of_each = generate_each(
            lm,
            [*own] * len(strengths),
            replace(sampling, n=count),
            [*seeds[some]] * len(strengths),
            with_nats,
            every,
        )
        for place, generations in enumerate(written):
            generations += of_each[place * len(own) : (place + 1) * len(own)]
    return [Written(generations) for generations in written]


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


@torch.inference_mode()
def corpus_loss(lm: "LanguageModel", rows: Sequence[Sequence[int]]) -> float:
    """Mean cross-entropy in nats of each token but the first, given those before it, as the model
    runs now; the first token counts as the prompt."""
    cut = sorted((list(ids[: min(_LONGEST, lm.context or _LONGEST)]) for ids in rows), key=len)
    nats, tokens = 0.0, 0
    for start in range(0, len(cut), _DOCUMENTS):
        encoding = lm.padded(cut[start : start + _DOCUMENTS])
        context = ForwardContext(
            encoding.input_ids, encoding.attention_mask, encoding.special, 0, 1
        )
        with lm.running(context):
            logits = lm.model(**encoding.as_inputs(), use_cache=False).logits
        log_p = functional.log_softmax(logits[:, :-1].float(), dim=-1)
        told = log_p.gather(-1, encoding.input_ids[:, 1:, None])[..., 0]
        real = encoding.attention_mask[:, 1:].bool()
        nats -= float((told * real).sum(dtype=torch.float64))
        tokens += int(real.sum())
    return nats / max(tokens, 1)
