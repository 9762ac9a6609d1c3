"""Concepts from a file into the annotations: what there is in the workspace, by rules. Torch-free.

A plan is made first: it says what would be added, replaced, removed or left, so that it can be
shown before anything is written.
"""

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal, Protocol, get_args

from mi_crow.bounds import SHARE
from mi_crow.errors import UserError
from mi_crow.mechanistic.concepts.annotations_rows import (
    MOST_FEATURE,
    Concept,
    check_fitting,
    concept_from,
)
from mi_crow.mechanistic.concepts.edits import joined_notes
from mi_crow.mechanistic.concepts.exchange.dictionary_rows import FileRow, bad_rows, read_rows
from mi_crow.mechanistic.concepts.exchange.layers import LAYER, layers_of
from mi_crow.mechanistic.concepts.exchange.neuronpedia import same_name
from mi_crow.store.workspace import Workspace, read_sae_summary
from mi_crow.visible import quoted

Rule = Literal["ask", "keep", "replace", "both", "higher"]
RULES: Final[tuple[Rule, ...]] = get_args(Rule)
"""What happens to a feature that has a name already and gets another one from the file.

ask      further names are added, what says something else about the same name is refused
keep     the feature is left as it is
replace  the file's names take the place of those that it has
both     the file's names are added; under the same name tags and notes are put together
higher   as `replace` where the file's most confident name is more confident, else as `keep`
"""
Pair = tuple[Concept | None, Concept | None]
_FEW = 8
_SAID = ("confidence", "note", "tags")


class WouldReplaceError(UserError):
    """The file says something else about concepts that exist; nothing was written."""


class Concepts(Protocol):
    """As much of `Annotations` as an import needs."""

    def one_change(self) -> AbstractContextManager[None]: ...
    def concepts(self) -> list[Concept]: ...
    def apply(self, pairs: Sequence[Pair]) -> int: ...


@dataclass(frozen=True)
class Imported:
    """What an import did or would do, in concepts."""

    added: int = 0
    replaced: int = 0
    unchanged: int = 0
    removed: int = 0
    kept: int = 0  # rows left out, for the feature has a name
    skipped: int = 0  # rows that are wrong
    changes: tuple[Pair, ...] = ()
    troubles: tuple[str, ...] = ()  # of the skipped rows, the first hundred
    ignored: tuple[str, ...] = ()  # fields of the file that nothing is known about

    @property
    def concepts(self) -> int:
        """Rows of the file that are in the annotations now."""
        return self.added + self.replaced + self.unchanged

    @property
    def outcome(self) -> str:
        """`in_words`; of a file without a row, that."""
        rows = self.concepts + self.removed + self.kept + self.skipped
        return self.in_words() if rows else "the file has no rows"

    def in_words(self) -> str:
        """`2 new, 1 changed, 2 of yours removed for them`; `nothing` where nothing is there."""
        counts = (
            (self.added, "new"),
            (self.replaced, "changed"),
            (self.unchanged, "unchanged"),
            (self.removed, "of yours removed for them"),
            (self.kept, "not taken, yours stay"),
            (self.skipped, "wrong and left out"),
        )
        said = ", ".join(f"{number:,} {what}" for number, what in counts if number) or "nothing"
        if not self.ignored:
            return said
        names = ", ".join(map(quoted, self.ignored[:_FEW]))
        more = f" and {len(self.ignored) - _FEW:,} more" if len(self.ignored) > _FEW else ""
        return f"{said}; not read: {names}{more}"


def import_concepts(
    workspace: Workspace,
    annotations: Concepts,
    path: Path,
    *,
    sae_id: str | None = None,
    force: bool = False,
    rule: Rule = "ask",
    source_id: str | None = None,
    skip_bad: bool = False,
    dry_run: bool = False,
) -> Imported:
    """Reads a file or a folder of batches into the annotations: all of it or nothing.

    What a row leaves out (note, tags, confidence) stays as it is. `sae_id` is for rows that name no
    SAE; `source_id` chooses among the sources of Neuronpedia. `force`, with the rule `ask`,
    replaces what differs in a row about the same name. `skip_bad` leaves out rows that are
    wrong; `dry_run` writes nothing.

    Raises UserError naming the rows that are wrong, and WouldReplaceError.
    """
    rows = _checked(workspace, read_rows(path, sae_id, source_id))
    return add_rows(
        annotations, path, rows, force=force, rule=rule, skip_bad=skip_bad, dry_run=dry_run
    )


def add_rows(
    annotations: Concepts,
    path: Path,
    rows: Iterable[FileRow],
    *,
    force: bool = False,
    rule: Rule = "ask",
    skip_bad: bool = False,
    dry_run: bool = False,
) -> Imported:
    """Adds the rows that `path` holds, all or none. Raises UserError and WouldReplaceError."""
    good: list[FileRow] = []
    bad: list[FileRow] = []
    for row in _without_repeats(map(_valid, rows)):
        (bad if row.trouble else good).append(row)
    if bad and not skip_bad:
        raise bad_rows(path, bad)
    # A dry run reads only: it also works where nothing can be written.
    with nullcontext() if dry_run else annotations.one_change():
        plan = _planned(annotations.concepts(), good, "replace-same" if force else rule)
        if rule == "ask" and not force and plan.replaced and not dry_run:
            raise _would_replace(path, plan)
        if dry_run:
            check_fitting(new for _, new in plan.changes if new is not None)
        else:
            annotations.apply(plan.changes)
    troubles = tuple(f"{row.place}: {row.trouble}" for row in bad[:100])
    ignored = tuple(dict.fromkeys(name for row in good for name in row.ignored))
    return replace(plan, skipped=len(bad), troubles=troubles, ignored=ignored)


def dry_runs(
    workspace: Workspace,
    annotations: Concepts,
    path: Path,
    *,
    sae_id: str | None = None,
    source_id: str | None = None,
) -> dict[Rule, Imported]:
    """What an import by each rule but `ask` would do, rows that are wrong left out; of rules that
    do the same the first. The file is read once. Raises UserError as `import_concepts`."""
    rows = list(_checked(workspace, read_rows(path, sae_id, source_id)))
    found: dict[Rule, Imported] = {}
    for rule in RULES[1:]:
        plan = add_rows(annotations, path, rows, rule=rule, skip_bad=True, dry_run=True)
        if all(_effect(plan) != _effect(one) for one in found.values()):
            found[rule] = plan
    return found


def counted(concepts: int) -> str:
    """`1 concept`, `2 concepts`."""
    return "1 concept" if concepts == 1 else f"{concepts:,} concepts"


def _effect(plan: Imported) -> list[tuple[Concept | None, Concept | None]]:
    """What a plan changes, whenever it is made."""
    return [(old, new and replace(new, updated=0.0, created=0.0)) for old, new in plan.changes]


def _checked(workspace: Workspace, rows: Iterable[FileRow]) -> Iterable[FileRow]:
    """The rows, those about an SAE or a feature that does not exist with what is wrong; a layer
    that is the feature's own is as good as read."""
    sizes: dict[str, int | str] = {}
    layers: dict[str, dict[int, str]] = {}
    for row in rows:
        if row.trouble:
            yield row
            continue
        sae_id, feature = row.values["sae_id"], row.values["feature"]
        if sae_id not in sizes:
            try:
                sizes[sae_id] = read_sae_summary(workspace.sae_dir(sae_id)).n_latents
            except UserError as error:
                sizes[sae_id] = f"{error}; {error.hint}" if error.hint else str(error)
        size = sizes[sae_id]
        trouble = ""
        if isinstance(size, str):
            trouble = size
        elif not 0 <= feature < size:
            named = f"feature {str(feature)[:20]} is not in SAE {sae_id!r}"
            trouble = f"{named}; its features are 0 to {size - 1}"
        elif row.layer:
            if sae_id not in layers:
                layers[sae_id] = layers_of(workspace, sae_id, range(size))
            if layers[sae_id].get(feature) == row.layer:
                row = replace(row, ignored=tuple(one for one in row.ignored if one != LAYER))
        yield replace(row, trouble=trouble) if trouble else row


def _valid(row: FileRow) -> FileRow:
    """The row, one with a value that no concept can have with that as what is wrong."""
    if row.trouble:
        return row
    try:
        SHARE.check(row.values.get("confidence"), "confidence")
        if not 0 <= row.values["feature"] <= MOST_FEATURE:
            raise UserError(f"{str(row.values['feature'])[:20]} is not a valid feature")
    except UserError as error:
        return replace(row, trouble=str(error))
    return row


def _without_repeats(rows: Iterable[FileRow]) -> Iterable[FileRow]:
    """The rows, those about a name that an earlier row gave the same feature with that as what is
    wrong; of explainers that say the same of a feature there is one row, of all of them."""
    first: dict[tuple[str, int, str], FileRow] = {}
    for row in rows:
        if not row.trouble:
            key = row.values["sae_id"], row.values["feature"], row.values["name"]
            if key in first and same_name(first[key].values, row.values):
                continue
            if key in first:
                said = f"it repeats {first[key].place}: {quoted(key[2])} of feature {key[1]}"
                row = replace(row, trouble=said)
            else:
                first[key] = row
        yield row


def _planned(
    concepts: Iterable[Concept], rows: Iterable[FileRow], rule: Rule | Literal["replace-same"]
) -> Imported:
    """What the rows change."""
    theirs: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for row in rows:
        theirs.setdefault((row.values["sae_id"], row.values["feature"]), []).append(row.values)
    ours: dict[tuple[str, int], dict[str, Concept]] = {}
    for one in concepts:
        if (place := (one.sae_id, one.feature)) in theirs:
            ours.setdefault(place, {})[one.name] = one
    pairs: list[Pair] = []
    counts: Counter[str] = Counter()
    now = time.time()
    for place, said in theirs.items():
        known = ours.get(place, {})
        use = rule
        if rule == "higher":
            best = max(one.get("confidence", 1.0) for one in said)
            mine = max((one.confidence for one in known.values()), default=-1.0)
            use = "replace" if best > mine else "keep"
        for values in said:
            old = known.get(values["name"])
            new = _completed(old, values, now, together=use == "both")
            if old is not None and _same(old, new):
                counts["unchanged"] += 1
            elif known and use == "keep":
                counts["kept"] += 1
            else:
                counts["added" if old is None else "replaced"] += 1
                pairs.append((old, new))
        if use == "replace":
            gone = known.keys() - {values["name"] for values in said}
            counts["removed"] += len(gone)
            pairs += [(one, None) for name, one in known.items() if name in gone]
    return Imported(
        counts["added"],
        counts["replaced"],
        counts["unchanged"],
        counts["removed"],
        counts["kept"],
        changes=tuple(pairs),
    )


def _completed(
    old: Concept | None, values: Mapping[str, Any], now: float, *, together: bool
) -> Concept:
    """The concept that a row makes of the one that there is."""
    if old is None:
        return concept_from(**values, now=values.get("created", now))
    said = {key: values[key] for key in (*_SAID, "source") if key in values}
    if together:
        said.pop("source", None)
        said["tags"] = tuple(dict.fromkeys((*old.tags, *said.get("tags", ()))))
        said["confidence"] = max(old.confidence, said.get("confidence", 0.0))
        said["note"] = joined_notes((old.note, said.get("note", "")))
    return replace(old, **said, updated=now)


def _same(old: Concept, new: Concept) -> bool:
    return all(getattr(old, key) == getattr(new, key) for key in _SAID)


def _would_replace(path: Path, plan: Imported) -> WouldReplaceError:
    old, new = next((old, new) for old, new in plan.changes if old is not None and new is not None)
    field = next(key for key in _SAID if getattr(old, key) != getattr(new, key))
    before, after = (repr(one)[:40] for one in (getattr(old, field), getattr(new, field)))
    return WouldReplaceError(
        f"{str(path)!r} would change {counted(plan.replaced)} of yours: {field} of "
        f"{quoted(old.name)}, feature {old.feature} of {old.sae_id}, from {before} to {after}",
        hint="--force (overwrite=True) replaces them; nothing was imported",
    )
