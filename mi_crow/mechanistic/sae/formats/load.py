"""Loading an SAE of any format, from this machine or the hub."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from mi_crow.errors import UserError
from mi_crow.mechanistic.sae.base import SparseAutoencoder
from mi_crow.mechanistic.sae.cross_layer.points import moved as moved_points
from mi_crow.mechanistic.sae.cross_layer.record import CrossLayerRecord
from mi_crow.mechanistic.sae.formats.build import build
from mi_crow.mechanistic.sae.formats.detect import names_layer
from mi_crow.mechanistic.sae.formats.files import locate, origin_of
from mi_crow.mechanistic.sae.formats.moving import Moved
from mi_crow.mechanistic.sae.formats.record import SaeRecord
from mi_crow.mechanistic.sae.formats.saelens import FORMAT as SAELENS
from mi_crow.mechanistic.sae.formats.saelens import read_saelens
from mi_crow.mechanistic.sae.hook_names import hook_name_of, module_of, point_of
from mi_crow.mechanistic.sae.metadata import CONFIG_NAME, WEIGHTS_NAME, SaeMetadata
from mi_crow.store.free_space import explain_shortage


@dataclass(frozen=True)
class OpenedSae:
    """An SAE of which everything except the tensors has been read."""

    record: SaeRecord | CrossLayerRecord
    format: str
    where: Path  # its folder or file on this machine
    source: str  # the path or hub id
    name: str  # what to call it
    source_revision: str | None = None  # the commit on the hub
    file_point: str = ""  # the hook point that the file names, without regard to `layer`


def open_sae_files(
    path: str | Path,
    *,
    layer: str | None = None,
    revision: str | None = None,
    offline: bool = False,
    input_scale: float | None = None,
    target: Path | None = None,
    moved: Moved | None = None,
) -> OpenedSae:
    """Finds the SAE at `path` and reads its description; its tensors are not read yet.

    `path` is a folder, a file, or a hub id (`org/name`, `org/name/folder`), of which only the files
    needed are downloaded, at `revision`. `layer` chooses one of several SAEs by its folder, or else
    overrides the hook point in the file. `input_scale` is for SAEs of scaled inputs whose file
    lacks the factor; `target` is where the SAE will be written, which needs disk space too; `moved`
    counts what is downloaded. Raises NotFoundError, UserError or CorruptDataError.
    """
    folder = Path(path)
    if _is_ours(folder):
        record = read_saelens(folder)
        whole = folder.absolute()
        opened = OpenedSae(record, SAELENS, folder, str(whole), whole.resolve().name)
        chosen = False
    else:
        files = locate(path, revision, offline)
        found = files.find(layer)
        root = files.fetch(found, target, moved)
        record = found.read(root, origin_of(files), layer)
        if isinstance(record, CrossLayerRecord) and layer == found.label:
            layer = None  # it chose a folder
        chosen = layer is not None and names_layer(found, layer)
        chosen |= isinstance(record, SaeRecord) and record.chosen
        inside = f"{files.repository}/{found.label}".rstrip("/") if files.repository else ""
        opened = OpenedSae(
            record,
            record.format or found.format,
            root / (found.label or found.weights),
            inside or str((root / found.label).absolute()),
            files.name_of(found),
            files.revision,
        )
    if isinstance(record, CrossLayerRecord):
        return _of_all_layers(opened, layer, input_scale)
    if input_scale is not None:
        record = replace(
            record,
            input_scale=input_scale,
            metadata=replace(
                record.metadata,
                folded=tuple(dict.fromkeys((*record.metadata.folded, "input_scale"))),
            ),
        )
    point = record.metadata.point
    if layer is not None and not (chosen and (point or record.metadata.layer)):
        record = replace(record, metadata=at_layer(record.metadata, layer))
    return replace(opened, record=record, file_point=point)


def _of_all_layers(opened: OpenedSae, layer: str | None, input_scale: float | None) -> OpenedSae:
    """An SAE over several layers, at the kind of hook points `layer`. Raises UserError for options
    of those of one layer."""
    refuse_options(opened.source, {"scale": input_scale})
    assert isinstance(opened.record, CrossLayerRecord)
    if layer is None:
        return opened
    return replace(opened, record=moved_points(opened.record, layer, None))


def refuse_options(source: str, options: Mapping[str, Any]) -> None:
    """Raises UserError for an option that was given and that an SAE over several layers does not
    take."""
    for option, value in options.items():
        if value is not None and value is not False:
            raise UserError(
                f"{source!r} is an SAE over several layers, which takes no --{option}",
                hint="leave it out: its files name its layers",
            )


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
    """The SAE at a path or on the hub, on `device`, without gradients; a `CrossLayerSae` where it
    is one over several layers.

    Formats: those of `families.READ`. `dtype` None is that of the file, else float32; the other
    options are those of `open_sae_files`. Raises NotFoundError when there is none, UserError for
    unsupported files or those that could run code, CorruptDataError for damaged files.
    """
    opened = open_sae_files(
        path, layer=layer, revision=revision, offline=offline, input_scale=input_scale
    )
    with explain_shortage(f"loading the SAE {str(path)!r} on {device}", "use another --device"):
        return build(opened.record, opened.where, device, dtype)


def at_layer(metadata: SaeMetadata, layer: str) -> SaeMetadata:
    """The metadata with the hook point `layer` in files of that of the file."""
    point, module = point_of(layer), module_of(layer)
    module = module or ("" if point else layer)
    return replace(metadata, point=point, layer=module, hook_name=hook_name_of(point, module))


def _is_ours(folder: Path) -> bool:
    """Whether the folder itself is in the SAELens layout, so that no search is needed."""
    return (folder / CONFIG_NAME).is_file() and (folder / WEIGHTS_NAME).is_file()
