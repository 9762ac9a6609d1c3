"""Sampling continuations: one batch, cached, seeded, streamed, stoppable between two tokens."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mi_crow.errors import UserError
from mi_crow.language_model.detokenize import Detokenizer
from mi_crow.language_model.tokenize import special_mask, tokenize

if TYPE_CHECKING:
    from mi_crow.language_model.language_model import LanguageModel


@dataclass(frozen=True)
class Settings:
    """How continuations are sampled."""

    max_new_tokens: int = 64
    temperature: float = 1.0  # 0 takes the likeliest token
    top_p: float = 1.0
    seed: int = 0
    n: int = 1
    use_cache: bool = True

    def __post_init__(self) -> None:
        for wrong, sentence in (
            (self.max_new_tokens < 1, f"new tokens must be at least 1, not {self.max_new_tokens}"),
            (self.temperature < 0, f"temperature must be 0 or more, not {self.temperature}"),
            (not 0 < self.top_p <= 1, f"top-p must lie in (0, 1], not {self.top_p}"),
            (self.n < 1, f"continuations must be at least 1, not {self.n}"),
        ):
            if wrong:
                raise UserError(sentence)


@dataclass(frozen=True)
class Generation:
    """What was generated."""

    prompt: str
    prompt_ids: list[int]  # what the model read of it, special tokens included
    texts: list[str]  # the continuations, without prompt and special tokens
    token_ids: list[list[int]]  # of each continuation, without what follows its end
    stopped: bool  # True when should_stop ended it

    @property
    def text(self) -> str:
        """The first continuation."""
        return self.texts[0]


@torch.inference_mode()
def generate(
    lm: "LanguageModel",
    prompt: str,
    settings: Settings,
    on_token: Callable[[str], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Generation:
    """Continues `prompt`; see LanguageModel.generate."""
    prompt_ids = _prompt_ids(lm, prompt)
    ids = torch.tensor([prompt_ids] * settings.n, dtype=torch.int64, device=lm.device)
    generator = torch.Generator("cpu").manual_seed(settings.seed)
    ends = _end_ids(lm)
    detokenizer = Detokenizer(lm.tokenizer)
    done = torch.zeros(settings.n, dtype=torch.bool)
    written: list[Tensor] = []
    cache: Any = None
    stopped = False
    for _ in range(_room(lm, len(prompt_ids), settings.max_new_tokens)):
        if should_stop is not None and should_stop():
            stopped = True
            break
        logits, cache = _step(lm, ids, cache, len(prompt_ids), settings.use_cache)
        chosen = _choose(logits, settings, generator)
        chosen = torch.where(done, ends[0] if ends else 0, chosen)
        written.append(chosen)
        if ends:
            done |= torch.isin(chosen, torch.tensor(ends))
        if on_token is not None and not done[0]:
            piece = detokenizer.push(int(chosen[0]))
            if piece:
                on_token(piece)
        if bool(done.all()):
            break
        ids = torch.cat([ids, chosen[:, None].to(lm.device)], dim=1)
    if on_token is not None and (rest := detokenizer.flush()):
        on_token(rest)
    rows = torch.stack(written, dim=1).tolist() if written else [[] for _ in range(settings.n)]
    token_ids = [_until_end(row, ends) for row in rows]
    texts = [_decode(lm, row) for row in token_ids]
    return Generation(prompt, prompt_ids, texts, token_ids, stopped)


def _step(
    lm: "LanguageModel", ids: Tensor, cache: Any, prompt_length: int, use_cache: bool
) -> tuple[Tensor, Any]:
    """Logits [n, vocabulary] after the last of `ids` [n, length], and the cache to go on with."""
    from mi_crow.language_model.language_model import ForwardContext

    position = cache.get_seq_length() if cache is not None else 0
    new = ids[:, position:]
    mask = torch.ones_like(ids)
    special = special_mask(new, lm.tokenizer)
    with lm.running(ForwardContext(new, mask, special, position, prompt_length)):
        output = lm.model(
            input_ids=new, attention_mask=mask, past_key_values=cache, use_cache=use_cache
        )
    return output.logits[:, -1].float().cpu(), output.past_key_values if use_cache else None


def _choose(logits: Tensor, settings: Settings, generator: torch.Generator) -> Tensor:
    """One token id a row of logits [n, vocabulary]; nucleus sampling (Holtzman et al. 2020)."""
    if settings.temperature == 0:
        return logits.argmax(dim=-1)
    probabilities = torch.softmax(logits / settings.temperature, dim=-1)
    if settings.top_p < 1:
        ordered, order = probabilities.sort(dim=-1, descending=True)
        # The smallest set whose mass reaches top_p: what stands before a token must lie below it.
        ordered[ordered.cumsum(dim=-1) - ordered >= settings.top_p] = 0
        probabilities = torch.zeros_like(probabilities).scatter(-1, order, ordered)
    return torch.multinomial(probabilities, 1, generator=generator)[:, 0]


def _prompt_ids(lm: "LanguageModel", prompt: str) -> list[int]:
    """Ids of the prompt, without an end token that the tokenizer may add."""
    ids = tokenize(lm.tokenizer, [prompt])[0]
    end = lm.tokenizer.eos_token_id
    if len(ids) > 1 and end is not None and ids[-1] == end:
        ids = ids[:-1]
    if ids:
        return ids
    start = lm.tokenizer.bos_token_id
    if start is None:
        start = end
    if start is None:
        raise UserError("the prompt is empty", hint="this model has no start token: write one")
    return [start]


def _end_ids(lm: "LanguageModel") -> list[int]:
    """Ids that end a text."""
    configured = getattr(getattr(lm.model, "generation_config", None), "eos_token_id", None)
    ends = configured if isinstance(configured, list) else [configured]
    return sorted({int(i) for i in [*ends, lm.tokenizer.eos_token_id] if i is not None})


def _room(lm: "LanguageModel", prompt_length: int, wanted: int) -> int:
    """New tokens that fit the model's context. Raises UserError when the prompt fills it."""
    context = getattr(lm.model.config, "max_position_embeddings", None)
    if not isinstance(context, int):
        return wanted
    if prompt_length >= context:
        raise UserError(
            f"the prompt has {prompt_length} tokens, the model's context {context}",
            hint="shorten it",
        )
    return min(wanted, context - prompt_length)


def _until_end(row: list[int], ends: list[int]) -> list[int]:
    return row[: next((i for i, token in enumerate(row) if token in ends), len(row))]


def _decode(lm: "LanguageModel", ids: list[int]) -> str:
    return lm.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
