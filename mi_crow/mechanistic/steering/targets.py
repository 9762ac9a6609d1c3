"""What an intervention changes: features, a vector, a layer, a neuron. Torch-free.

A target is one line of text, the same in JSON, on the command line and on the screens:

    feature:42             a feature of the stack's own SAE
    feature:my-sae/42      a feature of another SAE, on whatever layer that one reads
    group:3+0.5*7-12       features with weights, of one SAE (group:my-sae/3+7)
    tag:weather            all features of that name or with that tag (tag:my-sae/weather)
    vector:calm            a vector of the workspace, at the layers that it was made for
    layer:model.layers.3   a layer's whole activation
    neuron:mlp_in.3/17     one coordinate of a layer's activation
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from math import isfinite
from typing import Literal, get_args

from mi_crow.bounds import FEATURE, REAL
from mi_crow.errors import UserError

Kind = Literal["feature", "group", "tag", "vector", "layer", "neuron"]

_ID = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
_FEATURE = re.compile(rf"(?:({_ID})/)?(\d+)", re.ASCII)
_WEIGHT = r"(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_TERM = re.compile(rf"([+-]?)(?:({_WEIGHT})[*x×])?#?(\d+)", re.ASCII)
_GROUP = re.compile(rf"(?:({_ID})/)?((?:{_TERM.pattern})+)", re.ASCII)
_MOST_FEATURES = 4096  # of one group
TARGETS = (
    "write feature:42, feature:my-sae/42, group:3+0.5*7, tag:weather, vector:calm, "
    "layer:model.layers.3 or neuron:mlp_in.3/17"
)


@dataclass(frozen=True)
class Target:
    """A target, read."""

    kind: Kind
    sae: str | None = None  # of features and tags; None where a stack or a command states it
    features: tuple[tuple[int, float], ...] = ()  # of a feature or a group: number, weight
    name: str = ""  # of a tag, a vector or a layer
    neuron: int | None = None

    @property
    def of_sae(self) -> bool:
        """Whether it is about features of an SAE."""
        return self.kind in ("feature", "group", "tag")

    @property
    def text(self) -> str:
        """As `read_target` reads it."""
        return f"{self.kind}:{f'{self.sae}/' if self.sae else ''}{self._rest}"

    @property
    def _rest(self) -> str:
        if self.kind in ("feature", "group"):
            return group_words(self.features)
        return self.name if self.neuron is None else f"{self.name}/{self.neuron}"

    @property
    def words(self) -> str:
        """As `parse_target` reads it: the kind is left out for features and groups."""
        rest = self.text.partition(":")[2]
        short = self.kind in ("feature", "group") and rest[0] != "-"
        return rest if short else self.text

    def describe(self) -> str:
        """`feature 42`, `features 3+0.5*7`, `tag weather`, `neuron 17 of mlp_in.3`."""
        if self.kind == "neuron":
            return f"neuron {self.neuron} of {self.name}"
        kind = "features" if self.kind == "group" else self.kind
        return f"{kind} {self._rest}"


def group_words(features: tuple[tuple[int, float], ...]) -> str:
    """`3+0.5*7-12`: features with their weights."""
    words = ""
    for feature, weight in features:
        sign = "-" if weight < 0 else "+" if words else ""
        size = "" if abs(weight) == 1 else f"{abs(weight):.9g}*"
        words += f"{sign}{size}{feature}"
    return words


@lru_cache(maxsize=4096)
def read_target(text: str) -> Target:
    """Reads `feature:my-sae/42` and the like. Raises UserError showing what would work."""
    kind, _, rest = text.partition(":")
    if kind not in get_args(Kind) or not rest.strip():
        raise _refused(text)
    if kind == "feature":
        match = _FEATURE.fullmatch(rest)
        if match is None:
            raise _refused(text)
        return Target("feature", match[1], ((FEATURE.read(match[2], "feature"), 1.0),))
    if kind == "group":
        return _group(rest, text)
    if kind == "tag":
        sae, slash, name = rest.partition("/")
        if slash and name.strip() and re.fullmatch(_ID, sae, re.ASCII):
            return Target("tag", sae, name=name.strip())
        return Target("tag", name=rest.strip())
    if kind == "vector":
        if not re.fullmatch(_ID, rest, re.ASCII):
            raise _refused(text)
        return Target("vector", name=rest)
    if kind == "layer":
        return Target("layer", name=rest)
    layer, _, neuron = rest.rpartition("/")
    if not layer or not neuron.isdecimal():
        raise _refused(text)
    return Target("neuron", name=layer, neuron=FEATURE.read(neuron, "neuron"))


def _group(rest: str, text: str) -> Target:
    rest = re.sub(r"\s+", "", rest)
    match = _GROUP.fullmatch(rest)
    if match is None:
        raise _refused(text)
    weights: dict[int, float] = {}
    for sign, size, number in _TERM.findall(match[2]):
        feature = FEATURE.read(number, "feature")
        if feature in weights:
            raise UserError(f"feature {feature} is twice in {rest!r}", hint="give it one weight")
        weight = float(size or 1.0) * (-1 if sign == "-" else 1)
        REAL.check(weight, f"the weight of feature {feature}")
        if weight == 0 or not isfinite(weight):
            raise UserError(f"feature {feature} has weight 0 in {rest!r}", hint="leave it out")
        weights[feature] = weight
    if len(weights) > _MOST_FEATURES:
        raise UserError(f"a group has at most {_MOST_FEATURES} features, not {len(weights)}")
    return Target("group", match[1], tuple(weights.items()))


def group_of(features: tuple[tuple[int, float], ...], sae: str | None = None) -> Target:
    """Features with weights as a target; one of weight 1 is a feature. Raises UserError."""
    if len(features) == 1 and features[0][1] == 1:
        return read_target(Target("feature", sae, features).text)
    return read_target(Target("group", sae, features).text)


def parse_target(text: str) -> Target:
    """The same without the kind of features and groups, as a person types it: `42`,
    `my-sae/3+0.5*7`, `vector:calm`. Raises UserError."""
    text = text.strip()
    kind, colon, _ = text.partition(":")
    if colon and kind in get_args(Kind):
        found = read_target(text)
    elif _FEATURE.fullmatch(text.removeprefix("#")):
        found = read_target(f"feature:{text.removeprefix('#')}")
    elif text[:1] not in ("-", "+") and _GROUP.fullmatch(re.sub(r"\s+", "", text)):
        found = read_target(f"group:{text}")
    else:
        raise _refused(text)
    return group_of(found.features, found.sae) if found.features else found


def in_sae(target: Target, sae_id: str) -> Target:
    """The target with its SAE filled in where it is left out."""
    return replace(target, sae=sae_id) if target.of_sae and target.sae is None else target


def is_target(text: str) -> bool:
    """Whether `parse_target` can read it."""
    return _accepted(parse_target, text)


def is_feature(text: str) -> bool:
    """Whether a target is written like a feature, `42` or `my-sae/42`, not like a layer."""
    return _FEATURE.fullmatch(text) is not None


def _accepted(read: Callable[[str], object], text: str) -> bool:
    try:
        read(text)
    except UserError:
        return False
    return True


def _refused(text: str) -> UserError:
    return UserError(f"{text!r} is not a valid target", hint=TARGETS)
