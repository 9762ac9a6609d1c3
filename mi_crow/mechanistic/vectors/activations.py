"""What a model's layers are on some texts, token by token."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mi_crow.errors import UserError
from mi_crow.language_model.capture_pass import run_to

if TYPE_CHECKING:
    from mi_crow.language_model import HookPoint, LanguageModel

BATCH = 16
MASSIVE = 10.0  # a token of this many median norms is left out (see `sae.quality`)
LONGEST = 256  # tokens of a text that are read

Report = Callable[[int, int], None]  # done, total


@dataclass(frozen=True)
class TextActivations:
    """The ordinary tokens of some texts at one layer."""

    rows: Tensor  # [tokens, d] fp32
    ends: Tensor  # [texts] int64: where the tokens of each text end
    model_texts: list[int]  # which of the texts that were given have tokens

    def pooled(self, keep: Tensor, how: str) -> Tensor:
        """One row a text [n, d]: the mean of its tokens where `keep` [tokens] holds, or the last
        one of these. Texts without any are left out."""
        found = []
        start = 0
        for end in self.ends.tolist():
            own = self.rows[start:end][keep[start:end]]
            if len(own):
                found.append(own[-1] if how == "last" else own.mean(dim=0))
            start = end
        if not found:
            raise UserError("the texts have no ordinary tokens", hint="give longer ones")
        return torch.stack(found)


@torch.inference_mode()
def activations_on(
    lm: "LanguageModel",
    points: "Sequence[HookPoint]",
    texts: Sequence[str],
    bos: str = "auto",
    report: Report | None = None,
) -> "dict[HookPoint, TextActivations]":
    """The activations of `points` on `texts`, without special tokens, each text cut to LONGEST
    tokens and the model's context. Raises UserError where none has an ordinary token."""
    length = min(LONGEST, lm.context or LONGEST)
    ids = lm.tokenize(texts, length, bos)
    rows: dict[HookPoint, list[Tensor]] = {point: [] for point in points}
    counts: list[int] = []
    for start in range(0, len(ids), BATCH):
        encoding = lm.padded(ids[start : start + BATCH])
        found = run_to(lm, points, encoding.input_ids, encoding.attention_mask)
        counts += (~encoding.special).sum(dim=1).tolist()
        for point in points:
            rows[point].append(found[point][~encoding.special].float().cpu())
        if report is not None:
            report(min(start + BATCH, len(ids)), len(ids))
    kept = [number for number, count in enumerate(counts) if count]
    if not kept:
        raise UserError("the texts have no ordinary tokens", hint="give longer ones")
    ends = torch.tensor([counts[number] for number in kept]).cumsum(0)
    return {
        point: TextActivations(torch.cat(parts).clone(), ends, kept)
        for point, parts in rows.items()
    }


def massive_norm(*sides: TextActivations) -> tuple[float, float]:
    """The median norm of the tokens, and the norm above which one is massive."""
    norms = torch.cat([torch.linalg.vector_norm(one.rows, dim=1) for one in sides])
    median = float(norms.median())
    return median, MASSIVE * median


def ordinary(side: TextActivations, limit: float) -> Tensor:
    """Which tokens are not massive: bool [tokens]."""
    return torch.linalg.vector_norm(side.rows, dim=1) <= limit
