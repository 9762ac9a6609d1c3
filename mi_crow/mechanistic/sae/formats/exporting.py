"""Exporting: an SAE of the workspace as files that other tools read, whole or not at all."""

from pathlib import Path

from safetensors import SafetensorError

from mi_crow.causes import machine_error
from mi_crow.errors import UserError
from mi_crow.mechanistic.sae.base import SparseAutoencoder
from mi_crow.mechanistic.sae.formats.build import bytes_needed
from mi_crow.mechanistic.sae.formats.load import load_sae
from mi_crow.mechanistic.sae.formats.saelens import read_saelens
from mi_crow.mechanistic.sae.formats.saelens_names import OURS_ALONE
from mi_crow.mechanistic.sae.formats.sparsify import check_writable, hookpoint_of, write_sparsify
from mi_crow.mechanistic.sae.saving import saelens_name, save_sae
from mi_crow.mechanistic.sae.stored_layers import as_captured
from mi_crow.store.atomic import whole_folder
from mi_crow.store.free_space import check_disk
from mi_crow.store.leftovers import beside, remove
from mi_crow.store.runs.manifest import RunManifest

FORMATS = ("saelens", "sparsify")


def export_sae(
    source: Path, target: Path, format_name: str = "saelens", captured: RunManifest | None = None
) -> Path:
    """Writes the SAE in the folder `source` to the new folder `target`, and gives the folder of
    the SAE itself: for sparsify one of its hook point's name inside `target`. `captured` is the run
    that the SAE was trained on, which says what it read.

    Raises UserError when `target` exists, cannot be written or is on a full disk, and when the
    format has no such SAE.
    """
    if target.exists():
        raise UserError(f"{str(target)!r} exists already", hint="give a new folder")
    if format_name not in FORMATS:
        raise UserError(f"format {format_name!r} is not known", hint=f"use {', '.join(FORMATS)}")
    remove(beside(target))
    check_disk(target, bytes_needed(read_saelens(source)), f"{str(target)!r}")
    sae = load_sae(source)
    if captured is not None:
        sae.metadata = as_captured(sae.metadata, captured)
    place = hookpoint_of(sae) if format_name == "sparsify" else ""
    _check(sae, format_name)
    try:
        with whole_folder(target) as folder:
            if format_name == "sparsify":
                (folder / place).mkdir(exist_ok=True)
                write_sparsify(sae, folder / place)
            else:
                save_sae(sae, folder)
    except OSError as error:
        raise UserError(f"{str(target)!r} cannot be written ({error.strerror})") from error
    except SafetensorError as error:  # what the system says, in words of the library's own
        raise machine_error(error, target) or UserError(
            f"{str(target)!r} cannot be written ({error})"
        ) from error
    return target / place


def _check(sae: SparseAutoencoder, format_name: str) -> None:
    if format_name == "sparsify":
        check_writable(sae)
    elif saelens_name(sae) in OURS_ALONE:
        raise UserError(
            f"SAELens has no SAEs of architecture {sae.architecture!r}",
            hint="use --format sparsify",
        )
