"""Concepts from a file into a workspace: checked against its SAEs, nothing replaced unasked."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from mi_crow.bounds import SHARE
from mi_crow.errors import UserError
from mi_crow.mechanistic.concepts.annotations_rows import Concept
from mi_crow.mechanistic.concepts.concept_files import read_concepts
from mi_crow.store.workspace import Workspace, read_sae_summary


class WouldReplaceError(UserError):
    """The file says something else about concepts that exist; nothing was written."""


class Concepts(Protocol):
    """As much of `Annotations` as an import needs."""

    def one_change(self) -> AbstractContextManager[None]: ...
    def concepts(self) -> list[Concept]: ...
    def set_concept(self, sae_id: str, feature: int, name: str) -> Concept: ...


@dataclass(frozen=True)
class Imported:
    """What an import did, in concepts."""

    added: int
    replaced: int
    unchanged: int

    @property
    def concepts(self) -> int:
        return self.added + self.replaced + self.unchanged


def import_concepts(
    workspace: Workspace,
    annotations: Concepts,
    path: Path,
    *,
    sae_id: str | None = None,
    force: bool = False,
) -> Imported:
    """Reads a .json or .csv file into the annotations: all of it or nothing.

    New names are added. What a row leaves out (note, tags, confidence) stays as it is. A row that
    says something else about an existing name replaces it only with `force`. `sae_id` is for rows
    that name no SAE.

    Raises UserError naming the row whose SAE is not in the workspace or lacks the feature, and
    WouldReplaceError.
    """
    rows = read_concepts(path, sae_id)
    _check(workspace, path, rows)
    return add_rows(annotations, path, rows, force=force)


def add_rows(
    annotations: Concepts, path: Path, rows: list[dict[str, Any]], *, force: bool
) -> Imported:
    """Adds the rows that `path` holds, all or none. Raises UserError and WouldReplaceError."""
    with annotations.one_change():
        known = {_key(one): one for one in annotations.concepts()}
        replaced: list[tuple[Concept, Mapping[str, Any]]] = []
        added = unchanged = 0
        for number, row in enumerate(rows, start=1):
            old = known.get((row["sae_id"], row["feature"], row["name"]))
            if old is not None and _says_the_same(old, row):
                unchanged += 1
                continue
            if old is not None:
                replaced.append((old, row))
                row = _completed(old, row)
            else:
                added += 1
            if old is None or force:
                try:
                    new = annotations.set_concept(**row)
                except UserError as error:
                    raise UserError(f"row {number} of {str(path)!r}: {error}") from error
                known[_key(new)] = new
        if replaced and not force:  # inside the change, so that what was added is rolled back
            raise _would_replace(path, replaced)
    return Imported(added, len(replaced), unchanged)


def _check(workspace: Workspace, path: Path, rows: list[dict[str, Any]]) -> None:
    """Raises UserError for the first row about an SAE or a feature that does not exist."""
    sizes: dict[str, int] = {}
    for number, row in enumerate(rows, start=1):
        sae_id, feature = row["sae_id"], row["feature"]
        try:
            if sae_id not in sizes:
                sizes[sae_id] = read_sae_summary(workspace.sae_dir(sae_id)).n_latents
        except UserError as error:
            raise UserError(f"row {number} of {str(path)!r}: {error}", hint=error.hint) from error
        try:
            SHARE.check(row.get("confidence"), "confidence")
        except UserError as error:
            raise UserError(f"row {number} of {str(path)!r}: {error}") from error
        if not 0 <= feature < sizes[sae_id]:
            raise UserError(
                f"row {number} of {str(path)!r}: feature {str(feature)[:20]} is not in SAE "
                f"{sae_id!r}",
                hint=f"its features are 0 to {sizes[sae_id] - 1}",
            )


def _key(concept: Concept) -> tuple[str, int, str]:
    return concept.sae_id, concept.feature, concept.name


def _says_the_same(old: Concept, row: Mapping[str, Any]) -> bool:
    said = {key: value for key, value in row.items() if key != "source"}
    return all(getattr(old, key) == value for key, value in said.items())


def _completed(old: Concept, row: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: getattr(old, key) for key in ("confidence", "note", "tags", "source")}
    return kept | dict(row)


def _would_replace(
    path: Path, replaced: list[tuple[Concept, Mapping[str, Any]]]
) -> WouldReplaceError:
    old, row = replaced[0]
    field = next(key for key in row if key != "source" and getattr(old, key) != row[key])
    before, after = (repr(one)[:40] for one in (getattr(old, field), row[field]))
    count = f"{len(replaced)} concepts" if len(replaced) > 1 else "a concept"
    return WouldReplaceError(
        f"{str(path)!r} would change {count} of yours: {field} of {old.name!r}, feature "
        f"{old.feature} of {old.sae_id}, from {before} to {after}",
        hint="--force (overwrite=True) replaces them; nothing was imported",
    )
