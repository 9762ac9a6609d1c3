"""What Neuronpedia says of an SAE whose source it knows, as concepts; and an import with it."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mi_crow.errors import CancelledError, MiCrowError, NotFoundError
from mi_crow.mechanistic.concepts.exchange.fetching import fetch_and_import
from mi_crow.mechanistic.sae.formats.config import ImportConfig
from mi_crow.mechanistic.sae.library.published import published_as
from mi_crow.mechanistic.sae.metadata import CONFIG_NAME, SaeMetadata
from mi_crow.progress import Progress
from mi_crow.store.json_file import read_object
from mi_crow.store.workspace import Workspace

if TYPE_CHECKING:
    from mi_crow.mechanistic.sae.formats.exchange import ImportResult


def known_as(workspace: Workspace, sae_id: str) -> str:
    """What Neuronpedia calls an SAE (model/source id), by where it was imported from. Raises
    NotFoundError when that is not known."""
    path = workspace.sae_dir(sae_id) / CONFIG_NAME
    metadata = read_object(path).object("metadata", {})
    source = SaeMetadata.from_json(dict(metadata.values), str(path)).source
    found = published_as(source) if source else None
    if found is None or not found.neuronpedia:
        raise NotFoundError(
            f"what Neuronpedia calls SAE {sae_id!r} is not known",
            hint="give it with --source-id, such as gpt2-small/10-res-jb, or a file or folder",
        )
    return found.neuronpedia


def import_with_names(
    workspace: Workspace,
    config: ImportConfig,
    progress: Progress | None = None,
    output_dir: Path | None = None,
) -> "ImportResult":
    """`import_sae`, and with `config.names` Neuronpedia's explanations as concepts. That these
    cannot be had is a warning: the SAE is there."""
    from mi_crow.mechanistic.concepts.annotations import Annotations
    from mi_crow.mechanistic.sae.formats.exchange import import_sae

    result = import_sae(workspace, config, progress, output_dir)
    if not config.names:
        return result
    try:
        name = known_as(workspace, result.sae_id)
        if progress is not None:
            progress.log(f"looking for explanations of {name} on Neuronpedia")
        annotations = Annotations(workspace.annotations_path)
        done = fetch_and_import(workspace, annotations, result.sae_id, name, progress=progress)
    except CancelledError:
        raise
    except MiCrowError as error:
        return replace(result, warnings=(*result.warnings, f"no names: {error.sentence}"))
    return replace(result, names=done.concepts)
