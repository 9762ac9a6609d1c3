"""Importing an SAE of any format into the workspace: the whole folder or nothing."""

from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mi_crow.errors import UserError
from mi_crow.mechanistic.sae.base import SparseAutoencoder
from mi_crow.mechanistic.sae.cross_layer.points import moved as moved_points
from mi_crow.mechanistic.sae.cross_layer.record import CrossLayerRecord
from mi_crow.mechanistic.sae.cross_layer.sae import CrossLayerSae
from mi_crow.mechanistic.sae.formats.build import build, bytes_needed
from mi_crow.mechanistic.sae.formats.config import ImportConfig
from mi_crow.mechanistic.sae.formats.layer_check import check_named_layers
from mi_crow.mechanistic.sae.formats.load import (
    OpenedSae,
    at_layer,
    open_sae_files,
    refuse_options,
)
from mi_crow.mechanistic.sae.formats.moving import Moved
from mi_crow.mechanistic.sae.formats.record import SaeRecord
from mi_crow.mechanistic.sae.formats.written import explained_writing
from mi_crow.mechanistic.sae.hook_names import hook_name_of, point_of
from mi_crow.mechanistic.sae.metadata import SaeMetadata
from mi_crow.paths import expanded
from mi_crow.progress import NullProgress, Progress
from mi_crow.store.atomic import whole_folder, write_json
from mi_crow.store.evaluation_file import CHECK_NAME
from mi_crow.store.free_space import check_disk, check_memory, gigabytes
from mi_crow.store.ids import timestamp_id, validate_id
from mi_crow.store.leftovers import leftovers, remove
from mi_crow.store.workspace import Workspace

if TYPE_CHECKING:
    from mi_crow.mechanistic.sae.formats.fit import Fit

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class ImportResult:
    """What was imported; `fit` is None without a check."""

    sae_id: str
    format: str
    architecture: str
    n_latents: int
    n_inputs: int
    layer: str
    model: str
    source: str
    folded: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    fit: "Fit | None" = None
    names: int | None = None  # explanations that came in as concepts; None: not asked for

    def as_json(self) -> dict[str, Any]:
        found = {name: value for name, value in vars(self).items() if name != "fit"}
        found |= {"folded": list(self.folded), "warnings": list(self.warnings)}
        if self.fit is not None:
            found |= self.fit.as_json()
        return found


def import_sae(
    workspace: Workspace,
    config: ImportConfig,
    progress: Progress | None = None,
    output_dir: Path | None = None,
) -> ImportResult:
    """Reads an SAE, checks that it fits its hook point if the config asks for it, and writes it: to
    a new folder, or to `output_dir`, which a job has reserved.

    Nothing is written unless all of that succeeds. Raises NotFoundError, UserError (also for too
    little disk space or memory, an id in use, or an unknown layer), CorruptDataError, or
    CancelledError when `progress` was asked to stop.
    """
    progress = progress or NullProgress()
    moved = Moved(progress)
    if output_dir is None and config.name is not None:
        _free_folder(workspace, config.name)
    progress.log(f"looking for an SAE at {config.path}")
    opened = open_sae_files(
        config.path,
        layer=config.layer,
        revision=config.revision,
        offline=config.offline,
        input_scale=config.input_scale,
        target=workspace.saes_dir,
        moved=moved,
    )
    if isinstance(opened.record, CrossLayerRecord) and config.target_layer is not None:
        opened = replace(
            opened, record=moved_points(opened.record, config.layer, config.target_layer)
        )
    target = output_dir or _free_folder(workspace, config.name or _id_of(opened))
    sae_id = target.name
    metadata = _completed_metadata(opened, config)
    unchecked = ()
    if config.check is None and isinstance(opened.record, SaeRecord):
        unchecked = check_named_layers(opened.record, config, opened.file_point)
    dtype = _DTYPES.get(config.dtype)
    needed = bytes_needed(opened.record, dtype)
    remove(
        leftovers(workspace.saes_dir)
    )  # a killed import may occupy the space that this one needs
    check_disk(workspace.saes_dir, needed, f"the SAE {sae_id!r}")
    # Writing transposes the encoder: a second copy of one of the two matrices.
    check_memory(needed * 3 // 2, f"the SAE {sae_id!r}")
    progress.log(f"reading it: {opened.format}, {gigabytes(needed)}")
    moved.expect(2 * needed)  # read, then written
    sae = build(opened.record, opened.where, "cpu", dtype)
    moved.add(needed)
    sae.metadata = metadata
    sae.centred = metadata.centred_weights and not sae.transcodes
    fit = None
    if config.check is not None:
        wanted = config.check
        some = f"{wanted.tokens} tokens" if wanted.tokens else f"{wanted.documents} documents"
        progress.log(f"checking it on {some}")
        fit = _checked(sae, config, opened.file_point, progress)
    workspace.ensure()
    progress.log(f"writing {sae_id}")
    moved.add(0)
    with (
        explained_writing(target),
        nullcontext(target) if output_dir else whole_folder(target) as folder,
    ):
        if fit is not None:
            write_json(folder / CHECK_NAME, fit.as_json())
        sae.to("cpu").save(folder)  # its cfg.json last, without which it is unfinished
    moved.finish()
    return ImportResult(
        sae_id=sae_id,
        format=opened.format,
        architecture=sae.architecture,
        n_latents=sae.n_latents,
        n_inputs=sae.n_inputs,
        layer=sae.metadata.layer or sae.metadata.point or sae.metadata.hook_name,
        model=sae.metadata.model_name,
        source=opened.source,
        folded=sae.metadata.folded,
        warnings=(*_warnings(opened, sae, config), *unchecked, *(fit.warnings if fit else ())),
        fit=fit,
    )


def _free_folder(workspace: Workspace, sae_id: str) -> Path:
    target = workspace.saes_dir / validate_id(sae_id, "SAE")
    if target.exists():
        raise UserError(f"SAE {sae_id!r} exists already", hint="choose another --name")
    return target


def _id_of(opened: OpenedSae) -> str:
    try:
        return validate_id(opened.name, "SAE")
    except UserError:
        return timestamp_id(opened.name)


def _completed_metadata(opened: OpenedSae, config: ImportConfig) -> SaeMetadata:
    """The metadata with what `config` and the source add. Raises UserError for an unknown layer."""
    metadata = opened.record.metadata
    if isinstance(opened.record, CrossLayerRecord):
        refuse_options(opened.source, {"centred": config.centred})
    elif not metadata.point and not metadata.layer:
        reason = f"is of hook point {metadata.hook_name!r}, which has no short name"
        raise UserError(
            f"{opened.source!r} {reason if metadata.hook_name else 'does not name its layer'}",
            hint="name it with --layer, as `mi-crow layers` lists them, e.g. resid_post.5",
        )
    if config.bos != "auto":
        metadata = replace(metadata, prepend_bos=config.bos == "yes")
    if config.centred:
        metadata = metadata.centring()
    if config.target_layer is not None and isinstance(opened.record, SaeRecord):
        point = point_of(config.target_layer)
        other = {
            "hook_name_out": hook_name_of(point, config.target_layer),
            "target_layer": config.target_layer,
        }
        metadata = replace(metadata, other={**metadata.other, **other})
    model = config.model
    if model is not None:
        metadata = replace(metadata, model_name=_model_id(model.model), revision=model.revision)
    return replace(
        metadata,
        source=opened.source,
        source_revision=opened.source_revision,
        format=opened.format,
    )


def _model_id(model: str) -> str:
    """A folder as an absolute path, which works from any directory."""
    path = expanded(model)
    return str(path.absolute()) if path.exists() else model


def _checked(
    sae: SparseAutoencoder, config: ImportConfig, file_point: str, progress: Progress
) -> "Fit":
    """Tries the SAE on its model, and fills in its metadata from the model."""
    from mi_crow.language_model import LanguageModel
    from mi_crow.language_model.config import ModelSpec
    from mi_crow.mechanistic.sae.formats.check_texts import texts_to_check
    from mi_crow.mechanistic.sae.formats.fit import check_fit

    assert config.check is not None
    spec = config.model
    if spec is None:
        if not sae.metadata.model_name:
            raise UserError(
                "the SAE does not name its model", hint="name the one to check it on with --model"
            )
        spec = ModelSpec(
            sae.metadata.model_name,
            revision=sae.metadata.revision,
            device=config.device,
            offline=config.offline,
        )
    lm = LanguageModel.from_spec(spec)
    texts = texts_to_check(lm, config.check, config.offline)
    fit = check_fit(lm, sae, texts, config.check.context_length, file_point, progress=progress)
    seen = replace(
        sae.metadata,
        model_name=lm.model_id,
        revision=lm.revision,
        tokenizer_hash=lm.tokenizer_hash,
    )
    if not isinstance(sae, CrossLayerSae):
        seen = replace(
            at_layer(seen, fit.layer.point),
            layer=fit.layer.stored,
            hook_name=hook_name_of(fit.layer.point, fit.layer.stored),
            outlier_norm=seen.outlier_norm or fit.outlier_norm,
        )
    sae.metadata = seen
    return fit


def _warnings(opened: OpenedSae, sae: SparseAutoencoder, config: ImportConfig) -> tuple[str, ...]:
    """What users of the SAE should know."""
    found = list(opened.record.assumed) if config.layer is None else []
    found += opened.record.notes
    said, meant = opened.file_point, opened.record.metadata
    if config.layer is not None and said and said != meant.point:
        found.append(f"the file says {said}, and --layer says {meant.point or meant.layer}")
    if config.check is None and sae.centred:
        found.append(
            "the SAE is for centred activations (center_writing_weights): the mean of each is "
            "subtracted from its input where the model's norms allow it"
        )
    if not sae.metadata.model_name:
        found.append("the SAE does not name its model: give it with --model to inspect and steer")
    return tuple(found)
