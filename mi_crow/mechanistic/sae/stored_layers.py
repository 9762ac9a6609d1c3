"""Finding a captured run's layers by any of their names. Torch-free."""

from collections.abc import Sequence
from dataclasses import replace

from mi_crow.errors import NotFoundError, UserError
from mi_crow.language_model.hook_points.names import number_of
from mi_crow.mechanistic.sae.hook_names import hook_name_of, point_of
from mi_crow.mechanistic.sae.metadata import SaeMetadata
from mi_crow.store.runs.manifest import LayerSpec, RunManifest

# Since this format mlp_out and attn_out are what is added to the stream. Before, they were the
# sub-module's own output, which differs where a norm or a multiplier follows.
_CONTRIBUTIONS_SINCE = 3
_READ, _PREDICTED = "mlp_in", "mlp_out"  # of a cross-layer transcoder
_FORMER_MEANING = {"mlp_out": "mlp_raw", "attn_out": "attn_raw"}


def stored_layer(manifest: RunManifest, name: str) -> LayerSpec:
    """The layer of a run that `name` refers to: its name in the manifest, or a short name, a
    block's number or a TransformerLens name of the same tensor.

    Raises NotFoundError listing what was captured.
    """
    try:
        return manifest.layer(name)
    except NotFoundError:
        wanted = point_of(name)
        for spec in manifest.layers if wanted else ():
            # A block's name means its output; only the point says that its input was captured.
            module = "" if spec.point.startswith("resid_pre.") else point_of(spec.name)
            if wanted in (current_point(manifest, spec), module):
                return spec
        raise


def current_point(manifest: RunManifest, layer: LayerSpec) -> str:
    """The short name of a run's layer, in the current meaning of short names."""
    kind, _, number = layer.point.rpartition(".")
    if manifest.format_version < _CONTRIBUTIONS_SINCE and kind in _FORMER_MEANING:
        return f"{_FORMER_MEANING[kind]}.{number}"
    return layer.point


def as_captured(metadata: SaeMetadata, manifest: RunManifest) -> SaeMetadata:
    """The metadata of an SAE of this run, with short names in their current meaning."""
    layer = next((one for one in manifest.layers if one.name == metadata.layer), None)
    if layer is None or layer.point != metadata.point:
        return metadata
    point, hook_name = current_point(manifest, layer), current_hook_name(manifest, layer)
    return metadata if point == layer.point else replace(metadata, point=point, hook_name=hook_name)


def current_hook_name(manifest: RunManifest, layer: LayerSpec) -> str:
    """The same by its name in other tools: the module's name where they have none."""
    return hook_name_of(current_point(manifest, layer), layer.name)


def layers_together(
    manifest: RunManifest, names: Sequence[str], *, transcodes: bool
) -> tuple[tuple[LayerSpec, ...], tuple[LayerSpec, ...]]:
    """The layers that an SAE over several layers reads, ascending by their blocks, and those that
    it predicts: the outputs of the MLPs whose inputs are named if it `transcodes`, else the same.

    Raises NotFoundError for a layer that the run lacks, UserError where they do not go together.
    """
    found = [stored_layer(manifest, name) for name in names]
    numbers: dict[int, LayerSpec] = {}
    for spec in found:
        number = number_of(current_point(manifest, spec))
        if found.count(spec) > 1:
            raise _twice(spec.point)
        if number is None:
            raise UserError(
                f"layer {spec.name!r} belongs to no block",
                hint="choose layers such as resid_post.3",
            )
        if number in numbers:
            raise _same_block(numbers[number].point, spec.point)
        numbers[number] = spec
    reads = tuple(numbers[number] for number in sorted(numbers))
    return reads, _predicted(manifest, reads) if transcodes else reads


def _predicted(manifest: RunManifest, reads: Sequence[LayerSpec]) -> tuple[LayerSpec, ...]:
    writes = []
    for spec in reads:
        kind, _, number = current_point(manifest, spec).rpartition(".")
        if kind != _READ:
            raise _no_input(spec.point, stream=not manifest.run_id and number.isdecimal())
        writes.append(stored_layer(manifest, f"{_PREDICTED}.{number}"))
    for spec in (*reads, *writes):
        if spec.width != reads[0].width:
            raise UserError(
                f"layer {spec.point!r} has width {spec.width}, {reads[0].point!r} "
                f"{reads[0].width}: a cross-layer transcoder needs layers of one width"
            )
    return tuple(writes)


def check_names_together(names: Sequence[str], *, transcodes: bool) -> None:
    """The same for layers of a model that is not loaded, by their names alone: what is no short
    name, nor another name of one, passes. Raises UserError."""
    points: dict[int, str] = {}
    for name in names:
        point = point_of(name) or name
        number = number_of(point)
        if number is None:
            continue
        if point in points.values():
            raise _twice(point)
        if number in points:
            raise _same_block(points[number], point)
        if transcodes and point.rpartition(".")[0] != _READ:
            raise _no_input(point, stream=True)
        points[number] = point


def _twice(point: str) -> UserError:
    return UserError(f"layer {point!r} was given twice", hint="leave one out")


def _same_block(one: str, other: str) -> UserError:
    return UserError(
        f"layers {one!r} and {other!r} are of the same block",
        hint="leave one out: an SAE of several layers reads one of each block",
    )


def _no_input(point: str, *, stream: bool) -> UserError:
    hint = f"capture {_READ}.N and {_PREDICTED}.N of each block, and give --layer {_READ}.N"
    if stream:
        number = point.rpartition(".")[2]
        one, out = (f"{kind}.{number}" for kind in (_READ, _PREDICTED))
        hint = f"give --layer {one}; its output, {out}, is read beside it"
    return UserError(f"a cross-layer transcoder reads the inputs of MLPs, not {point!r}", hint=hint)
