"""Names that contradict each other: one name on features that have little in common, and different
names on features that are nearly the same. Torch-free."""

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from mi_crow.errors import MiCrowError, NotFoundError, UserError
from mi_crow.mechanistic.concepts.annotations_rows import Concept, concept_from
from mi_crow.mechanistic.concepts.edits import joined_notes
from mi_crow.mechanistic.features.similar import DecoderRows
from mi_crow.visible import quoted

if TYPE_CHECKING:
    from mi_crow.mechanistic.concepts.annotations import Annotations
    from mi_crow.mechanistic.features.queries import FeatureStore

FAR = 0.2  # cosine of decoder rows below which features have little in common
NEAR = 0.9  # and from which they are nearly the same
_MOST_OF_ONE_NAME = 1000  # features that are compared with each other


@dataclass(frozen=True)
class Conflict:
    """Two or more features whose names do not fit each other."""

    kind: Literal["apart", "alike"]
    names: tuple[str, ...]  # one, or those of each of two features
    features: tuple[int, ...]
    cosine: float  # apart: of the loneliest with the one nearest to it; alike: of the two

    @property
    def what(self) -> str:
        """`one name` or `two names`."""
        return "one name on far-apart features" if self.kind == "apart" else "near-identical"


def find_conflicts(
    store: "FeatureStore", decoder: DecoderRows | None, far: float = FAR, near: float = NEAR
) -> list[Conflict]:
    """The conflicts among the names of an index, the nearest features first, then the names whose
    features are farthest apart. Without a decoder only the near ones can be found."""
    named = store.concepts()
    found = _alike(store, near)
    if decoder is not None:
        by_name: dict[str, list[int]] = defaultdict(list)
        spelt: dict[str, str] = {}
        for feature, some in named.items():
            for one in some:
                by_name[one.name.casefold()].append(feature)
                spelt.setdefault(one.name.casefold(), one.name)
        apart = [
            conflict
            for name, features in by_name.items()
            if len(features) > 1
            and (conflict := _apart(spelt[name], sorted(features), decoder, far)) is not None
        ]
        found += sorted(apart, key=lambda one: one.cosine)
    return found


def _alike(store: "FeatureStore", near: float) -> list[Conflict]:
    named = store.concepts()
    with store.connection.fitting():
        rows = store.concept_table().rows(
            "SELECT DISTINCT least(feature, other), greatest(feature, other), max(cosine) "
            "FROM idx.neighbours WHERE cosine >= $1 AND feature IN (SELECT unnest($2::INTEGER[])) "
            "AND other IN (SELECT unnest($2::INTEGER[])) GROUP BY ALL ORDER BY 3 DESC, 1, 2",
            [near, sorted(named)],
        )
    found = []
    for one, other, cosine in rows:
        ours, theirs = ({c.name.casefold() for c in named.get(f, ())} for f in (one, other))
        if ours and theirs and not ours & theirs:
            names = named[one][0].name, named[other][0].name
            found.append(Conflict("alike", names, (one, other), float(cosine)))
    return found


def _apart(name: str, features: Sequence[int], decoder: DecoderRows, far: float) -> Conflict | None:
    rows = [one for one in features if one < len(decoder)][:_MOST_OF_ONE_NAME]
    if len(rows) < 2:
        return None
    vectors = np.concatenate([decoder.rows(one, one + 1) for one in rows])
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = (vectors / np.maximum(lengths, 1e-12)) @ (vectors / np.maximum(lengths, 1e-12)).T
    np.fill_diagonal(cosines, -1.0)
    nearest = cosines.max(axis=1)
    if not float(nearest.min()) < far:
        return None
    lonely = [rows[place] for place in np.argsort(nearest, kind="stable")]
    return Conflict("apart", (name,), tuple(lonely), float(nearest.min()))


@dataclass(frozen=True)
class SameName:
    """Other features that have the name of one, as it was given."""

    features: tuple[int, ...]  # by number
    cosine: float | None  # of the nearest; None where the decoder cannot be read

    @property
    def far(self) -> bool:
        """Whether that is a conflict."""
        return self.cosine is not None and self.cosine < FAR

    @property
    def words(self) -> str:
        """`so is feature 71, far apart (cosine 0.05)`."""
        more = len(self.features) - 1
        are = f"so are feature {self.features[0]} and {more:,} more" if more else ""
        said = are or f"so is feature {self.features[0]}"
        if self.cosine is None:
            return said
        nearest = "the nearest " if more else ""
        return f"{said}, {nearest}{'far apart ' if self.far else ''}(cosine {self.cosine:.2f})"


def same_name(
    annotations: "Annotations", folder: Path, sae_id: str, feature: int, name: str
) -> SameName | None:
    """The other features of the SAE in `folder` that have the name of one; None where none has."""
    others = [one for one in annotations.features_named(sae_id, name) if one != feature]
    if not others:
        return None
    try:
        decoder = DecoderRows.open(folder, sae_id)
    except MiCrowError:
        return SameName(tuple(others), None)
    known = [one for one in others if one < len(decoder)][:_MOST_OF_ONE_NAME]
    if not known or feature >= len(decoder):
        return SameName(tuple(others), None)
    own = decoder.rows(feature, feature + 1)[0]
    cosines = [_cosine(own, decoder.rows(one, one + 1)[0]) for one in known]
    return SameName(tuple(others), max(cosines))


def _cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(one @ other / max(np.linalg.norm(one) * np.linalg.norm(other), 1e-12))


def merge_names(
    annotations: "Annotations",
    sae_id: str,
    features: Sequence[int],
    name: str,
    *,
    only_while: str | None = None,
) -> int:
    """Gives features one name in the place of all that they have: tags are put together, notes one
    below the other, the highest confidence stays. Returns how many features changed.

    `only_while`: a name that the first of the features must have, as when somebody chose it.

    Raises UserError for fewer than two features, for a name that is none, for texts that are too
    long together, NotFoundError where none of them has a name.
    """
    chosen = sorted(set(features))
    if len(chosen) < 2:
        raise UserError("a merge takes two features or more")
    now = time.time()
    with annotations.one_change():
        said = {one: annotations.concepts(sae_id, one) for one in chosen}
        if not any(said.values()):
            raise NotFoundError("none of these features has a name", hint="name one of them first")
        if only_while is not None and all(one.name != only_while for one in said[features[0]]):
            raise UserError(
                f"feature {features[0]} is not {quoted(only_while)} any more",
                hint="it was renamed meanwhile; list the conflicts again",
            )
        tags = dict.fromkeys(tag for some in said.values() for one in some for tag in one.tags)
        fresh = concept_from(sae_id, 0, name, tags=tuple(tags), now=now)
        pairs: list[tuple[Concept | None, Concept | None]] = []
        for feature, some in said.items():
            old = next((one for one in some if one.name == fresh.name), None)
            new = replace(
                fresh,
                feature=feature,
                confidence=max((one.confidence for one in some), default=1.0),
                note=joined_notes(one.note for one in some),
                source=some[0].source if some else "user",
                created=old.created if old is not None else now,
            )
            if old is None or replace(new, updated=old.updated) != old or len(some) > 1:
                pairs.append((old, new))
                pairs += [(one, None) for one in some if one.name != fresh.name]
        annotations.apply(pairs)
    return len({new.feature for _, new in pairs if new is not None})
