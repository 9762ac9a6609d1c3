"""Exporting SAEs of the workspace as files for other tools: a whole folder or nothing."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mi_crow.errors import MiCrowError, UserError
from mi_crow.mechanistic.sae.architectures import BY_SAELENS_NAME
from mi_crow.mechanistic.sae.base import SparseAutoencoder
from mi_crow.mechanistic.sae.cross_layer.record import CROSSCODER
from mi_crow.mechanistic.sae.cross_layer.sae import CrossLayerSae
from mi_crow.mechanistic.sae.formats.build import bytes_needed
from mi_crow.mechanistic.sae.formats.config import ExportConfig
from mi_crow.mechanistic.sae.formats.load import load_sae
from mi_crow.mechanistic.sae.formats.marks import EXPORTED
from mi_crow.mechanistic.sae.formats.moving import Moved
from mi_crow.mechanistic.sae.formats.saelens import read_saelens
from mi_crow.mechanistic.sae.formats.sparsify import check_writable, hookpoint_of, write_sparsify
from mi_crow.mechanistic.sae.formats.write_circuit_tracer import check_set, write_set
from mi_crow.mechanistic.sae.formats.write_dictionary_learning import (
    LOADED,
    check_dictionary,
    write_dictionary,
)
from mi_crow.mechanistic.sae.formats.written import explained_writing
from mi_crow.mechanistic.sae.saving import saelens_name, save_sae
from mi_crow.mechanistic.sae.stored_layers import as_captured
from mi_crow.paths import expanded
from mi_crow.progress import NullProgress, Progress
from mi_crow.store.atomic import whole_folder
from mi_crow.store.free_space import check_disk, gigabytes
from mi_crow.store.leftovers import beside, remove
from mi_crow.store.runs.manifest import RunManifest
from mi_crow.store.workspace import Workspace, read_sae_summary


def export_from(
    workspace: Workspace, config: ExportConfig, progress: Progress | None = None
) -> dict[str, Any]:
    """Exports an SAE of the workspace; the result is that of `mi-crow export --json`.

    Raises what `export_sae` raises, and NotFoundError without such an SAE.
    """
    target = expanded(config.path).absolute()
    captured = {one: _run_of(workspace, one) for one in (config.sae_id, *config.also)}
    sources = {workspace.sae_dir(one): run for one, run in captured.items()}
    folder = export_saes(sources, target, config.format, progress)
    value: dict[str, Any] = {
        "sae_id": config.sae_id,
        "path": str(target),
        "format": config.format,
        "folder": str(folder),
    }
    if config.also:
        value["also"] = [*config.also]
    if config.format == "dictionary_learning":
        value["note"] = LOADED
    return value


def _run_of(workspace: Workspace, sae_id: str) -> RunManifest | None:
    """The run an SAE was trained on, where it still exists: an export can do without it."""
    try:
        run_id = read_sae_summary(workspace.sae_dir(sae_id)).run_id
        if run_id is None:
            return None
        return RunManifest.load(workspace.run_dir(workspace.run_named(run_id)))
    except MiCrowError:
        return None


def export_sae(
    source: Path,
    target: Path,
    format_name: str = "saelens",
    captured: RunManifest | None = None,
    progress: Progress | None = None,
) -> Path:
    """Writes the SAE in the folder `source`; see `export_saes`. `captured` is the run that the SAE
    was trained on, which defines what it reads."""
    return export_saes({source: captured}, target, format_name, progress)


def export_saes(
    sources: Mapping[Path, RunManifest | None],
    target: Path,
    format_name: str = "saelens",
    progress: Progress | None = None,
) -> Path:
    """Writes the SAEs in the folders `sources` to the new folder `target`, and returns the folder
    of the files: for sparsify one inside `target`, named after its hook point. Only circuit-tracer
    has sets of several. With each folder is the run that its SAE was trained on.

    Raises UserError when `target` exists, cannot be written or is on a full disk, and for an SAE
    that the format cannot hold; CancelledError when `progress` was asked to stop.
    """
    if target.exists():
        raise UserError(f"{str(target)!r} exists already", hint="give a new folder")
    if format_name not in EXPORTED:
        raise UserError(f"format {format_name!r} is not known", hint=f"use {', '.join(EXPORTED)}")
    remove(beside(target))
    needed = sum(bytes_needed(read_saelens(source)) for source in sources)
    check_disk(target, needed, f"{str(target)!r}")
    progress = progress or NullProgress()
    moved = Moved(progress)
    names = ", ".join(source.name for source in sources)
    progress.log(f"reading {names}, {gigabytes(needed)}")
    moved.expect(2 * needed)  # read, then written
    saes: dict[str, SparseAutoencoder] = {}
    for source, captured in sources.items():
        sae = saes[source.name] = load_sae(source)
        if captured is not None:
            sae.metadata = as_captured(sae.metadata, captured)
    moved.add(needed)
    [first, *_] = saes.values()
    _check_exportable(saes, format_name)
    place = hookpoint_of(first) if format_name == "sparsify" else ""
    progress.log(f"writing {target}")
    with explained_writing(target), whole_folder(target) as folder:
        if format_name == "sparsify":
            (folder / place).mkdir(exist_ok=True)
            write_sparsify(first, folder / place)
        elif format_name == "dictionary_learning":
            write_dictionary(first, folder)
        elif format_name == "circuit-tracer":
            write_set(saes, folder)
        else:
            save_sae(first, folder)
        moved.add(0)  # the last moment to leave nothing behind
    moved.finish()
    return target / place


def _check_exportable(saes: Mapping[str, SparseAutoencoder], format_name: str) -> None:
    if format_name == "circuit-tracer":
        check_set(saes)
        return
    [sae] = saes.values()
    if isinstance(sae, CrossLayerSae):
        hint = "--format circuit-tracer has cross-layer transcoders"
        if sae.architecture == CROSSCODER:
            hint = "a crosscoder can be exported to none of these formats"
        raise UserError(f"{format_name} has no SAEs over several layers", hint=hint)
    if format_name == "dictionary_learning":
        check_dictionary(sae)
    elif format_name == "sparsify":
        check_writable(sae)
    elif not BY_SAELENS_NAME[saelens_name(sae)].in_saelens:
        raise UserError(
            f"SAELens has no SAEs of architecture {sae.architecture!r}",
            hint="use --format sparsify",
        )
