"""The layers of a captured run, by any of their names. Torch-free."""

from dataclasses import replace

from mi_crow.errors import NotFoundError
from mi_crow.mechanistic.sae.hook_names import hook_name_of, point_of
from mi_crow.mechanistic.sae.metadata import SaeMetadata
from mi_crow.store.runs.manifest import LayerSpec, RunManifest

# Since this format mlp_out and attn_out are what is added to the stream. Before, they were the
# sub-module's own output, which is something else where a norm or a multiplier follows.
_CONTRIBUTIONS_SINCE = 3
_MEANT_BEFORE = {"mlp_out": "mlp_raw", "attn_out": "attn_raw"}


def stored_layer(manifest: RunManifest, name: str) -> LayerSpec:
    """The layer of a run that `name` stands for: as the manifest has it, or a short name, a
    block's number or a TransformerLens name of the same tensor.

    Raises NotFoundError naming what was captured.
    """
    try:
        return manifest.layer(name)
    except NotFoundError:
        meant = point_of(name)
        for spec in manifest.layers if meant else ():
            # A block's name alone means its output; the point says where its input was captured.
            module = "" if spec.point.startswith("resid_pre.") else point_of(spec.name)
            if meant in (exact_point(manifest, spec), module):
                return spec
        raise


def exact_point(manifest: RunManifest, layer: LayerSpec) -> str:
    """The short name of what a run's layer holds, in the meaning that short names have now."""
    kind, _, number = layer.point.rpartition(".")
    if manifest.format_version < _CONTRIBUTIONS_SINCE and kind in _MEANT_BEFORE:
        return f"{_MEANT_BEFORE[kind]}.{number}"
    return layer.point


def as_captured(metadata: SaeMetadata, manifest: RunManifest) -> SaeMetadata:
    """The metadata of an SAE of this run, which may be older than the meaning of short names."""
    layer = next((one for one in manifest.layers if one.name == metadata.layer), None)
    if layer is None or layer.point != metadata.point:
        return metadata
    point, hook_name = exact_point(manifest, layer), exact_hook_name(manifest, layer)
    return metadata if point == layer.point else replace(metadata, point=point, hook_name=hook_name)


def exact_hook_name(manifest: RunManifest, layer: LayerSpec) -> str:
    """The same as other tools name it: the module's name where they have none."""
    return hook_name_of(exact_point(manifest, layer), layer.name)
