"""Changes of concepts as they are when the change is made, whoever wrote them meanwhile.

A prompt stays open for as long as somebody types, and others work on the same names: what is
written is the field that was edited, and never a row as it was when the prompt opened. Torch-free.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mi_crow.clean_text import clean_text
from mi_crow.errors import NotFoundError
from mi_crow.mechanistic.concepts.annotations_rows import clean_tags
from mi_crow.mechanistic.concepts.naming_line import NamingLine, parse_naming
from mi_crow.visible import quoted

if TYPE_CHECKING:
    from mi_crow.mechanistic.concepts.annotations import Annotations
    from mi_crow.mechanistic.concepts.annotations_rows import Concept

_FEW = 8  # concepts that are read one by one; of more, all of their SAE are


@dataclass(frozen=True)
class Edited:
    """What became of the concepts that somebody chose."""

    found: int  # that are there still, and are now as was asked
    gone: int  # that were renamed or removed meanwhile

    def left_out(self) -> str:
        """`, 2 left out that were renamed or removed meanwhile`; empty where all are there."""
        were = "was" if self.gone == 1 else "were"
        left = f", {self.gone:,} left out that {were} renamed or removed meanwhile"
        return left if self.gone else ""


def edit_concepts(
    annotations: "Annotations",
    chosen: "Sequence[Concept]",
    changed: "Callable[[Concept], Concept]",
) -> Edited:
    """Changes the concepts that were `chosen` some time ago, each as it is now.

    Raises NotFoundError where none of them is there any more.
    """
    now = time.time()
    with annotations.one_change():
        present = _present(annotations, chosen)
        pairs = [(one, changed(one)) for one in present]
        annotations.apply([(old, replace(new, updated=now)) for old, new in pairs if new != old])
    return Edited(len(present), len(chosen) - len(present))


def remove_concepts(annotations: "Annotations", chosen: "Sequence[Concept]") -> Edited:
    """Removes the concepts that were `chosen` some time ago. Raises NotFoundError where none of
    them is there any more."""
    with annotations.one_change():
        present = _present(annotations, chosen)
        annotations.apply([(one, None) for one in present])
    return Edited(len(present), len(chosen) - len(present))


def rename_concepts(
    annotations: "Annotations", chosen: "Sequence[Concept]", name: str
) -> tuple[Edited, int]:
    """Renames the concepts that were `chosen` some time ago, as `rename` does; also how many were
    put together with one of that name. Raises NotFoundError where none of them is there."""
    with annotations.one_change():
        present = _present(annotations, chosen)
        together = sum(
            rename(annotations, one.sae_id, one.feature, one.name, name) for one in present
        )
    return Edited(len(present), len(chosen) - len(present)), together


def say(
    annotations: "Annotations",
    sae_id: str,
    feature: int,
    name: str,
    *,
    confidence: float | None = None,
    note: str | None = None,
    tags: Sequence[str] = (),
) -> None:
    """Names a feature. What is said under that name already stays: tags are added to its tags, a
    confidence and a note replace its own where they are given. Raises UserError."""
    rename(
        annotations, sae_id, feature, None, name, NamingLine(name, tuple(tags), confidence, note)
    )


def rename(
    annotations: "Annotations",
    sae_id: str,
    feature: int,
    before: str | None,
    name: str,
    line: NamingLine | None = None,
) -> bool:
    """Renames `before` to `name`, None to name the feature beside what it is named: note, tags and
    confidence stay, but for what `line` says: its tags are added, the rest replaces what was there.

    Where the feature has `name` as well, the two are put together; returns whether they were.
    """
    name = clean_text(name).strip()
    with annotations.one_change():
        known = {one.name: one for one in annotations.concepts(sae_id, feature)}
        there, old = known.get(name), None if before is None else known.get(before)
        both = old is not None and there is not None and old is not there
        base = _together(there, old) if both and there and old else old or there
        confidence, note, tags, source = (
            (1.0, "", (), "user")
            if base is None
            else (base.confidence, base.note, base.tags, base.source)
        )
        if line is not None:
            confidence = confidence if line.confidence is None else line.confidence
            note = note if line.note is None else line.note
            tags = tuple(dict.fromkeys((*tags, *clean_tags(tuple(line.tags)))))
        if there is None or (confidence, note, tags) != (there.confidence, there.note, there.tags):
            annotations.set_concept(sae_id, feature, name, confidence, note, tags, source)
        if old is not None and old.name != name:
            annotations.remove_concept(sae_id, feature, old.name)
    return both


def edit_line(annotations: "Annotations", opened: "Concept", text: str) -> str:
    """Makes a concept what a line says that was written from it as it was `opened`: what the line
    leaves out of that goes, what it adds is added, and what somebody else changed meanwhile stays.
    Returns its name.

    Raises NotFoundError where the concept is not there any more, UserError for a wrong line.
    """
    said = parse_naming(text)
    name = clean_text(said.name or opened.name).strip()
    place = opened.sae_id, opened.feature
    if said.beside:
        say(annotations, *place, name, confidence=said.confidence, note=said.note, tags=said.tags)
        return name
    with annotations.one_change():
        [present] = _present(annotations, [opened])
        known = {one.name: one for one in annotations.concepts(*place)}
        new = _as_edited(present, opened, said)
        there = known.get(name) if name != opened.name else None
        if there is not None:
            new = _together(there, new)
        if there is not None or name != opened.name or new != present:
            values = new.confidence, new.note, new.tags, new.source
            annotations.set_concept(*place, name, *values)
        if name != opened.name:
            annotations.remove_concept(*place, opened.name)
    return name


def retagged(tags: Sequence[str], added: Sequence[str], removed: Sequence[str]) -> tuple[str, ...]:
    """The tags with some more and without others."""
    gone = clean_tags(tuple(removed))
    return tuple(
        dict.fromkeys(tag for tag in (*tags, *clean_tags(tuple(added))) if tag not in gone)
    )


def joined_notes(notes: Iterable[str]) -> str:
    """The notes one below the other; one whose lines an earlier one has is not repeated."""
    joined = ""
    for note in notes:
        if note and f"\n{note}\n" not in f"\n{joined}\n":
            joined = f"{joined}\n{note}" if joined else note
    return joined


def _as_edited(present: "Concept", opened: "Concept", said: NamingLine) -> "Concept":
    """The concept with those fields of a line that differ from what the line was written from."""
    confidence = 1.0 if said.confidence is None else said.confidence
    if f"{confidence:.3g}" == f"{opened.confidence:.3g}":  # as the line gave it
        confidence = present.confidence
    note = clean_text(said.note or "")
    tags = clean_tags(said.tags)
    if present.tags != opened.tags:
        gone = [tag for tag in opened.tags if tag not in tags]
        tags = retagged(present.tags, [tag for tag in tags if tag not in opened.tags], gone)
    return replace(
        present,
        confidence=confidence,
        note=present.note if note == opened.note else note,
        tags=tags,
    )


def _together(kept: "Concept", other: "Concept") -> "Concept":
    """`kept` with what is said of another name beside it: the tags of both, the notes one below the
    other, the higher confidence."""
    return replace(
        kept,
        confidence=max(kept.confidence, other.confidence),
        note=joined_notes((kept.note, other.note)),
        tags=tuple(dict.fromkeys((*kept.tags, *other.tags))),
    )


def _present(annotations: "Annotations", chosen: "Sequence[Concept]") -> "list[Concept]":
    """The chosen ones as they are now, without those that are gone. Raises NotFoundError where all
    of them are."""
    if len(chosen) <= _FEW:
        places = dict.fromkeys((one.sae_id, one.feature) for one in chosen)
        said = [one for place in places for one in annotations.concepts(*place)]
    else:
        said = [
            one
            for sae_id in dict.fromkeys(one.sae_id for one in chosen)
            for one in annotations.concepts(sae_id)
        ]
    now = {(one.sae_id, one.feature, one.name): one for one in said}
    keys = dict.fromkeys((one.sae_id, one.feature, one.name) for one in chosen)
    present = [now[key] for key in keys if key in now]
    if not present and chosen:
        first = f"{quoted(chosen[0].name)} of feature {chosen[0].feature}"
        which = f"{first} is" if len(chosen) == 1 else f"{first} and the others are"
        raise NotFoundError(
            f"{which} not there any more", hint="renamed or removed meanwhile; nothing was changed"
        )
    return present
