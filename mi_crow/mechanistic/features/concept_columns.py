"""The concepts of one SAE beside the columns of its index: who has a name, a note, a tag.

What a filter or an order asks for is worked out once and then held; a change of the concepts
replaces all of it. Torch-free.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from mi_crow.mechanistic.features.columns import ordered

if TYPE_CHECKING:
    from mi_crow.mechanistic.concepts.annotations import Concept


@dataclass(frozen=True)
class ConceptColumns:
    """The concepts as of one version of the annotations. Masks are bool [n_features]."""

    version: int
    n_features: int
    concepts: "Mapping[int, tuple[Concept, ...]]"  # by feature, most confident first
    _orders: dict[bool, np.ndarray] = field(default_factory=dict)

    @classmethod
    def of(cls, version: int, n_features: int, concepts: "Sequence[Concept]") -> "ConceptColumns":
        """Those of features that the index has."""
        found: dict[int, list[Concept]] = {}
        for concept in concepts:
            if concept.feature < n_features:
                found.setdefault(concept.feature, []).append(concept)
        ordered = {
            feature: tuple(sorted(some, key=lambda one: (-one.confidence, -one.updated)))
            for feature, some in found.items()
        }
        return cls(version, n_features, ordered)

    @cached_property
    def names(self) -> dict[int, str]:
        """The most confident name of each feature that has one."""
        return {feature: some[0].name for feature, some in self.concepts.items()}

    @cached_property
    def named(self) -> np.ndarray:
        return self._mask(self.concepts)

    @cached_property
    def noted(self) -> np.ndarray:
        """Those with a note under any of their names."""
        return self._mask(f for f, some in self.concepts.items() if any(one.note for one in some))

    def tagged(self, tag: str) -> np.ndarray:
        """Those with the tag under any of their names."""
        return self._mask(self._tags.get(tag, ()))

    def order(self, descending: bool) -> np.ndarray:
        """All features by name, upper and lower case being the same: int32 [n_features]. Equal ones
        stand by number, those without a name last."""
        if descending not in self._orders:
            alphabet = sorted(dict.fromkeys(self.names.values()), key=str.casefold)
            places = {name: place for place, name in enumerate(alphabet)}
            key = np.full(self.n_features, np.nan)
            features = np.fromiter(self.names, dtype=np.int64, count=len(self.names))
            key[features] = [places[name] for name in self.names.values()]
            self._orders[descending] = ordered(key, descending)
        return self._orders[descending]

    @cached_property
    def _tags(self) -> dict[str, list[int]]:
        """The features of each tag; one may stand there twice."""
        found: dict[str, list[int]] = {}
        for feature, some in self.concepts.items():
            for tag in (tag for one in some for tag in one.tags):
                found.setdefault(tag, []).append(feature)
        return found

    def _mask(self, features: Iterable[int]) -> np.ndarray:
        mask = np.zeros(self.n_features, dtype=bool)
        mask[np.fromiter(features, dtype=np.int64)] = True
        return mask
