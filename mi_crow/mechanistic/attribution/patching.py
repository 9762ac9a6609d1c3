"""Activation patching: where the difference between two prompts is decided.

The corrupted prompt runs with one thing of the clean one restored at one token; the effect is the
share of the difference in the target that this brings back, (m - m_corrupted) / (m_clean -
m_corrupted) (Meng et al. 2022, 2202.05262; Zhang and Nanda 2024, 2309.16042, section 2).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor

from mi_crow.errors import MiCrowError, UserError
from mi_crow.language_model.capture_pass import run_to
from mi_crow.mechanistic.attribution.check import in_parts
from mi_crow.mechanistic.attribution.lens import no_blocks
from mi_crow.mechanistic.attribution.passes import graph_pass, logits_under
from mi_crow.mechanistic.attribution.site import SaeSite
from mi_crow.mechanistic.attribution.target import Target

if TYPE_CHECKING:
    from mi_crow.language_model import HookPoint, LanguageModel
    from mi_crow.language_model.tokenize import Encoding

Module = Literal["resid", "attn", "mlp"]
MODULES: tuple[Module, ...] = get_args(Module)
_POINTS = {"resid": "resid_post", "attn": "attn_out", "mlp": "mlp_out"}


@dataclass(frozen=True)
class Patched:
    """Effects of restoring one thing at one token, as shares: layers x tokens."""

    what: str
    points: tuple[str, ...]
    effects: tuple[tuple[float, ...], ...]
    clean: float  # the target on each prompt
    corrupted: float


@torch.no_grad()
def patch_modules(
    lm: "LanguageModel", clean: "Encoding", corrupted: "Encoding", target: Target, module: Module
) -> Patched:
    """Restores what a module adds to the stream (or the stream after the block) at each block and
    token. Blocks that lack the module are left out; raises MiCrowError where all of them do."""
    points = _points(lm, module)
    goal = _Goal(lm, clean, corrupted, target)
    whole = run_to(lm, points, clean.input_ids, clean.attention_mask)
    broken = run_to(lm, points, corrupted.input_ids, corrupted.attention_mask)
    rows = []
    for point in points:
        change = (whole[point] - broken[point])[0].float()
        rows.append(goal.effects(change, lambda rows, at=point: {at: rows}, {}))
    names = tuple(point.point for point in points)
    return Patched(module, names, tuple(rows), goal.clean, goal.corrupted)


@torch.no_grad()
def patch_features(
    site: SaeSite,
    clean: "Encoding",
    corrupted: "Encoding",
    target: Target,
    feature: int | None = None,
) -> Patched:
    """Restores one feature, or all of the SAE's, at each token; of an SAE over several layers at
    all of them, the others held (see `across`)."""
    lm = site.lm
    goal = _Goal(lm, clean, corrupted, target)
    readings = [
        graph_pass(lm, encoding, [site], target.position).readings[0]
        for encoding in (clean, corrupted)
    ]
    parts = [
        one.features_part(None if feature is None else one.latents.indices == feature)
        for one in readings
    ]
    change, own = parts[0] - parts[1], readings[1]
    row = goal.effects(change, own.at_points, own.held)
    what = f"SAE {site.sae_id}" if feature is None else f"feature {feature} of {site.sae_id}"
    return Patched(what, (site.place,), (row,), goal.clean, goal.corrupted)


class _Goal:
    """The target on both prompts, and what restoring something brings back of their difference."""

    def __init__(
        self, lm: "LanguageModel", clean: "Encoding", corrupted: "Encoding", target: Target
    ) -> None:
        self._lm, self._text, self._target = lm, corrupted, target
        self.clean, self.corrupted = (
            float(target.of_logits(lm.model(**one.as_inputs()).logits[0, target.position]))
            for one in (clean, corrupted)
        )
        if abs(self.clean - self.corrupted) < 1e-6 * max(abs(self.clean), 1.0):
            raise UserError(
                "the target is the same on both prompts",
                hint="give --target the answer to the clean one and --against that to the other",
            )

    def effects(
        self,
        difference: Tensor,
        at_points: "Callable[[Tensor], Mapping[HookPoint, Tensor]]",
        held: "Mapping[HookPoint, Tensor]",
    ) -> tuple[float, ...]:
        """For each token the effect of adding the difference [n, d] there, at the points that
        `at_points` says, to what is `held` there: one batch."""

        def run(tokens: Sequence[int]) -> Tensor:
            edits = torch.zeros(len(tokens), *difference.shape, device=difference.device)
            for row, token in enumerate(tokens):
                edits[row, token] = difference[token]
            logits = logits_under(
                self._lm, self._text, at_points(edits), self._target.position, held
            )
            return self._target.of_logits(logits)

        # Tokens at which nothing differs change nothing: with causal attention all those before.
        differing = [n for n, row in enumerate(difference) if bool((row != 0).any())]
        found = [0.0] * len(difference)
        values = in_parts(run, differing) if differing else []
        for token, value in zip(differing, values, strict=True):
            found[token] = (value - self.corrupted) / (self.clean - self.corrupted)
        return tuple(found)


def _points(lm: "LanguageModel", module: Module) -> "list[HookPoint]":
    found, reasons = [], []
    for number in range(len(lm.layers.blocks())):
        try:
            point = lm.layers.resolve(f"{_POINTS[module]}.{number}")
            lm.layers.width(point)
        except MiCrowError as error:
            reasons.append(error)
        else:
            found.append(point)
    if not found:
        raise reasons[0] if reasons else no_blocks(lm)
    return found
