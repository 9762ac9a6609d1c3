"""`mi-crow runs` and `mi-crow saes`: list, rename, annotate and delete them."""

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from typing import Any

from mi_crow.cli.arguments import add_actions, add_switch, open_workspace
from mi_crow.cli.formatting import (
    count,
    duration,
    hook_point,
    moment,
    number,
    print_json,
    share,
    size,
)
from mi_crow.cli.tables import print_facts, print_line, print_list, print_outcome
from mi_crow.errors import UserError
from mi_crow.jobs.removing import Unfinished, plan_removal, unfinished
from mi_crow.jobs.renaming import rename_run, rename_sae
from mi_crow.mechanistic.sae.evaluation.figures import SaeFigures, figures_of
from mi_crow.mechanistic.sae.evaluation.standing import standing_of
from mi_crow.store.notes import read_note, write_note
from mi_crow.store.runs.manifest import RunManifest
from mi_crow.store.unreadable import Unreadable
from mi_crow.store.workspace import (
    RunSummary,
    SaeSummary,
    Workspace,
    folder_bytes,
    read_sae_summary,
)

_OF_A_RUN = ("dtype", "status", "created", "seconds", "dataset")
_SHAPE = ("architecture", "n_inputs", "n_latents", "k", "model_id", "layer", "run_id")
_OF_AN_SAE = ("sae_id", *_SHAPE, "has_index", "evaluation", "evaluation_trouble")


def add_arguments(parser: ArgumentParser, command: str) -> None:
    what, one = ("run", "a run") if command == "runs" else ("SAE", "an SAE")
    actions = {
        "list": f"list all {what}s (default)",
        "show": f"show the details of {one}",
        "rename": f"give {one} another id",
        "note": f"print the note on {one}, or replace it with a text",
        "rm": f"delete {one}",
    }
    if command == "saes":
        actions["compare"] = "compare SAEs: sparsity, FVU, loss recovered, dead latents, cost"
    for name, action in add_actions(parser, actions):
        if name == "compare":
            action.add_argument("ids", metavar="ID", nargs="*", help="default: all SAEs")
            add_switch(action, "--by-l0", "which k: FVU, CE added, c_dec and probes by L0")
        elif name != "list":
            action.add_argument("id", metavar="ID")
        if name == "rename":
            action.add_argument("new", metavar="NEW_ID")
        if name == "note":
            action.add_argument("text", nargs="?", help="an empty text deletes the note")
        if name == "rm":
            add_switch(action, "--dry-run", "only list what would be deleted")
            add_switch(action, "--force", "even if a resumable job needs it")


def run(options: Namespace) -> int:
    workspace = open_workspace(options)
    runs = options.command == "runs"
    action = options.action or "list"
    if action == "list":
        _list_runs(workspace, options) if runs else _list_saes(workspace, options)
    elif action == "show":
        _show(workspace, options, runs=runs)
    elif action == "rename":
        _rename(workspace, options, runs=runs)
    elif action == "compare":
        _compare(workspace, options)
    elif action == "note":
        _note(workspace, options, runs=runs)
    else:
        _remove(workspace, options, runs=runs)
    return 0


def run_json(run: RunSummary) -> dict[str, Any]:
    """One run as `runs --json` prints it."""
    manifest = run.manifest
    return {
        "run_id": run.run_id,
        "model_id": manifest.model_id,
        "layers": [layer.name for layer in manifest.layers],
        "points": [layer.point for layer in manifest.layers],
        "tokens": manifest.n_tokens,
        "documents": manifest.n_documents,
        **{name: getattr(manifest, name) for name in _OF_A_RUN},
        "bytes": run.bytes,
        "note": read_note(run.path),
    }


def sae_json(sae: SaeSummary) -> dict[str, Any]:
    """One SAE as `saes --json` prints it."""
    return {
        **{name: getattr(sae, name) for name in _OF_AN_SAE},
        "quality": standing_of(sae).as_json(),
        "bytes": sae.bytes,
        "note": read_note(sae.path),
    }


def _json_of_others(
    unreadable: list[Unreadable], incomplete: list[Unfinished], key: str
) -> list[dict[str, Any]]:
    """Rows of `runs --json` and `saes --json` for folders that cannot be read or are unfinished."""
    rows = [{key: one.name, "status": "unreadable", "error": one.reason} for one in unreadable]
    return rows + [{key: o.name, "status": "unfinished", "bytes": o.bytes} for o in incomplete]


def _list_runs(workspace: Workspace, options: Namespace) -> None:
    runs, unreadable = workspace.scan_runs()
    incomplete = unfinished(workspace, "run")
    records = [run_json(run) for run in runs]
    records += _json_of_others(unreadable, incomplete, "run_id")
    columns = ["run", "model…", "layers…", ">tokens", ">size", "status"]
    rows = [
        [
            run.run_id,
            run.manifest.model_id,
            ", ".join(layer.point for layer in run.manifest.layers),
            count(run.manifest.n_tokens),
            size(run.bytes),
            run.manifest.status,
        ]
        for run in runs
    ]
    rows += [[one.name, one.reason, "", "", "", "unreadable"] for one in unreadable]
    rows += [[one.name, "", "", "", size(one.bytes), "unfinished"] for one in incomplete]
    print_list(options.json, records, columns, rows, "no runs yet; mi-crow capture makes one")


def _list_saes(workspace: Workspace, options: Namespace) -> None:
    saes, unreadable = workspace.scan_saes()
    incomplete = unfinished(workspace, "SAE")
    records = [sae_json(sae) for sae in saes]
    records += _json_of_others(unreadable, incomplete, "sae_id")
    columns = ["SAE", "architecture", ">latents", "…layer", ">FVU", "measured", "index", ">size"]
    rows = [
        [
            sae.sae_id,
            sae.architecture + (f" k={sae.k}" if sae.k else ""),
            count(sae.n_latents),
            sae.layer,
            number((found := standing_of(sae)).fvu, 3),
            found.measured,
            "yes" if sae.has_index else "no",
            size(sae.bytes),
        ]
        for sae in saes
    ]
    rows += [[one.name, "unreadable", "", one.reason, *4 * [""]] for one in unreadable]
    rows += [[one.name, "unfinished", *5 * [""], size(one.bytes)] for one in incomplete]
    print_list(options.json, records, columns, rows, "no SAEs yet; mi-crow train makes one")


def _compare(workspace: Workspace, options: Namespace) -> None:
    saes = [read_sae_summary(workspace.sae_dir(name)) for name in dict.fromkeys(options.ids)]
    found = [figures_of(sae) for sae in (saes if options.ids else workspace.scan_saes()[0])]
    columns = ["SAE", "layer…", "architecture", ">latents", ">k", ">L0", ">FVU", ">recovered"]
    columns += [">dead", ">tokens", ">time", "measured"]
    rows = [
        [
            one.sae_id,
            one.layer,
            one.architecture,
            count(one.n_latents),
            number(one.k if one.k is not None else one.target_l0, 3),
            number(one.measured.l0, 3),
            number(one.measured.fvu, 3),
            number(one.measured.loss_recovered, 3),
            share(one.measured.dead_share),
            count(one.tokens),
            duration(one.seconds),
            one.measured.source or "no",
        ]
        for one in found
    ]
    if options.by_l0:
        _print_by_l0(found, options)
        return
    records = [one.as_json() for one in found]
    print_list(options.json, records, columns, rows, "no SAEs yet; mi-crow train makes one")


def _print_by_l0(found: Sequence[SaeFigures], options: Namespace) -> None:
    """What a sweep chooses its k by: the SAEs of a layer and size by L0, and where c_dec is
    least."""
    measured = [one for one in found if one.measured.l0 is not None]
    measured.sort(key=lambda one: (one.place, one.n_latents, one.measured.l0 or 0.0))
    alike: dict[tuple[tuple[str, str], int], list[SaeFigures]] = {}
    for one in measured:
        alike.setdefault((one.place, one.n_latents), []).append(one)
    least = {sae.sae_id for saes in alike.values() if (sae := _least_correlated(saes)) is not None}
    columns = ["SAE", "layer…", ">latents", ">k", ">L0", ">FVU", ">CE added", ">c_dec"]
    columns += [">probes"]
    rows = [
        [
            one.sae_id,
            one.layer,
            count(one.n_latents),
            number(one.k if one.k is not None else one.target_l0, 3),
            number(one.measured.l0, 3),
            number(one.measured.fvu, 3),
            number(one.measured.ce_added, 3),
            number(one.measured.c_dec, 3) + (" least" if one.sae_id in least else ""),
            number(one.measured.probe_accuracy, 3),
        ]
        for one in measured
    ]
    records = [one.as_json() | {"least_c_dec": one.sae_id in least} for one in measured]
    empty = "no SAE was measured yet; mi-crow evaluate measures one"
    print_list(options.json, records, columns, rows, empty)


def _least_correlated(saes: Sequence[SaeFigures]) -> SaeFigures | None:
    """The one whose decoder rows are least alike; None with fewer than two to compare."""
    known = [one for one in saes if one.measured.c_dec is not None]
    return min(known, key=lambda one: one.measured.c_dec or 0.0) if len(known) > 1 else None


def _figures(evaluation: dict[str, Any]) -> str:
    """The scalar readings of an evaluation on one line; `--json` has them all."""
    return "  ".join(
        f"{key} {number(value)}" for key, value in evaluation.items() if isinstance(value, float)
    )


def _show(workspace: Workspace, options: Namespace, *, runs: bool) -> None:
    if runs:
        folder = workspace.run_dir(options.id)
        run = RunSummary(options.id, folder, RunManifest.load(folder), folder_bytes(folder))
        data = run_json(run)
        del (facts := dict(data))["points"]
        facts |= {
            "layers": ", ".join(
                f"{hook_point(one.point, one.name)} {one.width} wide" for one in run.manifest.layers
            ),
            "dataset": ", ".join(
                f"{name.replace('_', ' ')} {value}"
                for name, value in data["dataset"].items()
                if value not in (None, False, "")
            ),
            "tokens": count(data["tokens"]),
            "documents": count(data["documents"]),
            "created": moment(data["created"]),
            "seconds": duration(data["seconds"]),
        }
    else:
        data = sae_json(read_sae_summary(workspace.sae_dir(options.id)))
        facts = data | {"n_latents": count(data["n_latents"])}
        facts |= {"has_index": "yes" if data["has_index"] else "no"}
        facts["evaluation"] = _figures(data["evaluation"] or {})
        facts["quality"] = _figures(data["quality"])
    if options.json:
        print_json(data)
    else:
        facts["bytes"] = size(data["bytes"])
        print_facts({key: str(value) for key, value in facts.items() if value not in (None, "")})


def _rename(workspace: Workspace, options: Namespace, *, runs: bool) -> None:
    rename = rename_run if runs else rename_sae
    rename(workspace, options.id, options.new)
    value = {"run_id" if runs else "sae_id": options.new}
    print_outcome(options.json, value, f"{options.id} is now {options.new}")


def _note(workspace: Workspace, options: Namespace, *, runs: bool) -> None:
    folder = workspace.run_dir(options.id) if runs else workspace.sae_dir(options.id)
    if options.text is not None:
        write_note(folder, options.text)
    note = read_note(folder)
    value = {"run_id" if runs else "sae_id": options.id, "note": note}
    print_outcome(options.json, value, note or "(no note)")


def _remove(workspace: Workspace, options: Namespace, *, runs: bool) -> None:
    removal = plan_removal(workspace, "run" if runs else "SAE", options.id)
    if removal.waiting and not (options.force or options.dry_run):
        raise UserError(
            f"{removal.what} {options.id!r} is needed to resume job {', '.join(removal.waiting)}",
            hint="resume it (mi-crow jobs resume), delete it (mi-crow jobs rm), or use --force",
        )
    folder = removal.folder
    files = sorted(str(f.relative_to(workspace.root)) for f in folder.rglob("*") if f.is_file())
    if not options.dry_run:
        workspace.delete(folder)
    if options.json:
        print_json(
            {
                "removed": not options.dry_run,
                "id": options.id,
                "bytes": removal.bytes,
                "files": files,
                "orphans": removal.orphans,
                "indexed": removal.indexed,
                "waiting_jobs": removal.waiting,
            }
        )
        return
    if options.dry_run:
        for file in files:
            print_line(file)
    verb = "would free" if options.dry_run else "freed"
    print_line(f"{options.id}: {verb} {size(removal.bytes)} in {count(len(files))} files")
    for sentence in removal.consequences():
        print_line(sentence)
