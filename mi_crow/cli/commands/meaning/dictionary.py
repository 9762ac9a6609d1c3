"""Dictionaries in: the flags of an import, its plan and what it did, for two commands."""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mi_crow.cli.display import shown_progress
from mi_crow.cli.formatting import print_json
from mi_crow.cli.tables import print_line, print_table
from mi_crow.errors import NotFoundError, UserError
from mi_crow.mechanistic.concepts.exchange.importing import (
    RULES,
    Imported,
    counted,
    import_concepts,
)
from mi_crow.store.workspace import Workspace

if TYPE_CHECKING:
    from mi_crow.mechanistic.concepts.annotations import Annotations
    from mi_crow.mechanistic.concepts.exchange.importing import Pair

_SHOWN = 40  # changes of a dry run; --json has them all


def add_import_flags(parser: ArgumentParser) -> None:
    """What an import takes beside its path."""
    parser.add_argument(
        "--sae",
        metavar="SAE",
        help="the SAE of rows that name none; optional when there is only one",
    )
    parser.add_argument(
        "--conflicts",
        choices=RULES,
        default="ask",
        help="for features that have a name: keep it, replace it, have both, or the one of higher "
        "confidence (default: ask, which adds names and refuses to change one)",
    )
    parser.add_argument("--force", action="store_true", help="replace concepts that differ")
    parser.add_argument("--dry-run", action="store_true", help="list the changes, write nothing")
    parser.add_argument("--skip-bad", action="store_true", help="leave out rows that are wrong")
    parser.add_argument(
        "--source-id", metavar="ID", help="of explanations from Neuronpedia, such as 10-res-jb"
    )


def run_import(workspace: Workspace, annotations: "Annotations", options: Namespace) -> None:
    """Imports, or lists what an import would change."""
    if options.sae is not None:
        workspace.sae_dir(options.sae)
    done = (
        _exported(workspace, annotations, options)
        if options.path is None
        else _from_file(workspace, annotations, options)
    )
    if options.json:
        print_json(_as_json(done, options.dry_run))
    else:
        if options.dry_run:
            _print_changes(done)
        for trouble in done.troubles:
            print_line(f"left out {trouble}", style="yellow")
        print_line(_sentence(done, options.dry_run))
    asks = options.path is not None and options.conflicts == "ask" and not options.force
    if options.dry_run and asks and done.replaced:
        raise UserError(
            f"without --dry-run this is refused: {counted(done.replaced)} of yours would change",
            hint="--conflicts keep, replace, both or higher, or --force, says what then",
        )
    if done.skipped and not done.concepts and not done.kept:
        raise UserError(
            f"no row of {str(options.path)!r} could be imported", hint=f"first, {done.troubles[0]}"
        )


def _from_file(workspace: Workspace, annotations: "Annotations", options: Namespace) -> Imported:
    path: Path = options.path
    if not path.exists():
        raise NotFoundError(f"file {str(path)!r} not found")
    return import_concepts(
        workspace,
        annotations,
        path,
        sae_id=options.sae or _only_sae(workspace),
        force=options.force,
        rule=options.conflicts,
        source_id=options.source_id,
        skip_bad=options.skip_bad,
        dry_run=options.dry_run,
    )


def _only_sae(workspace: Workspace) -> str | None:
    """The SAE meant by rows that do not name one, where the workspace has only one."""
    known = workspace.list_saes()
    return known[0].sae_id if len(known) == 1 else None


def _exported(workspace: Workspace, annotations: "Annotations", options: Namespace) -> Imported:
    """From Neuronpedia's export, by the name that --source-id gives or that the SAE's source has
    there."""
    from mi_crow.mechanistic.concepts.exchange.fetching import fetch_and_import
    from mi_crow.mechanistic.concepts.exchange.published_names import known_as

    name = options.source_id or known_as(workspace, options.sae)
    rule = "replace" if options.force else options.conflicts
    with shown_progress(options.json) as progress:
        return fetch_and_import(
            workspace,
            annotations,
            options.sae,
            name,
            rule="keep" if rule == "ask" else rule,
            dry_run=options.dry_run,
            progress=progress,
        )


def _as_json(done: Imported, dry_run: bool) -> dict[str, Any]:
    counts = ("added", "replaced", "unchanged", "removed", "kept", "skipped")
    value: dict[str, Any] = {"concepts": done.concepts}
    value |= {name: getattr(done, name) for name in counts}
    if done.ignored:
        value["ignored"] = list(done.ignored)
    if done.troubles:
        value["troubles"] = list(done.troubles)
    if dry_run:
        value["changes"] = [
            {
                "change": _verb(pair),
                "before": pair[0].as_dict() if pair[0] is not None else None,
                "after": pair[1].as_dict() if pair[1] is not None else None,
            }
            for pair in done.changes
        ]
    return value


def _print_changes(done: Imported) -> None:
    if not done.changes:
        return
    columns = ["change", "SAE…", ">feature", "before…", "after…"]
    rows = []
    for old, new in done.changes[:_SHOWN]:
        one = new or old
        assert one is not None
        sides = ("" if side is None else _words(side) for side in (old, new))
        rows.append([_verb((old, new)), one.sae_id, str(one.feature), *sides])
    print_table(columns, rows)
    if len(done.changes) > _SHOWN:
        print_line(f".. and {len(done.changes) - _SHOWN:,} more; --json lists them all")


def _verb(pair: "Pair") -> str:
    return "add" if pair[0] is None else "remove" if pair[1] is None else "change"


def _words(concept: Any) -> str:
    tags = "".join(f" #{tag}" for tag in concept.tags)
    note = f" -- {concept.note}" if concept.note else ""
    return f"{concept.name}{tags} ~{concept.confidence:g}{note}"


def _sentence(done: Imported, dry_run: bool) -> str:
    begin = "would import" if dry_run else "imported"
    return f"{begin} {counted(done.concepts)}: {done.outcome}"
