"""What the session found in a text: tokens, and how much each feature fires on each; pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mi_crow.errors import CorruptDataError
from tui.preferences.key_words import key


@dataclass(frozen=True)
class Inspection:
    """One inspected text. `acts[feature]` has one value per token."""

    tokens: tuple[str, ...] = ()
    special: tuple[bool, ...] = ()
    outlier: tuple[bool, ...] = ()
    top: tuple[tuple[int, float], ...] = ()  # features of the text by their greatest activation
    per_token: tuple[tuple[tuple[int, float], ...], ...] = ()
    acts: Mapping[int, tuple[float, ...]] = field(default_factory=dict)
    layers: Mapping[int, str] = field(default_factory=dict)  # of an SAE over several: of `top`
    tokens_read: int = 0
    tokens_total: int = 0  # of the whole text; more than were read where it was cut
    windows: int = 1
    bos_added: bool = False

    def reading(self) -> str:
        """How much of the text was read and how, on two short lines: there is no room for more."""
        total = self.tokens_total or len(self.tokens)
        cut = self.tokens_read < self.tokens_total
        read = f"{self.tokens_read:,} of {total:,}" if cut else f"{total:,}"
        lines = [read if len(read) > 10 else f"{read} tokens"]
        how = f"{self.windows:,} windows" if self.windows > 1 else ""
        if cut:
            how = f"{key('inspect.windows')} reads all"
        if self.bos_added:
            how = f"{how}, BOS" if how else "BOS added"
        return "\n".join([*lines, how] if how else lines)

    @property
    def extra_columns(self) -> tuple[str, ...]:
        """What lists of its features also show."""
        return ("layer",) if self.layers else ()

    @property
    def excluded(self) -> frozenset[int]:
        """Special and outlier tokens: dimmed, since their activations mean nothing."""
        flags = zip(self.special, self.outlier, strict=True)
        return frozenset(index for index, pair in enumerate(flags) if any(pair))

    def why_excluded(self, token: int) -> str:
        """`special`, `outlier` or nothing."""
        if token < len(self.special) and self.special[token]:
            return "special token"
        if token < len(self.outlier) and self.outlier[token]:
            return "outlier: norm far above the rest"
        return ""

    def acts_of(self, feature: int) -> tuple[float, ...]:
        """The feature's activation on every token, zero where it is not known to fire."""
        known = self.acts.get(feature)
        if known is not None:
            return known
        return tuple(dict(pairs).get(feature, 0.0) for pairs in self.per_token)

    def features(self) -> list[int]:
        """Every feature that is named anywhere, each once."""
        named = [feature for feature, _ in self.top]
        named += [feature for pairs in self.per_token for feature, _ in pairs]
        return list(dict.fromkeys(named))


def inspection_from(result: Mapping[str, Any]) -> Inspection:
    """Reads the session's answer. Raises CorruptDataError when it is not one."""
    try:
        tokens = tuple(str(token) for token in result["tokens"])
        features: Sequence[Mapping[str, Any]] = result["features"]
        return Inspection(
            tokens=tokens,
            special=tuple(bool(flag) for flag in result["special"]),
            outlier=tuple(bool(flag) for flag in result["outlier"]),
            top=tuple((int(one["feature"]), float(one["max_act"])) for one in features),
            per_token=tuple(
                tuple((int(feature), float(act)) for feature, act in pairs)
                for pairs in result["per_token"]
            ),
            tokens_read=int(result.get("tokens_read", len(tokens))),
            tokens_total=int(result.get("tokens_total", len(tokens))),
            windows=int(result.get("windows", 1)),
            bos_added=bool(result.get("bos_added", False)),
            layers={int(one["feature"]): str(one["layer"]) for one in features if "layer" in one},
            acts={int(one["feature"]): tuple(map(float, one["acts"])) for one in features},
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptDataError(
            f"the model session returned an invalid inspection ({error!r})"
        ) from error
