"""An SAE of the workspace with the model it belongs to, or a model alone, ready to run on texts."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mi_crow.errors import UserError
from mi_crow.language_model.config import ModelSpec
from mi_crow.mechanistic.sae.cross_layer.other_model import OtherModel
from mi_crow.mechanistic.sae.weights_hash import WeightsFile
from mi_crow.store.settings import SPREAD
from mi_crow.store.workspace import Workspace

if TYPE_CHECKING:
    from mi_crow.language_model import HookPoint, LanguageModel
    from mi_crow.mechanistic.sae.base import SparseAutoencoder


@dataclass(frozen=True)
class LoadedSae:
    """An SAE on the device of its model."""

    sae_id: str
    lm: "LanguageModel"
    sae: "SparseAutoencoder"
    layer: "HookPoint"  # of an SAE over several layers the first
    weights: WeightsFile | None = None  # the file it was read from
    further: "tuple[HookPoint, ...]" = ()  # the others that it reads
    other: "OtherModel | None" = None  # of a crosscoder of two models

    @property
    def points(self) -> "tuple[HookPoint, ...]":
        """All layers that it reads, in its order."""
        return (self.layer, *self.further)

    @property
    def several(self) -> bool:
        """Whether it reads several layers, of one model or of two."""
        return bool(self.further) or self.other is not None

    @property
    def place(self) -> str:
        """Where it reads, in words."""
        return self.sae.metadata.hook_name if self.several else self.layer.name

    def weights_hash(self) -> str | None:
        """SHA-256 of its weights; None if its file is not known or has been replaced since."""
        return self.weights.sha256() if self.weights is not None else None


@dataclass(frozen=True)
class LoadedModel:
    """A model without an SAE of its own. Vectors, layers, neurons and features that name their SAE
    steer it."""

    lm: "LanguageModel"
    sae_id: None = None

    @property
    def place(self) -> str:
        """Where its SAE reads: nowhere."""
        return ""

    @property
    def further(self) -> tuple[()]:
        return ()


def load_model(spec: ModelSpec) -> LoadedModel:
    """The model alone. Raises UserError, NotFoundError for one that cannot be loaded."""
    from mi_crow.language_model import LanguageModel

    return LoadedModel(LanguageModel.from_spec(spec))


def load_for_work(workspace: Workspace, sae_id: str, device: str = "auto") -> LoadedSae:
    """The SAE and the model that its file names.

    Raises NotFoundError for an unknown SAE, UserError when it does not say its model or layer, or
    when they do not fit each other.
    """
    from mi_crow.language_model import LanguageModel

    weights = WeightsFile.of(workspace.sae_dir(sae_id))
    sae, spec = open_sae(workspace, sae_id, device)
    return join(sae_id, LanguageModel.from_spec(spec), sae, weights)


def open_sae(
    workspace: Workspace, sae_id: str, device: str = "auto"
) -> "tuple[SparseAutoencoder, ModelSpec]":
    """The SAE on `device`, and which model it needs. Raises NotFoundError, UserError."""
    from mi_crow.language_model.loading import torch_device
    from mi_crow.mechanistic.sae.formats.load import load_sae

    where = torch_device(device)
    sae = load_sae(workspace.sae_dir(sae_id), where)
    if not sae.metadata.model_name or not sae.metadata.layer_signature:
        raise UserError(
            f"SAE {sae_id!r} does not say its model and layer", hint="import it with --model"
        )
    return sae, ModelSpec(
        sae.metadata.model_name,
        revision=sae.metadata.revision,
        device=device if device == SPREAD else str(where),
    )


def join(
    sae_id: str,
    lm: "LanguageModel",
    sae: "SparseAutoencoder",
    weights: WeightsFile | None = None,
) -> LoadedSae:
    """Checks that the SAE fits its layers in `lm`. Raises NotFoundError, UserError."""
    from mi_crow.mechanistic.sae.centring import set_centring
    from mi_crow.mechanistic.sae.cross_layer.sae import CrossLayerSae
    from mi_crow.mechanistic.sae.cross_layer.two_models import TwoModelCrosscoder
    from mi_crow.mechanistic.sae.fitting import check_width
    from mi_crow.mechanistic.sae.targets import points_read

    points = points_read(lm, sae)
    hint = "it belongs to another model or layer"
    widths, written = [sae.n_inputs], []
    if isinstance(sae, TwoModelCrosscoder):  # it writes where it reads
        own = sae.points_of(sae.role_of(lm.model_id, lm.revision))
        widths = [sae.widths[number] for number in own]
    elif isinstance(sae, CrossLayerSae):
        widths = [*sae.widths]
        written = [*zip(sae.target_layers, sae.output_widths, strict=True)]
    for point, width in zip(points, widths, strict=True):
        name = f"layer {point.name!r}"
        check_width(f"SAE {sae_id!r}", width, name, lm.layers.width(point), hint)
    for target, width in written:
        found = lm.layers.width(target)
        check_width(f"SAE {sae_id!r}", width, f"layer {target!r}", found, hint, outputs=True)
    set_centring(lm, sae)
    further = tuple(points[1:])
    if isinstance(sae, TwoModelCrosscoder):
        other = OtherModel(sae, lm)
        return LoadedSae(sae_id, lm, sae.to(lm.device), points[0], weights, further, other)
    return LoadedSae(sae_id, lm, sae.to(lm.device), points[0], weights, further)
