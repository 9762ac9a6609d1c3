"""Sampling continuations: one batch, cached, seeded, streamed, stoppable between tokens."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mi_crow.bounds import COUNT, FACTOR, SEED, SIZE, TEMPERATURE, TOP_P
from mi_crow.errors import NotFiniteError, UserError
from mi_crow.language_model.base import CausalModel
from mi_crow.language_model.decoding.constraints import budgeted_logits, plausible_logits
from mi_crow.language_model.decoding.steps import Prefixes, Steps
from mi_crow.language_model.detokenize import Detokenizer, added_text
from mi_crow.language_model.placement.batch_size import BatchSize
from mi_crow.language_model.tokenize import start_id

Side = Literal["baseline", "steered"]
SIDES: tuple[Side, ...] = ("baseline", "steered")

_NOT_A_TOKEN = -1
# Continuations of several prompts in one batch.
_ROWS = 128
_ROWS_CUDA = 1024
_LESS = "ask for fewer continuations of a prompt, or fewer new tokens"
_COLDEST = 1e-6  # below, dividing logits overflows: only the likeliest token is left


@dataclass(frozen=True)
class Sampling:
    """How continuations are sampled."""

    max_new_tokens: int = 64
    temperature: float = 1.0  # 0 takes the likeliest token
    top_p: float = 1.0
    seed: int = 0
    n: int = 1
    use_cache: bool = True
    bos: str = "auto"  # a BOS token in front of the prompt: auto | yes | no
    plausible: float | None = None  # beta: only tokens the plain model gives that share of its best
    kl_budget: float | None = None  # nats a token that the distribution may be from the plain one

    def __post_init__(self) -> None:
        COUNT.check(self.max_new_tokens, "new tokens")
        TEMPERATURE.check(self.temperature, "temperature")
        TOP_P.check(self.top_p, "top-p")
        SEED.check(self.seed, "the seed")
        SIZE.check(self.n, "continuations")
        TOP_P.check(self.plausible, "the plausible share")
        FACTOR.check(self.kl_budget, "the KL budget")

    @property
    def constrained(self) -> bool:
        """Whether the plain model's predictions are needed beside the steered ones."""
        return self.plausible is not None or self.kl_budget is not None

    def within_constraints(self, steered: Tensor, plain: Tensor) -> Tensor:
        """Logits [n, vocabulary] that keep to the plausible tokens and the budget."""
        if self.kl_budget is not None:
            steered = budgeted_logits(steered, plain, self.kl_budget)
        if self.plausible is not None:
            steered = plausible_logits(steered, plain, self.plausible)
        return steered


@dataclass(frozen=True)
class Generation:
    """The continuations of one prompt."""

    prompt: str
    prompt_ids: list[int]  # as the model read it, special tokens included
    texts: list[str]  # the continuations, without prompt and special tokens
    token_ids: list[list[int]]  # of each continuation, without its end token
    stopped: bool  # True when should_stop ended it
    shortened_to: int | None = None  # new tokens, if the context was full before all were made
    nats: list[float] | None = None  # of each continuation, where asked for: see `generate_each`

    @property
    def text(self) -> str:
        """The first continuation."""
        return self.texts[0]


OnToken = Callable[[str, int, str], None]  # side, number of the continuation, its next text


@torch.inference_mode()
def generate(
    lm: CausalModel,
    prompt: str,
    sampling: Sampling,
    on_token: Callable[[str], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Generation:
    """Continues `prompt`; see LanguageModel.generate."""
    side: Side = "steered" if lm.controllers_enabled else "baseline"

    def first(_: str, number: int, piece: str) -> None:
        if number == 0 and on_token is not None:
            on_token(piece)

    report = None if on_token is None else first
    return generate_sides(lm, prompt, sampling, (side,), report, should_stop)[side]


@torch.inference_mode()
def generate_sides(
    lm: CausalModel,
    prompt: str,
    sampling: Sampling,
    sides: Sequence[Side] = SIDES,
    on_token: OnToken | None = None,
    should_stop: Callable[[], bool] | None = None,
    *,
    prefixes: Prefixes | None = None,
    key: object = None,
) -> dict[Side, Generation]:
    """Continues `prompt` on each of `sides` in one batch, with the same random numbers: `baseline`
    without controllers, `steered` with those that are registered.

    `prefixes` keep what the model made of the prompt for the next call; `key` stands for what the
    controllers do, so that a change of it has the prompt read again. Raises UserError when the
    predictions are not finite.
    """
    one = _Asked(prompt, _prompt_ids(lm, prompt, sampling.bos), sampling.seed)
    return _continued(lm, [one], sampling, sides, on_token, should_stop, prefixes, key)[0]


@torch.inference_mode()
def generate_each(
    lm: CausalModel,
    prompts: Sequence[str],
    sampling: Sampling,
    seeds: Sequence[int],
    with_nats: bool = False,
    strengths: Sequence[float] | None = None,
) -> list[Generation]:
    """Continues every prompt, with a seed of its own, as `generate` does one by one; prompts with
    as many tokens share a batch of at most 128 continuations, on CUDA of 1,024 or as many as fit.
    Raises UserError as there.

    `strengths`: what the controllers' amounts are multiplied by, for each prompt.

    `with_nats`: what the continuations' tokens cost (-log p at temperature 1) under the plain model
    where constraints have it read beside, else under the model as it wrote.
    """
    side: Side = "steered" if lm.controllers_enabled else "baseline"
    asked = [
        _Asked(prompt, _prompt_ids(lm, prompt, sampling.bos), seed, strength)
        for prompt, seed, strength in zip(
            prompts, seeds, strengths or [1.0] * len(prompts), strict=True
        )
    ]
    found: dict[int, Generation] = {}
    for length in sorted({len(one.ids) for one in asked}):
        alike = [place for place, one in enumerate(asked) if len(one.ids) == length]
        rows = _ROWS_CUDA if lm.device.type == "cuda" else _ROWS
        size = BatchSize(max(1, rows // sampling.n), _unheard, "prompt", _LESS)

        def run(which: slice, alike: list[int] = alike) -> dict[int, Generation]:
            some = [asked[place] for place in alike[which]]
            both = _continued(lm, some, sampling, (side,), with_nats=with_nats)
            return {place: one[side] for place, one in zip(alike[which], both, strict=True)}

        for some in size.pieces(len(alike), run):
            found |= some
    return [found[place] for place in range(len(asked))]


@dataclass(frozen=True)
class _Asked:
    """A prompt to continue."""

    prompt: str
    ids: list[int]
    seed: int
    strength: float = 1.0  # what the controllers' amounts are multiplied by


def _unheard(_: str) -> None:
    pass


def _continued(
    lm: CausalModel,
    asked: Sequence[_Asked],
    sampling: Sampling,
    sides: Sequence[Side],
    on_token: OnToken | None = None,
    should_stop: Callable[[], bool] | None = None,
    prefixes: Prefixes | None = None,
    key: object = None,
    with_nats: bool = False,
) -> list[dict[Side, Generation]]:
    """The continuations of prompts of one length, in one batch; with nats only on one side."""
    # The steered text read without interventions. Where none act, it would be the same again.
    beside = sampling.constrained and "steered" in sides
    strengths = [one.strength for one in asked]
    room = _room(lm, len(asked[0].ids), sampling.max_new_tokens)
    steps = Steps(
        lm,
        [one.ids for one in asked],
        [*(side == "steered" for side in sides), *([False] if beside else [])],
        sampling.n,
        use_cache=sampling.use_cache,
        prefixes=prefixes,
        key=key,
        strengths=None if all(one == 1 for one in strengths) else strengths,
        new_tokens=room,
    )
    texts = _Texts(lm, asked, sides, sampling.n, steps.special, on_token)
    generators = [torch.Generator("cpu").manual_seed(one.seed) for one in asked]
    stopped, costs = False, list[Tensor]()
    # Uniform numbers come from the CPU, so that a seed means the same on every device.
    drawn = [
        torch.cat([torch.rand(sampling.n, 1, generator=one) for one in generators])
        for _ in range(room)
    ]
    uniform = torch.stack(drawn).repeat(1, len(sides), 1).to(lm.device)
    for place in range(room):
        if should_stop is not None and should_stop():
            stopped = True
            break
        logits = steps.logits()
        found = [*logits[: len(sides)]]
        # The greatest of numbers with a NaN among them is NaN. On the device, so that the one wait
        # below covers this as well.
        broken = logits[: len(sides)].amax(dim=-1).isnan().flatten()
        if beside:
            own = sides.index("steered")
            found[own] = sampling.within_constraints(found[own], logits[-1])
        every = torch.cat(found) if len(found) > 1 else found[0]
        chosen = choose(every, sampling, uniform[place])
        if with_nats:
            costs.append(-torch.log_softmax(logits[-1].float(), -1).gather(-1, chosen[:, None]))
        told = chosen.masked_fill(broken, _NOT_A_TOKEN).tolist()
        texts.add(told)
        if texts.whole:
            break
        chosen = chosen.unflatten(0, (len(sides), -1))
        both = [*chosen, *([chosen[sides.index("steered")]] if beside else [])]
        steps.append(torch.cat(both))
    nats = torch.cat(costs, 1).double().tolist() if costs else None  # [row, token]
    return texts.generations(stopped, room if room < sampling.max_new_tokens else None, nats)


class _Texts:
    """The continuations of all sides as they grow: a side's prompts in turn, `n` of each."""

    def __init__(
        self,
        lm: CausalModel,
        asked: Sequence[_Asked],
        sides: Sequence[Side],
        n: int,
        special: frozenset[int],
        on_token: OnToken | None,
    ) -> None:
        self._lm, self._asked, self._special = lm, asked, special
        self._sides, self._n, self._on_token = sides, n, on_token
        self._ends = _end_ids(lm)
        self._rows: list[list[int]] = [[] for _ in range(n * len(asked) * len(sides))]
        self._unfinished = set(range(len(self._rows)))
        reported = len(self._rows) if on_token is not None else 0
        self._detokenizers = [
            Detokenizer(lm.tokenizer, asked[row // n % len(asked)].ids) for row in range(reported)
        ]

    @property
    def whole(self) -> bool:
        """Whether every continuation came to its end."""
        return not self._unfinished

    def add(self, tokens: Sequence[int]) -> None:
        """The next token of every row. Raises NotFiniteError for one without finite predictions."""
        for row in sorted(self._unfinished):
            token = tokens[row]
            if token == _NOT_A_TOKEN:
                raise NotFiniteError(
                    "the model's predictions are not finite numbers",
                    hint="lower the interventions' values",
                )
            if token in self._ends:
                self._unfinished.discard(row)
                continue
            self._rows[row].append(token)
            if self._detokenizers and token not in self._special:
                self._report(row, self._detokenizers[row].push(token))

    def generations(
        self, stopped: bool, room: int | None, nats: Sequence[Sequence[float]] | None
    ) -> list[dict[Side, Generation]]:
        """Everything that was written, a prompt at a time; `room`: after how many tokens the
        context was full; `nats` of each row's tokens, those after its end too."""
        for row, detokenizer in enumerate(self._detokenizers):
            self._report(row, detokenizer.flush())
        found: list[dict[Side, Generation]] = []
        for place, one in enumerate(self._asked):
            sides: dict[Side, Generation] = {}
            for number, side in enumerate(self._sides):
                start = (number * len(self._asked) + place) * self._n
                rows = self._rows[start : start + self._n]
                texts = [_continuation(self._lm, one.ids, row, self._special) for row in rows]
                full = room is not None and any(len(row) == room for row in rows)
                own = None
                if nats is not None:
                    own = [sum(nats[start + at][: len(row)]) for at, row in enumerate(rows)]
                sides[side] = Generation(
                    one.prompt, one.ids, texts, rows, stopped, room if full else None, own
                )
            found.append(sides)
        return found

    def _report(self, row: int, piece: str) -> None:
        if piece and self._on_token is not None:
            number, sample = divmod(row, self._n)
            self._on_token(self._sides[number], sample, piece)


def choose(logits: Tensor, sampling: Sampling, uniform: Tensor) -> Tensor:
    """One token id [n] for each row of logits [n, vocabulary].

    Inverts the distribution at `uniform` [n, 1] in [0, 1): the same numbers give the same tokens on
    every device. With `top_p` the distribution is cut to its nucleus (Holtzman et al. 2020, eq. 2).
    """
    if sampling.temperature < _COLDEST:
        return logits.argmax(dim=-1)
    probabilities = torch.softmax(logits / sampling.temperature, dim=-1)
    order = None
    if sampling.top_p < 1:
        probabilities, order = probabilities.sort(dim=-1, descending=True)
        # The smallest set whose mass reaches top_p: the mass before a token must be below it.
        before = probabilities.cumsum(dim=-1) - probabilities
        probabilities = probabilities.masked_fill(before >= sampling.top_p, 0.0)
    mass = probabilities.cumsum(dim=-1)
    # Just below 1, so that rounding cannot reach the end, where tokens without mass may be.
    target = uniform.to(logits.device) * (1 - 1e-6) * mass[:, -1:]
    rank = torch.searchsorted(mass, target, right=True)
    return (rank if order is None else order.gather(-1, rank))[:, 0]


def _prompt_ids(lm: CausalModel, prompt: str, bos: str) -> list[int]:
    """Ids of the prompt, without an end token that the tokenizer may add."""
    ids = lm.tokenize([prompt], bos=bos)[0]
    end = lm.tokenizer.eos_token_id
    if len(ids) > 1 and end is not None and ids[-1] == end:
        ids = ids[:-1]
    if ids:
        return ids
    start = start_id(lm.tokenizer)
    if start is None:
        raise UserError("the prompt is empty", hint="this model has no start token: write one")
    return [start]


def _end_ids(lm: CausalModel) -> list[int]:
    """Ids that end a text."""
    configured = getattr(getattr(lm.model, "generation_config", None), "eos_token_id", None)
    ends = configured if isinstance(configured, list) else [configured]
    return sorted({int(i) for i in [*ends, lm.tokenizer.eos_token_id] if i is not None})


def _room(lm: CausalModel, prompt_length: int, wanted: int) -> int:
    """New tokens that fit the model's context. Raises UserError when the prompt fills it."""
    context = lm.context
    if context is None:
        return wanted
    if prompt_length >= context:
        raise UserError(
            f"the prompt has {prompt_length} tokens, the model's context {context}",
            hint="shorten it",
        )
    return min(wanted, context - prompt_length)


def _continuation(
    lm: CausalModel, prompt_ids: list[int], ids: list[int], special: frozenset[int]
) -> str:
    """The text that `ids` add to the prompt's, without special tokens."""
    before = prompt_ids[-8:]
    kept = [token for token in ids if token not in special]
    return added_text(lm.tokenizer, before, before + kept)
