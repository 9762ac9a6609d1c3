"""Which layers an SAE reads and predicts."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mi_crow.errors import UserError
from mi_crow.mechanistic.sae.base import SparseAutoencoder
from mi_crow.mechanistic.sae.cross_layer.sae import CrossLayerSae
from mi_crow.mechanistic.sae.cross_layer.two_models import TwoModelCrosscoder
from mi_crow.store.runs.manifest import LayerSpec

if TYPE_CHECKING:
    from mi_crow.language_model import HookPoint, LanguageModel


def point_read(lm: "LanguageModel", sae: SparseAutoencoder) -> "HookPoint":
    """Where the SAE reads the model. Raises NotFoundError, UserError also for an SAE over several
    layers."""
    if isinstance(sae, CrossLayerSae):
        raise UserError(
            f"this SAE reads {len(sae.layers)} layers ({sae.metadata.hook_name}), not one",
            hint="index, inspect, attribute and steer it, or use the layers by load_sae",
        )
    metadata = sae.metadata
    return lm.layers.stored(metadata.layer, metadata.point or metadata.hook_name)


def points_read(lm: "LanguageModel", sae: SparseAutoencoder) -> "list[HookPoint]":
    """Every hook point that the SAE reads: one, or those of an SAE over several layers, in its
    order; of two models those of the one that `lm` is. Raises NotFoundError, UserError."""
    if isinstance(sae, TwoModelCrosscoder):
        own = sae.points_of(sae.role_of(lm.model_id, lm.revision))
        return [lm.layers.resolve(layer) for layer in own.values()]
    if isinstance(sae, CrossLayerSae):
        return [lm.layers.resolve(layer) for layer in sae.layers]
    return [point_read(lm, sae)]


def check_same_points(
    lm: "LanguageModel", sae: SparseAutoencoder, captured: "Sequence[LayerSpec]", sae_id: str
) -> None:
    """Raises UserError when a run holds other activations than the SAE reads, under the same short
    names: mlp_out and attn_out once meant a sub-module's own output, now what it adds."""
    if isinstance(sae, TwoModelCrosscoder):  # the other model has the same layers
        own = sae.points_of(sae.role_of(lm.model_id, lm.revision))
        captured = [captured[number] for number in own]
    for wanted, layer in zip(points_read(lm, sae), captured, strict=True):
        found = lm.layers.stored(layer.name, layer.point)
        if not wanted.same_tensor(found):
            raise UserError(
                f"SAE {sae_id!r} reads {wanted.point!r}, the run holds {found.point!r} "
                f"({layer.name})",
                hint=f"capture {wanted.point}",
            )


def check_same_point(
    lm: "LanguageModel", sae: SparseAutoencoder, captured: LayerSpec, sae_id: str
) -> None:
    """The same for an SAE of one layer."""
    check_same_points(lm, sae, [captured], sae_id)


def target_layer(sae: SparseAutoencoder) -> str | None:
    """The layer whose activations the SAE reconstructs: the one in its metadata for a transcoder
    (None when there is none), its own layer for every other SAE."""
    metadata = sae.metadata
    if not sae.transcodes:
        return metadata.layer_signature
    target = metadata.other.get("target_layer") or metadata.other.get("hook_name_out")
    return str(target) if target else None
