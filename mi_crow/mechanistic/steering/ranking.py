"""In which order a text's features are listed: those that mean something for it come first.

A feature's activation is compared with its own greatest one in the index, and weighted by how
surprising it is that the feature fires at all, -log(density): a feature that fires on most tokens
says little, however large its activation. For a text the shares of its tokens are added up: else
what always fires on a first token, fully and rarely, would come before what the text is about.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor

from mi_crow.bounds import SHARE
from mi_crow.errors import UserError

Order = Literal["meaning", "share", "surprise", "raw", "count", "first"]
ORDERS: tuple[Order, ...] = get_args(Order)

_ONCE = 1e-9  # the density of a feature that never fired in the index, at least


@dataclass(frozen=True)
class Ranking:
    """How features are ordered, and which are left out. `meaning` is the sum over the tokens of
    share times surprise, `count` the tokens on which a feature fires, `first` the first of them."""

    by: Order = "meaning"
    max_density: float | None = None
    named_only: bool = False

    def __post_init__(self) -> None:
        if self.by not in ORDERS:
            raise UserError(f"order {self.by!r} is not known", hint=f"use {', '.join(ORDERS)}")
        SHARE.check(self.max_density, "the greatest density")

    @property
    def needs_index(self) -> bool:
        return self.by in ("meaning", "share", "surprise") or self.max_density is not None


BY_ACTIVATION = Ranking("raw")


@dataclass(frozen=True)
class Scales:
    """What an index knows of every feature: how often it fires and how strongly at most."""

    density: Tensor  # [M]
    max_act: Tensor  # [M]

    @classmethod
    def of(cls, figures: "tuple[np.ndarray, np.ndarray]", device: Any) -> "Scales":
        """From the index's columns."""
        density, most = (
            torch.from_numpy(np.ascontiguousarray(one, dtype=np.float32)).to(device)
            for one in figures
        )
        return cls(density, most)

    def shares(self, values: Tensor, features: Tensor) -> Tensor:
        """Activations as shares of the greatest ones; 1 for features that never fired."""
        most = self.max_act[features]
        return torch.where(most > 0, values / most, (values > 0).to(values.dtype))

    def surprise(self, features: Tensor) -> Tensor:
        """-log(density), in nats."""
        return -self.density[features].clamp(_ONCE, 1.0).log()


class Firing(NamedTuple):
    """How some features [f] fire on a text."""

    features: Tensor  # int64 [f]
    most: Tensor  # [f], their greatest activations
    total: Tensor  # [f], the sums of their activations over the tokens
    tokens: Tensor  # int64 [f], on how many they fire
    first: Tensor  # int64 [f], the first of these


def scores(by: Order, firing: Firing, scales: "Scales | None") -> Tensor:
    """What the features are ordered by, the greatest first: [f]. Without scales `meaning`, `share`
    and `surprise` are the greatest activation."""
    most = firing.most
    if by == "count":  # the stronger ones first among equals
        return firing.tokens.float() + 0.5 * most / most.amax().clamp_min(1e-12)
    if by == "first":
        return -firing.first.float()
    if by == "raw" or scales is None:
        return most
    surprise = scales.surprise(firing.features)
    if by == "surprise":
        return surprise
    if by == "share":
        return scales.shares(most, firing.features)
    return scales.shares(firing.total, firing.features) * surprise


def allowed(
    ranking: Ranking, features: Tensor, scales: "Scales | None", named: Collection[int]
) -> Tensor:
    """Which of the features a ranking keeps: bool, the shape of `features`."""
    kept = torch.ones(features.shape, dtype=torch.bool, device=features.device)
    if ranking.max_density is not None and scales is not None:
        kept &= scales.density[features] <= ranking.max_density
    if ranking.named_only:
        numbers = torch.tensor(sorted(named), dtype=features.dtype, device=features.device)
        kept &= torch.isin(features, numbers)
    return kept


def ranking_of(order: str | None, max_density: float | None, named: bool) -> Ranking | None:
    """The ranking that was asked for; None where nothing was, so that SAEs without an index are
    ordered by their activations. Raises UserError."""
    if order is None and max_density is None and not named:
        return None
    by: Any = order or ("raw" if max_density is None else "meaning")
    return Ranking(by, max_density, named)
