"""ReFT-r1: a rank-one direction that is trained to be found in texts and to write them.

Wu et al. 2025 (AxBench, 2501.17148), section 4: with a_i = relu(h_i w) on the tokens of a text and
the mean of its k greatest as the strength, h' = h + mean(topk(a)) w; w minimises the language
model's loss on texts of the concept under h', plus a penalty on the a_i outside the top k. Here the
penalty holds for every token of the texts that are not about the concept too.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from mi_crow.errors import UserError
from mi_crow.mechanistic.sae.substitute import substitute

if TYPE_CHECKING:
    from mi_crow.language_model import HookPoint, LanguageModel
    from mi_crow.language_model.tokenize import Encoding
    from mi_crow.mechanistic.vectors.parts import Parts

TOP_TOKENS = 8
_PENALTY = 5e-3
_RATE = 1e-2
_BATCH = 8
_LONGEST = 64
_KEPT_EVERY = 20  # steps

Report = Callable[[int, int], None]


def trained_direction(
    lm: "LanguageModel",
    point: "HookPoint",
    positive: Sequence[str],
    negative: Sequence[str],
    start: Tensor,
    *,
    steps: int,
    seed: int,
    bos: str = "auto",
    report: Report | None = None,
    parts: "Parts | None" = None,
) -> Tensor:
    """The trained direction, of length one [d], beginning at `start` [d]; the model is not changed.
    The training goes on where `parts` have it.

    Raises UserError when the loss is no longer a finite number.
    """
    w = (start / torch.linalg.vector_norm(start)).to(lm.device).clone().requires_grad_(True)
    solver = torch.optim.Adam([w], lr=_RATE)
    generator = torch.Generator().manual_seed(seed)
    kept = f"training-{point.point}"
    first = _taken_up(parts.load(kept) if parts is not None else None, w, solver, generator)
    with _Frozen(lm), torch.enable_grad():
        for step in range(first, steps):
            solver.zero_grad()
            for_loss = _concept_loss(lm, point, _drawn(lm, positive, generator, bos), w)
            against = _silence(lm, point, _drawn(lm, negative, generator, bos), w)
            loss = for_loss + _PENALTY * against
            if not bool(loss.isfinite()):
                raise UserError("the training of the vector diverged", hint="give other texts")
            loss.backward()
            solver.step()
            with torch.no_grad():
                w.div_(torch.linalg.vector_norm(w).clamp_min(1e-12))
            if parts is not None and (step + 1) % _KEPT_EVERY == 0:
                parts.keep(kept, _state(step + 1, w, solver, generator))
            if report is not None:
                report(step + 1, steps)
    return w.detach().cpu()


def _state(
    done: int, w: Tensor, solver: torch.optim.Adam, generator: torch.Generator
) -> dict[str, Tensor]:
    """All that the next step depends on."""
    moments = solver.state[w]
    return {
        "done": torch.tensor(done),
        "w": w,
        "generator": generator.get_state(),
        **{key: moments[key] for key in ("step", "exp_avg", "exp_avg_sq")},
    }


def _taken_up(
    held: dict[str, Tensor] | None, w: Tensor, solver: torch.optim.Adam, generator: torch.Generator
) -> int:
    """Goes on from a kept state; gives the number of steps that were done."""
    if held is None:
        return 0
    with torch.no_grad():
        w.copy_(held["w"])
    generator.set_state(held["generator"])
    solver.state[w] = {
        "step": held["step"],
        **{key: held[key].to(w.device) for key in ("exp_avg", "exp_avg_sq")},
    }
    return int(held["done"])


class _Frozen:
    """Inside the block the model's parameters take no gradients."""

    def __init__(self, lm: "LanguageModel") -> None:
        self._taking = [one for one in lm.model.parameters() if one.requires_grad]

    def __enter__(self) -> None:
        for one in self._taking:
            one.requires_grad_(False)

    def __exit__(self, *_: object) -> None:
        for one in self._taking:
            one.requires_grad_(True)


def _drawn(
    lm: "LanguageModel", texts: Sequence[str], generator: torch.Generator, bos: str
) -> "Encoding":
    order = torch.randperm(len(texts), generator=generator)[:_BATCH].tolist()
    length = min(_LONGEST, lm.context or _LONGEST)
    drawn = [texts[int(number)] for number in order]
    return lm.padded(lm.tokenize(drawn, length, bos))


def _concept_loss(
    lm: "LanguageModel", point: "HookPoint", encoding: "Encoding", w: Tensor
) -> Tensor:
    own = ~encoding.special
    rest: list[Tensor] = []

    def steer(h: Tensor) -> Tensor:
        a = functional.relu(h.float() @ w) * own
        top, where = a.topk(min(TOP_TOKENS, a.shape[1]), dim=1)
        strength = top.mean(dim=1, keepdim=True)
        rest.append(_mean(a.scatter(1, where, 0.0), own))
        return (h.float() + (own * strength)[..., None] * w).to(h.dtype)

    with substitute(lm, point, steer):
        logits = lm.model(**encoding.as_inputs(), use_cache=False).logits[:, :-1].float()
    targets, real = encoding.input_ids[:, 1:], own[:, 1:]
    nats = functional.cross_entropy(logits.transpose(1, 2), targets, reduction="none")
    return _mean(nats, real) + _PENALTY * rest[0]


def _silence(lm: "LanguageModel", point: "HookPoint", encoding: "Encoding", w: Tensor) -> Tensor:
    """The mean of relu(h w) on texts that are not about the concept."""
    from mi_crow.language_model.capture_pass import run_to

    h = run_to(lm, [point], encoding.input_ids, encoding.attention_mask)[point].clone()
    return _mean(functional.relu(h.float() @ w), ~encoding.special)


def _mean(values: Tensor, where: Tensor) -> Tensor:
    return (values * where).sum() / where.sum().clamp_min(1)
