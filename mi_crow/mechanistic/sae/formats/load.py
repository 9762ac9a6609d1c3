"""Loading an SAE, whatever format it is in and wherever it is."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from mi_crow.mechanistic.sae.base import SparseAutoencoder
from mi_crow.mechanistic.sae.formats.build import build
from mi_crow.mechanistic.sae.formats.detect import names_folder
from mi_crow.mechanistic.sae.formats.places import locate, where_from
from mi_crow.mechanistic.sae.formats.record import SaeRecord
from mi_crow.mechanistic.sae.formats.saelens import FORMAT as SAELENS
from mi_crow.mechanistic.sae.formats.saelens import read_saelens
from mi_crow.mechanistic.sae.hook_names import hook_name_of, module_of, point_of
from mi_crow.mechanistic.sae.metadata import CONFIG_NAME, WEIGHTS_NAME, SaeMetadata
from mi_crow.store.free_space import explain_shortage


@dataclass(frozen=True)
class OpenedSae:
    """An SAE of which everything but the tensors was read."""

    record: SaeRecord
    format: str
    where: Path  # its folder or file here
    source: str  # the path or hub id
    name: str  # what to call it
    source_revision: str | None = None  # the hub's commit
    said_point: str = ""  # the hook point that the file names, whatever `layer` says


def open_sae_files(
    path: str | Path,
    *,
    layer: str | None = None,
    revision: str | None = None,
    offline: bool = False,
    input_scale: float | None = None,
    target: Path | None = None,
) -> OpenedSae:
    """Finds the SAE at `path` and reads what it is; its tensors are not read yet.

    `path` is a folder, a file, or a hub id (`org/name`, `org/name/folder`), of which the needed
    files are downloaded; `revision` is the hub's. `layer` chooses among the SAEs of several hook
    points by its folder; else it is the SAE's hook point, whatever the file says. `input_scale` is
    for files of inputs scaled by a factor that they do not say; `target` is where the SAE will be
    written, which needs room too. Raises NotFoundError, UserError or CorruptDataError.
    """
    folder = Path(path)
    if _is_ours(folder):
        record = read_saelens(folder)
        whole = folder.absolute()
        opened = OpenedSae(record, SAELENS, folder, str(whole), whole.resolve().name)
        label = ""
    else:
        place = locate(path, revision, offline)
        found = place.find(layer)
        root = place.fetch(found, target)
        record, label = found.read(root, where_from(place)), found.label
        inside = f"{place.repository}/{found.label}".rstrip("/") if place.repository else ""
        opened = OpenedSae(
            record,
            found.format,
            root / (found.label or found.weights),
            inside or str((root / found.label).absolute()),
            place.name_of(found),
            place.revision,
        )
    if input_scale is not None:
        record = replace(
            record,
            input_scale=input_scale,
            metadata=replace(
                record.metadata,
                folded=tuple(dict.fromkeys((*record.metadata.folded, "input_scale"))),
            ),
        )
    said = record.metadata.point
    if layer is not None and not (names_folder(label, layer) and (said or record.metadata.layer)):
        record = replace(record, metadata=placed(record.metadata, layer))
    return replace(opened, record=record, said_point=said)


def load_sae(
    path: str | Path,
    device: str | torch.device = "cpu",
    *,
    dtype: torch.dtype | None = None,
    layer: str | None = None,
    revision: str | None = None,
    offline: bool = False,
    input_scale: float | None = None,
) -> SparseAutoencoder:
    """The SAE at a path or on the hub, on `device`, without gradients.

    Formats: SAELens (old and new, also ours), sparsify, Gemma Scope, dictionary_learning, Llama
    Scope, OpenAI's. `dtype` None is what the file says, else float32; the other options are those
    of `open_sae_files`. Raises NotFoundError when there is none, UserError for what is not known
    or could run code, CorruptDataError for damaged files.
    """
    opened = open_sae_files(
        path, layer=layer, revision=revision, offline=offline, input_scale=input_scale
    )
    with explain_shortage(f"loading the SAE {str(path)!r} on {device}", "take another --device"):
        return build(opened.record, opened.where, device, dtype)


def placed(metadata: SaeMetadata, layer: str) -> SaeMetadata:
    """The metadata with the hook point that `layer` names, whatever the file says."""
    point, module = point_of(layer), module_of(layer)
    module = module or ("" if point else layer)
    return replace(metadata, point=point, layer=module, hook_name=hook_name_of(point, module))


def _is_ours(folder: Path) -> bool:
    """Whether the folder itself is in the SAELens layout: no need to look further."""
    return (folder / CONFIG_NAME).is_file() and (folder / WEIGHTS_NAME).is_file()
