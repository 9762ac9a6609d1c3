"""One change to the names, tags or notes of many features, which one undo reverts. Torch-free."""

import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mi_crow.clean_text import clean_text
from mi_crow.errors import UserError
from mi_crow.mechanistic.concepts.annotations_rows import concept_from
from mi_crow.mechanistic.concepts.edits import retagged
from mi_crow.visible import quoted

if TYPE_CHECKING:
    from mi_crow.mechanistic.concepts.annotations import Annotations
    from mi_crow.mechanistic.concepts.annotations_rows import Concept
    from mi_crow.mechanistic.concepts.naming_line import NamingLine

_UNTESTED = 0.5  # confidence in a name that was not scored


def name_all(annotations: "Annotations", sae_id: str, features: Sequence[int], line: str) -> str:
    """Gives the features one name more, by a line `name #tag ~0.8 -- note`. Tags are added to those
    that the name has already; a note and a confidence replace them.

    Raises UserError for a line without a name, or with a confidence that is none.
    """
    from mi_crow.mechanistic.concepts.naming_line import parse_naming

    said = parse_naming(line)
    if not said.name:
        raise UserError("the line has no name", hint="write name #tag ~0.8 -- note")
    now = time.time()
    fresh = concept_from(
        sae_id, 0, said.name, said.confidence, said.note, said.tags, "user", now=now
    )
    with annotations.one_change():
        known = {one.feature: one for one in annotations.concepts(sae_id) if one.name == fresh.name}
        pairs = []
        for feature in dict.fromkeys(features):
            old = known.get(feature)
            new = replace(fresh, feature=feature) if old is None else _with_line(old, said, now)
            if old is None or replace(new, updated=old.updated) != old:
                pairs.append((old, new))
        annotations.apply(pairs)
    return f"{_features(len(features))} named {quoted(fresh.name)}; u undoes"


def _with_line(old: "Concept", said: "NamingLine", now: float) -> "Concept":
    return replace(
        old,
        confidence=old.confidence if said.confidence is None else said.confidence,
        note=old.note if said.note is None else clean_text(said.note),
        tags=retagged(old.tags, said.tags, ()),
        updated=now,
    )


def remove_names(annotations: "Annotations", sae_id: str, features: Sequence[int]) -> str:
    """Removes all names of the features, with their tags and notes."""
    with annotations.one_change():
        found = list(_concepts(annotations, sae_id, features))
        annotations.apply([(one, None) for one in found])
    return f"Removed {len(found):,} names; u undoes" if found else "None of them has a name"


def tag_all(
    annotations: "Annotations",
    sae_id: str,
    features: Sequence[int],
    added: Sequence[str],
    removed: Sequence[str],
    proposed: Mapping[int, tuple[str, float]] | None = None,
) -> str:
    """Adds and removes tags. A tag belongs to a name: where some are added, features without one
    get that of `proposed`, with its confidence, as from `auto`; the others are left out."""

    def tags(one: "Concept") -> dict[str, tuple[str, ...]]:
        return {"tags": retagged(one.tags, added, removed)}

    now = time.time()
    with annotations.one_change():
        named = {one.feature for one in _concepts(annotations, sae_id, features)}
        new = [one for one in dict.fromkeys(features) if one not in named] if added else []
        fresh = [
            concept_from(sae_id, one, *proposed[one], "", retagged((), added, ()), "auto", now=now)
            for one in new
            if proposed is not None and one in proposed
        ]
        annotations.apply([(None, one) for one in fresh])
        done = f"tagged, {len(fresh):,} by the proposed name" if fresh else "tagged"
        if same := _of_several(annotations, sae_id, fresh):
            done += f" ({same:,} {'has' if same == 1 else 'have'} the name of another)"
        return _set_all(annotations, sae_id, features, done, tags)


def tag_named(
    annotations: "Annotations",
    sae_id: str,
    names: Mapping[int, str],
    tag: str,
    proposed: Mapping[int, tuple[str, float]],
) -> int:
    """Tags the features of `names`, and gives those without a name the one that is there, as
    from `auto` and as sure as that of `proposed` is; how many there are."""
    with annotations.one_change():
        for feature, name in names.items():
            old = annotations.concepts(sae_id, feature)
            if not old:
                sure = proposed[feature][1] if feature in proposed else _UNTESTED
                annotations.set_concept(sae_id, feature, name, sure, "", [tag], "auto")
            for one in old:
                tags = retagged(one.tags, [tag], ())
                annotations.set_concept(
                    sae_id, feature, one.name, one.confidence, one.note, tags, one.source
                )
    return len(names)


def note_all(annotations: "Annotations", sae_id: str, features: Sequence[int], note: str) -> str:
    """Writes one note on every name of the features; those without a name are left out."""
    note = clean_text(note)
    done = "noted" if note else "without a note"
    return _set_all(annotations, sae_id, features, done, lambda one: {"note": note})


def _set_all(
    annotations: "Annotations",
    sae_id: str,
    features: Sequence[int],
    done: str,
    changed: "Callable[[Concept], Mapping[str, Any]]",
) -> str:
    now = time.time()
    with annotations.one_change():
        found = list(_concepts(annotations, sae_id, features))
        pairs = [(one, replace(one, **changed(one))) for one in found]
        annotations.apply([(old, replace(new, updated=now)) for old, new in pairs if new != old])
    named = len({one.feature for one in found})
    if not named:
        return "None of them has a name yet; t names them"
    without = len(set(features)) - named
    rest = f", {without:,} without a name left out" if without else ""
    return f"{_features(named)} {done}{rest}; u undoes"


def parse_tags(text: str) -> tuple[list[str], list[str]]:
    """`checked, -to do` or `#checked -done`: the tags to add and those to remove.

    >>> parse_tags("#wet #cold, to do, -#dry")
    (['wet', 'cold', 'to do'], ['dry'])
    >>> parse_tags("#wet -dry")
    (['wet'], ['dry'])
    """
    found: tuple[list[str], list[str]] = [], []
    for word in re.split(r",|\s+(?=-?#|-\S)", text):
        tag = word.strip()
        found[tag.startswith("-")].append(tag.removeprefix("-").strip().lstrip("#").strip())
    added, removed = ([tag for tag in tags if tag] for tags in found)
    return added, removed


def _concepts(
    annotations: "Annotations", sae_id: str, features: Sequence[int]
) -> "Iterator[Concept]":
    wanted = set(features)
    return (one for one in annotations.concepts(sae_id) if one.feature in wanted)


def _of_several(annotations: "Annotations", sae_id: str, fresh: "Sequence[Concept]") -> int:
    """How many of some new names another feature has as well."""
    if not fresh:
        return 0
    of: defaultdict[str, set[int]] = defaultdict(set)
    for one in annotations.concepts(sae_id):
        of[one.name.casefold()].add(one.feature)
    return sum(len(of[one.name.casefold()]) > 1 for one in fresh)


def _features(count: int) -> str:
    return "1 feature" if count == 1 else f"{count:,} features"
